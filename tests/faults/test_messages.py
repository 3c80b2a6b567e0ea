"""How many messages workers cause, as RabbitMQ itself counts them: published, and delivered to a consumer."""

import asyncio
import re
from typing import NamedTuple

import pytest

from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.topology import Binding, Queue
from consumer.calls.cluster.inbox_probe import PROBE, PROBE_EVERY
from infra.broker import PrivateBroker
from schemas.ids import WorkerId
from tests.faults.stage import Stage
from tests.harness import ROOT

MONTH = 30 * 86_400
PLAN = 1_000_000
"""Messages a month of the plan that ``app.json`` adds (``cloudamqp:lemur``): each is counted when it is published and
once more for each delivery."""


class Counted(NamedTuple):
    """What the broker has counted since it started."""

    published: int
    delivered: int

    @property
    def total(self) -> int:
        return self.published + self.delivered


QUIET = """
Counts = fun() -> [
    {maps:get(messages_received_total, One, 0), maps:get(messages_delivered_total, One, 0)}
    || One <- maps:values(rabbit_global_counters:overview())
] end,
Quiet = fun(Quiet, Before) ->
    timer:sleep(500),
    case Counts() of Before -> rabbit_global_counters:overview(); Now -> Quiet(Quiet, Now) end
end,
Quiet(Quiet, Counts()).
"""
"""The counters when nothing has come for a moment; the node waits itself, because each question starts an Erlang."""


async def quiet(broker: PrivateBroker) -> Counted:
    """The counts when nothing has come for a moment."""
    told = await asyncio.to_thread(broker.rabbitmqctl, "eval", QUIET)
    sums = [
        sum(map(int, re.findall(rf"\b{name}\s*=>\s*(\d+)", told)))
        for name in ("messages_received_total", "messages_delivered_total")
    ]
    return Counted(*sums)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_two_workers_at_rest_use_less_than_half_of_the_free_plan(own_broker: PrivateBroker, scene: Stage):
    one, two = await scene.start(), await scene.start()
    link = Link(own_broker.url, "trace")
    await link.open()
    published: asyncio.Queue[Delivery] = asyncio.Queue()
    try:
        channel = await link.channel()
        trace = Queue(f"{scene.prefix}.trace", "the firehose", exclusive=True)
        await channel.declare_queue(trace)
        await channel.bind(Binding("amq.rabbitmq.trace", trace.name, "publish.#"))
        await channel.consume(trace.name, published.put_nowait, no_ack=True)
        await asyncio.to_thread(own_broker.rabbitmqctl, "trace_on")
        # From one probe of a worker to its next: nothing else is published but the other's one probe.
        inbox = {scene.names.inbox(WorkerId(worker.worker_id)) for worker in (one, two)}
        seen: list[tuple[float, str]] = []
        async with asyncio.timeout(3 * PROBE_EVERY):
            while max((sum(key == name for _, key in seen) for name in inbox), default=0) < 2:
                message = (await published.get()).message
                (key,) = message.headers["routing_keys"]
                kind = message.headers["properties"].get("type")
                assert (kind, key in inbox) == (PROBE, True), f"{kind} to {key!r} was published at rest"
                seen.append((asyncio.get_running_loop().time(), key))
    finally:
        await asyncio.to_thread(own_broker.rabbitmqctl, "trace_off")
        await link.close()
    last = seen[-1]
    before = next(one for one in reversed(seen[:-1]) if one[1] == last[1])
    every = last[0] - before[0]
    assert every >= 10, "more than one message in ten seconds"
    month = 2 * 2 * MONTH / every  # two workers; each probe is published and delivered
    print(f"\na probe each {every:.0f} s: {month:,.0f} messages a month of two idle workers")  # noqa: T201
    assert month < PLAN / 2


def of_the_page(what: str) -> int:
    """What the documentation says that something costs."""
    text = (ROOT / "docs" / "operations" / "capacity.md").read_text()
    found = re.search(rf"\| {what} \| (\d+) ", text)
    assert found is not None
    return int(found[1])


@pytest.mark.timeout(180)
async def test_a_call_costs_no_more_messages_than_the_documentation_says(own_broker: PrivateBroker, scene: Stage):
    await scene.start()
    await scene.start()
    await scene.start_calls(["first"])  # somebody is the placer now
    began = await quiet(own_broker)
    for call in (calls := ["one", "two"]):
        await scene.start_calls([call])
        await quiet(own_broker)
        await scene.end_calls([call])
        await quiet(own_broker)
    lived = await quiet(own_broker)
    assert {event.subject for event in scene.of("closed")} == set(calls)
    for _ in range(20):
        await scene.client.call_tool("first", "counter")
    asked = await quiet(own_broker)
    events = 2  # for each call, delivered to the log of this test
    probes = 2 * 2  # one of each worker, if its minute is over
    found = (lived.total - began.total) / len(calls) - events
    print(f"\n{found} messages a call, {(asked.total - lived.total) / 20} a tool call")  # noqa: T201
    assert found <= of_the_page("start and end of a call") + probes / len(calls)
    assert asked.total - lived.total <= 20 * of_the_page("a tool call") + probes


def test_what_the_plan_is_worth_is_the_same_in_all_places():
    month = PLAN - 2 * 2 * MONTH / PROBE_EVERY  # two workers; each probe is published and delivered
    call = of_the_page("start and end of a call") + 5 * of_the_page("a tool call") + 3
    worth = f"{round(month / call, -3):,.0f} calls"
    for page in ("README.md", "app.json", "docs/operations/capacity.md"):
        assert worth in (ROOT / page).read_text(), page
