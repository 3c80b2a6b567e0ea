"""The simulated broker against a real one: the same random operations on both, and the same comes of them.

The real one is that of the tests; ``RABBITMQ_SERVER`` names another version. What is compared is what our own channels
and publishers see: confirms, returns and refusals; deliveries with their order, flags, headers and deaths; ready
messages and consumers of every queue after each operation; links that are lost.
"""

import asyncio
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from consumer.broker.message import Message
from consumer.broker.topology import Binding, Exchange
from infra.broker import private_broker
from infra.rabbitmq_node import PrivateBroker
from tests.simulation.comparison import Comparison, Different, Unordered, version_of
from tests.simulation.sides import BRIEF, EXCLUSIVE, LINKS, exchanges, queues

pytestmark = pytest.mark.timeout(300)

TTL_MS = 120
SLOWER = 10
"""By how much longer times a difference has to come again: a busy machine may have taken longer than the first ones."""
LONG_MS = 100_000
"""A time to live that does not end in a run."""
CALM = 8
"""How many operations there are between two restarts or alarms."""

OPEN = st.sampled_from(LINKS)
QUEUES = st.sampled_from([*["plain", "unowned"] * 3, "inbox", *queues(0), *EXCLUSIVE])
EXCHANGES = st.sampled_from([*exchanges()])
KEYS = st.sampled_from(["a", "b", "a.b", "b.a.b", ""])
PATTERNS = st.sampled_from(["a", "b", "a.*", "#", "*.b", "a.#", "#.b", ""])
PATIENCE = st.sampled_from([None, None, None, BRIEF, LONG_MS])
MATCHES = st.sampled_from(["all", "any"])
counted: Counter[str] = Counter()
url = ""
version: tuple[int, ...] = ()
node: PrivateBroker | None = None


class Both(RuleBasedStateMachine):
    """Plays operations on both brokers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.played: list[tuple[Any, ...]] = []
        """So that they can be played again."""
        self.both: Comparison | None = None
        self.over = False
        self._number = 0
        self._consumers = 0
        counted["runs"] += 1

    def run(self, coroutine: Any, bound: float = 60.0) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, bound))

    @initialize()
    def begin(self) -> None:
        both = self.both = Comparison(url, version, TTL_MS, counted, node)
        self.run(both.begin())
        for source in ("direct", "topic", "fanout"):
            self.play("bind", 0, Binding(source, "plain", "a"), True)
        self.play("declare_queue", 0, "own0", {}, False)
        self.consume_first()

    def consume_first(self) -> None:
        for link, queue, prefetch in (
            (0, "plain", 2), (1, "plain", 100), (0, "unowned", 3), (1, "unowned", 100), (1, "dead", 9), (0, "own0", 2),
        ):  # fmt: skip
            self._consume(link, queue, prefetch, no_ack=False, beside=0)

    def play(self, *operation: Any) -> None:
        """Play an operation; a difference counts if it comes again with longer times."""
        if self.over:
            return
        assert self.both is not None
        self.played.append(operation)
        try:
            self.run(self.both.play(*operation))
        except Unordered:
            counted["unordered"] += 1
            self.over = True
        except Different as difference:
            told = "\n".join(map(str, self.played))
            print(f"{told}\n{difference}")  # noqa: T201
            try:
                self.run(self._again(), 600)
            except Different as again:
                raise AssertionError(f"{told}\n{difference}\nand again:\n{again}") from None
            counted["too slow"] += 1
            self.over = True

    async def _again(self) -> None:
        slower = Comparison(url, version, TTL_MS * SLOWER, Counter(), node)
        await slower.begin()
        try:
            for operation in self.played:
                await slower.play(*operation)
        finally:
            await slower.end()

    # What there is.

    def _links(self) -> list[int]:
        assert self.both is not None
        return [number for number in LINKS if self.both.real.links[number] is not None]

    def _has_links(self) -> bool:
        return not self.over and bool(self._links())

    def _has_consumers(self) -> bool:
        assert self.both is not None
        return not self.over and bool(self.both.real.taken)

    def _goes_on(self) -> bool:
        return not self.over

    def _link(self, wanted: int) -> int:
        links = self._links()
        return wanted if wanted in links else links[0]

    # Operations.

    @precondition(_has_links)
    @rule(
        link=OPEN,
        exchange=EXCHANGES,
        key=KEYS,
        queue=QUEUES,
        patience=PATIENCE,
        h=st.sampled_from([{}, {"h": "1"}, {"h": "1", "g": 2}]),
        how=st.sampled_from(["mandatory", "mandatory", "quiet", "unconfirmed"]),
        times=st.sampled_from([1, 1, 2, 4]),
    )
    def publish(
        self, link: int, exchange: str, key: str, queue: str, patience: int | None, h: dict, how: str, times: int
    ) -> None:
        for _ in range(times):
            if not self._has_links():
                return
            self._number += 1
            message = Message(body=str(self._number).encode(), type="t", headers=h, expiration=patience)
            self.play("publish", self._link(link), exchange, key if exchange else queue, message, how)

    @precondition(_has_links)
    @rule(link=OPEN, queue=QUEUES, patience=PATIENCE, times=st.sampled_from([1, 2, 4]))
    def publish_straight(self, link: int, queue: str, patience: int | None, times: int) -> None:
        self.publish(link, "", "", queue, patience, {}, "mandatory", times)

    @precondition(_has_links)
    @rule(
        link=OPEN, source=EXCHANGES, key=PATTERNS, queue=QUEUES, match=st.sampled_from(["all", "any"]), on=st.booleans()
    )
    def bind(self, link: int, source: str, key: str, queue: str, match: str, on: bool) -> None:
        arguments = {"x-match": match, "h": "1", "g": 2} if source == "headers" else {}
        self.play("bind", self._link(link), Binding(source, queue, key, arguments), on)

    @precondition(_has_links)
    @rule(
        link=OPEN,
        queue=QUEUES,
        prefetch=st.sampled_from([1, 2, 3, 100]),
        no_ack=st.sampled_from([False, False, False, True]),
        beside=st.sampled_from([-1, -1, 0, 1, 2]),
    )
    def consume(self, link: int, queue: str, prefetch: int, no_ack: bool, beside: int) -> None:
        assert self.both is not None
        here = [name for name, one in self.both.real.taken.items() if one.link == self._link(link)]
        if any(self.both.real.taken[name].queue == queue for name in here):
            return  # a link that is lost would give back what both hold in no order
        shared = here[beside % len(here)] if here and beside >= 0 else 0
        self._consume(self._link(link), queue, prefetch, no_ack=no_ack, beside=shared)

    def _consume(self, link: int, queue: str, prefetch: int, *, no_ack: bool, beside: int) -> None:
        self._consumers += 1
        self.play("consume", self._consumers, link, queue, prefetch, no_ack, beside)

    @precondition(_has_consumers)
    @rule(
        which=st.integers(0, 7),
        message=st.integers(0, 3),
        how=st.sampled_from([None, None, True, True, False]),
        times=st.sampled_from([1, 1, 2, 4]),
    )
    def settle(self, which: int, message: int, how: bool | None, times: int) -> None:
        assert self.both is not None
        for _ in range(times):
            holding = [name for name, taken in self.both.real.taken.items() if taken.unsettled]
            if not holding or not self._has_consumers():
                return
            name = holding[which % len(holding)]
            self.play("settle", name, message % len(self.both.real.taken[name].unsettled), how)

    @precondition(_has_consumers)
    @rule(which=st.integers(0, 7), how=st.sampled_from([None, True, True, False]))
    def settle_some(self, which: int, how: bool | None) -> None:
        self.settle(which, 0, how, 6)

    @precondition(_has_consumers)
    @rule(which=st.integers(0, 7), how=st.sampled_from(["cancel", "cancel", "close_channel"]))
    def stop(self, which: int, how: str) -> None:
        """A consumer cancels, or is lost with its channel."""
        assert self.both is not None
        names = list(self.both.real.taken)
        name = names[which % len(names)]
        if how == "close_channel" or not self.both.real.taken[name].cancelled:
            self.play(how, name)

    @precondition(_goes_on)
    @rule(link=OPEN, how=st.sampled_from(["open", "open", "open", "close", "cut"]))
    def lose_link(self, link: int, how: str) -> None:
        """Close or cut a link, and open it again; or open one that was lost."""
        assert self.both is not None
        if self.both.real.links[link] is not None:
            if how == "open":
                return
            self.play("cut" if link == LINKS[-1] and how == "cut" else "close", link)
        if self._goes_on() and self.both.real.links[link] is None:
            self.play("open", link)

    @precondition(_has_links)
    @rule(
        link=OPEN,
        queue=QUEUES,
        how=st.sampled_from(["declare", "passive", "own", "own", "own", "differs", "purge", "delete"]),
    )
    def manage_queue(self, link: int, queue: str, how: str) -> None:
        number = self._link(link)
        match how:
            case "purge":
                self.play("purge", number, queue)
            case "delete":
                self.play("delete_queue", queue)
            case "own":
                self.play("declare_queue", number, f"own{number}", {}, False)
            case _:
                more = {"x-delivery-limit": 7} if how == "differs" and queue not in EXCLUSIVE else {}
                self.play("declare_queue", number, queue, more, how == "passive")

    @precondition(_goes_on)
    @rule(exchange=EXCHANGES, how=st.sampled_from([*["declare"] * 5, "passive", "differs", "delete"]))
    def manage_exchange(self, exchange: str, how: str) -> None:
        declared = exchanges()[exchange]
        if how == "delete":
            self.play("delete_exchange", exchange)
        else:
            kind = "direct" if how == "differs" else declared.type
            self.play("declare_exchange", Exchange(exchange, kind, "", declared.arguments), how == "passive")

    def teardown(self) -> None:
        if self.both is not None:
            counted["deliveries"] += sum(len(taken.deliveries) for taken in self.both.real.taken.values())
            self.run(self.both.end())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class BothDisturbed(Both):
    """Also restarts the node and sets it alarms; it is a node of our own."""

    def __init__(self) -> None:
        super().__init__()
        self._calm_since = 0

    def _may_disturb(self) -> bool:
        """Whether something was done since the last time: a restart takes longer than all else."""
        return self._has_links() and len(self.played) >= self._calm_since + CALM

    def _open_links(self) -> None:
        for link in LINKS:
            if self._goes_on() and self.both is not None and self.both.real.links[link] is None:
                self.play("open", link)

    def _rival(self) -> int | None:
        """A consumer of a queue that has another one."""
        assert self.both is not None
        names = {taken.queue: name for name, taken in self.both.real.taken.items()}
        return next((name for name, one in self.both.real.taken.items() if names[one.queue] != name), None)

    @precondition(lambda self: self.over)
    @rule()
    def do_nothing_more(self) -> None:
        """The run is over; Hypothesis wants a rule for the steps that are left."""

    @precondition(_may_disturb)
    @rule()
    def restart(self) -> None:
        # A node that stops may still give to one consumer what another one has had, and then it counts twice.
        while self._goes_on() and (rival := self._rival()) is not None:
            self.play("close_channel", rival)
        self.play("restart")
        self._open_links()
        if self._goes_on():
            self.play("declare_queue", 0, "own0", {}, False)
            self.consume_first()
        self._calm_since = len(self.played)

    @precondition(_may_disturb)
    @rule(
        link=OPEN,
        queues=st.lists(QUEUES, min_size=1, max_size=4),
        how=st.sampled_from([None, True]),
        cut=st.booleans(),
    )
    def alarm(self, link: int, queues: list[str], how: bool | None, cut: bool) -> None:
        """Publish in an alarm, and settle what was delivered: only who has published is not heard.

        A link may be lost meanwhile. What it has published is taken when the alarm is over.
        """
        self.play("alarm", True)
        for queue in queues:
            self._number += 1
            message = Message(body=str(self._number).encode(), type="t")
            self.play("publish_later", self._link(link), "", queue, message)
        self.settle(0, 0, how, 2)
        if cut and LINKS[-1] in self._links():
            self.play("cut", LINKS[-1])
        self.play("alarm", False)
        self.play("answers")
        self._open_links()
        self._calm_since = len(self.played)


@pytest.fixture(autouse=True)
async def no_task_is_left():
    """This test has loops of its own."""


def run(machine: type[Both], runs: int, steps: int = 40) -> None:
    global version  # noqa: PLW0603
    version = asyncio.run(version_of(url))
    by_hand = "CONFORMANCE_RUNS" in os.environ
    counted.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("CONFORMANCE_RUNS", str(runs))),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # A difference has been played again already; in the suite the operations are the same each time.
            phases=[Phase.generate],
            derandomize=not by_hand,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
        ),
    )
    print(f"\ncompared with RabbitMQ {'.'.join(map(str, version))}: {dict(sorted(counted.items()))}")  # noqa: T201


def test_the_simulated_broker_does_what_the_real_one_does(amqp_url):
    global url  # noqa: PLW0603
    url = amqp_url
    run(Both, 6)


def _message(number: int) -> Message:
    return Message(body=str(number).encode(), type="t")


def _in_an_alarm(*meanwhile: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Link 1 has published before the alarm, and publishes two messages in it."""
    return [
        ("publish", 1, "", "plain", _message(0), "mandatory"),
        ("consume", 1, 1, "plain", 3, False, 0),
        ("alarm", True),
        ("publish_later", 1, "", "plain", _message(1)),
        ("publish_later", 1, "", "inbox", _message(2)),
        *meanwhile,
        ("alarm", False),
        ("answers",),
    ]


DISTURBED: dict[str, list[tuple[Any, ...]]] = {
    "a publisher waits for the end of an alarm": _in_an_alarm(("settle", 1, 0, None)),
    "what a link has sent in an alarm is taken though the link is lost": _in_an_alarm(("cut", 1)),
    "a restart gives back what was not acknowledged": [
        ("declare_queue", 0, "own0", {}, False),
        *(("publish", 0, "", queue, _message(number), "mandatory") for number, queue in enumerate(("plain", "own0"))),
        ("consume", 1, 0, "plain", 3, False, 0),
        ("consume", 2, 0, "own0", 3, False, 0),
        ("restart",),
        ("open", 0),
        ("open", 1),
        ("consume", 3, 1, "plain", 3, False, 0),
        ("declare_queue", 1, "own1", {}, False),
    ],
}


async def _play_both(operations: list[tuple[Any, ...]], broker: PrivateBroker) -> None:
    both = Comparison(broker.url, await version_of(broker.url), TTL_MS, Counter(), broker)
    await both.begin()
    try:
        for operation in operations:
            await both.play(*operation)
    finally:
        await both.end()


@pytest.mark.long
def test_the_two_do_the_same_in_an_alarm_and_a_restart():
    with private_broker() as broker:
        for name, operations in DISTURBED.items():
            print(name)  # noqa: T201
            asyncio.run(asyncio.wait_for(_play_both(operations, broker), 90))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_simulated_broker_does_what_a_disturbed_one_does():
    global url, node  # noqa: PLW0603
    with private_broker() as node:
        url = node.url
        run(BothDisturbed, 3, 40)
    node = None
