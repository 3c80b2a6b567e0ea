"""Whether a worker can be given a call: what its probes and its looks at the inbox find, and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from consumer.broker.channel import Channel
from consumer.broker.message import Delivery, Message
from consumer.broker.topology import inbox
from consumer.calls.cluster.inbox_probe import (
    ANSWER_WITHIN,
    EVERY,
    PROBE,
    PROBE_EVERY,
    PROBE_TIMEOUT,
    Liveness,
)
from consumer.concurrency.task_set import cancel_and_wait
from schemas.ids import WorkerId
from tests.calls.simulated_link import SimulatedLink, simulated_link
from tests.virtual_time import in_virtual_time, moment, passes

ME = WorkerId("w-1")
SOON = 0.1


@dataclass
class Probed:
    """A worker that looks after its inbox, and what came through it."""

    wire: SimulatedLink
    liveness: Liveness
    up: asyncio.Event
    inbox: str
    channel: Channel
    restarts: list[str]
    tag: str = ""
    heard: list[float] = field(default_factory=list)
    """When probes came."""
    deaf: bool = False
    """Whether what comes is kept from the worker."""

    def take(self, delivery: Delivery) -> None:
        assert (delivery.type, delivery.message.persistent) == (PROBE, False)
        self.heard.append(moment())
        if not self.deaf:
            self.liveness.heard(delivery)

    async def consume(self) -> None:
        self.tag = await self.channel.consume(self.inbox, self.take, no_ack=True)


@asynccontextmanager
async def probing() -> AsyncIterator[Probed]:
    async with simulated_link() as wire:
        up, restarts, queue = asyncio.Event(), list[str](), wire.names.inbox(ME)
        await wire.declare(inbox(wire.names, ME))
        liveness = Liveness(wire.publisher, up, queue, restarts.append)
        probed = Probed(wire, liveness, up, queue, await wire.link.channel(), restarts)
        await probed.consume()
        running = asyncio.create_task(liveness.run())
        try:
            yield probed
        finally:
            await cancel_and_wait(running)


@in_virtual_time
async def test_a_worker_is_healthy_when_its_first_probe_has_come_back():
    async with probing() as probed:
        assert not probed.liveness.healthy
        await passes(EVERY)
        assert not probed.liveness.healthy, "there is no link yet"
        probed.up.set()
        await passes(SOON)
        assert probed.liveness.healthy
        assert len(probed.heard) == 1


@in_virtual_time
async def test_a_probe_is_sent_now_and_then_and_the_broker_is_asked_in_between():
    async with probing() as probed:
        looks: list[str] = []
        probed.wire.node.trace = lambda _who, method, _args: looks.append(method)
        probed.up.set()
        await passes(5 * PROBE_EVERY + 1)
        between = [round(later - one) for one, later in zip(probed.heard, probed.heard[1:], strict=False)]
        assert between == [PROBE_EVERY] * 5
        assert looks.count("queue_declare") == 5 * (PROBE_EVERY / EVERY - 1)
        assert probed.liveness.healthy
        assert probed.restarts == []


@in_virtual_time
async def test_a_consumer_that_the_broker_has_forgotten_is_found_by_the_next_look_and_the_link_begun_anew():
    async with probing() as probed:
        probed.up.set()
        await passes(SOON)
        await probed.channel.cancel(probed.tag)
        await passes(EVERY + ANSWER_WITHIN)
        assert not probed.liveness.healthy, "an answer is overdue"
        assert probed.restarts == [], "and may still come"
        await passes(PROBE_TIMEOUT - ANSWER_WITHIN + SOON)
        assert len(probed.restarts) == 1
        assert "did not come back within 10 s" in probed.restarts[0]
        await probed.consume()
        await passes(EVERY + SOON)
        assert probed.liveness.healthy
        assert len(probed.restarts) == 1


@in_virtual_time
async def test_an_inbox_that_is_gone_is_found_as_well():
    async with probing() as probed:
        probed.up.set()
        await passes(SOON)
        await probed.channel.cancel(probed.tag)
        await probed.channel.delete_queue(probed.inbox)
        await passes(EVERY + SOON)
        assert not probed.liveness.healthy


@pytest.mark.parametrize("within_an_answer", [True, False])
@in_virtual_time
async def test_a_worker_is_not_healthy_while_the_broker_owes_an_answer(within_an_answer: bool):
    async with probing() as probed:
        probed.up.set()
        await passes(EVERY - SOON)
        probed.wire.node.set_alarm(on=True)  # it listens to nobody who publishes
        await passes(SOON + ANSWER_WITHIN * (0.9 if within_an_answer else 1.1))
        assert probed.liveness.healthy is within_an_answer
        probed.wire.node.set_alarm(on=False)
        await passes(SOON)
        assert probed.liveness.healthy
        await passes(60)
        assert probed.restarts == [], "a new link would change nothing"


@in_virtual_time
async def test_a_broker_in_an_alarm_is_not_left():
    async with probing() as probed:
        probed.wire.node.set_alarm(on=True)
        probed.up.set()
        await passes(200)
        assert not probed.liveness.healthy
        probed.wire.node.set_alarm(on=False)
        await passes(EVERY + PROBE_TIMEOUT)
        assert probed.liveness.healthy
        assert probed.restarts == []


@in_virtual_time
async def test_another_message_proves_nothing():
    async with probing() as probed:
        probed.deaf = True
        probed.up.set()
        await passes(1)
        other = Delivery(Message(b"{}", type=PROBE), probed.inbox, "", "", False, 0.0, None)
        probed.liveness.heard(other)
        await passes(PROBE_TIMEOUT)
        assert not probed.liveness.healthy
        assert len(probed.restarts) == 1


# A link that is lost.


@in_virtual_time
async def test_nothing_is_known_from_the_loss_of_a_link_until_a_probe_is_back_on_the_next():
    async with probing() as probed:
        probed.up.set()
        await passes(SOON)
        probed.up.clear()
        probed.liveness.lost()
        assert not probed.liveness.healthy
        await passes(EVERY * 5)
        assert (probed.liveness.healthy, len(probed.heard)) == (False, 1)
        probed.up.set()
        await passes(SOON)
        assert (probed.liveness.healthy, len(probed.heard)) == (True, 2), "at once, and by a message"


@in_virtual_time
async def test_an_answer_that_comes_behind_the_loss_of_the_link_proves_nothing():
    async with probing() as probed:
        probed.up.set()
        await passes(EVERY - SOON)
        probed.wire.node.set_alarm(on=True)
        await passes(2 * SOON)  # it looks, and has no answer
        probed.up.clear()
        probed.liveness.lost()
        probed.wire.node.set_alarm(on=False)
        await passes(SOON)
        assert not probed.liveness.healthy


@in_virtual_time
async def test_what_was_on_its_way_when_the_link_was_lost_proves_nothing_and_breaks_nothing():
    async with probing() as probed:
        probed.deaf = True
        probed.up.set()
        await passes(PROBE_TIMEOUT / 2)
        assert len(probed.heard) == 1
        probed.liveness.lost()
        await passes(SOON)
        assert not probed.liveness.healthy
        assert len(probed.heard) == 2, "the next link is probed at once"
        assert probed.restarts == []
        probed.deaf = False
        probed.liveness.lost()
        await passes(SOON)
        assert probed.liveness.healthy


@in_virtual_time
async def test_a_link_that_is_lost_while_a_probe_is_overdue_is_not_begun_anew_once_more():
    async with probing() as probed:
        probed.deaf = True
        probed.up.set()
        await passes(PROBE_TIMEOUT - SOON)
        probed.up.clear()
        await passes(EVERY)
        assert probed.restarts == []


@in_virtual_time
async def test_without_a_link_to_publish_on_nothing_is_known_and_nothing_begun_anew():
    async with probing() as probed:
        probed.wire.publisher.detach()
        probed.up.set()
        await passes(EVERY * 3)
        assert not probed.liveness.healthy
        assert probed.restarts == []
