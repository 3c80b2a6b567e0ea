"""How a worker leaves: what the broker gets of it, in which order, and how long that takes."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.broker.topology import Binding, Queue
from consumer.concurrency.task_set import Tasks
from consumer.worker.budgets import FLUSH_TIMEOUT, INBOX_TIMEOUT, OTHER_NODES
from consumer.worker.exit_codes import WorkerExit
from consumer.worker.leaving import HAND_OVER, leave
from schemas import headers
from schemas.calls import CallEvent, CallKind
from schemas.ids import CallId
from tests.virtual_time import in_virtual_time, moment, passes
from tests.worker.attached import CALL, ME, Attached, attached, follow

DRAIN = 20.0
"""How long (s) a worker's calls may take to end or to go."""

HALF = DRAIN / 2
"""What remains of it for handing over; ``HAND_OVER`` is more than that."""


class Leaving:
    """A worker that has been told to leave."""

    def __init__(self, scene: Attached) -> None:
        self.scene = scene
        self.hurry = asyncio.Event()
        self.tasks = Tasks()
        self.began = follow(scene)
        self.leaving = asyncio.create_task(leave(scene.parts, scene.consumers, self.tasks, self.hurry))

    async def code(self) -> WorkerExit:
        code = await self.leaving
        await self.tasks.cancel()
        return code

    @property
    def took(self) -> float:
        return moment() - self.began

    def in_order(self, *words: str) -> None:
        """See that the broker got these, in this order."""
        places = [self.scene.story.index(word) for word in words]
        assert places == sorted(places), self.scene.story


@in_virtual_time
async def test_a_worker_without_calls_says_that_it_leaves_stops_taking_and_takes_its_inbox_with_it():
    async with attached() as scene:
        assert scene.consumed() == {"unowned", "calls", "queries"}
        leaving = Leaving(scene)
        assert await leaving.code() is WorkerExit.DRAINED
        leaving.in_order("presence: draining", "worker.draining", "basic cancel", "worker.stopped", "queue delete")
        leaving.in_order("presence: draining", "presence: stopped", "queue delete")
        assert scene.story.count("channel close") == 3
        assert scene.consumed() == set()
        assert scene.wire.names.inbox(ME) not in scene.wire.node.queues
        assert scene.parts.state == "stopped"
        assert leaving.took == pytest.approx(OTHER_NODES, abs=0.1), "it waits for nothing else"


@in_virtual_time
async def test_its_calls_go_to_the_others_between_the_last_that_it_takes_and_its_end():
    async with attached() as scene:
        await scene.open()
        await scene.other_reports()
        leaving = Leaving(scene)
        assert await leaving.code() is WorkerExit.DRAINED
        leaving.in_order(
            "worker.draining", "basic cancel", "session.closed", "call.recipe", "queue unbind", "worker.stopped",
            "queue delete",
        )  # fmt: skip
        assert leaving.took < 1, "they are not waited for"
        assert not scene.parts.placer.is_placing
        unowned = await scene.wire.consume(scene.wire.names.unowned)
        given = await unowned.next()
        assert (given.type, given.message.headers[headers.RETURNED]) == ("call.recipe", ME)
        assert scene.parts.sessions.count() == 0


@in_virtual_time
async def test_where_nobody_else_is_its_calls_are_closed():
    async with attached() as scene:
        await scene.open()
        leaving = Leaving(scene)
        assert await leaving.code() is WorkerExit.DRAINED
        leaving.in_order("worker.draining", "session.closed", "worker.stopped", "queue delete")
        assert "call.recipe" not in scene.story


@in_virtual_time
async def test_who_could_take_its_calls_is_asked_before_they_are_given_away():
    async with attached() as scene:
        await scene.open()
        await scene.other_reports()
        await passes(scene.parts.presence.grace * 2)  # nobody has heard of it since
        leaving = Leaving(scene)
        await leaving.code()
        leaving.in_order("presence: draining", "worker.report", "worker.draining", "session.closed")


# Waiting for calls to end.


def waiting(**more: Any) -> dict[str, Any]:
    return {"drain": "wait", "drain_timeout": DRAIN, **more}


@in_virtual_time
async def test_who_waits_keeps_its_calls_until_they_end_and_takes_their_ends():
    async with attached(waiting()) as scene:
        await scene.open()
        await scene.other_reports()
        leaving = Leaving(scene)
        await passes(HALF / 2)
        assert scene.consumed() == {"unowned", "calls", "queries"}, "there may be no other worker for what these bring"
        assert scene.parts.sessions.count() == 1
        event = CallEvent(call_id=CALL, kind=CallKind.ENDED, source="test")
        await scene.send("", event.model_dump(mode="json", exclude_none=True), exchange=scene.wire.names.calls)
        assert await leaving.code() is WorkerExit.DRAINED
        assert leaving.took == pytest.approx(HALF / 2 + OTHER_NODES, abs=0.5)
        leaving.in_order("worker.draining", "call.ended", "session.closed", "worker.stopped")
        assert "call.recipe" not in scene.story


@in_virtual_time
async def test_who_waits_gives_its_calls_away_while_there_is_time_for_that():
    async with attached(waiting()) as scene:
        await scene.open()
        await scene.other_reports()
        leaving = Leaving(scene)
        assert await leaving.code() is WorkerExit.DRAINED
        assert leaving.took == pytest.approx(HALF + OTHER_NODES, abs=0.2)
        leaving.in_order("worker.draining", "basic cancel", "session.closed", "call.recipe", "worker.stopped")


@in_virtual_time
async def test_who_has_long_to_wait_leaves_so_many_seconds_for_giving_away():
    async with attached(waiting(drain_timeout=4 * HAND_OVER)) as scene:
        await scene.open()
        leaving = Leaving(scene)
        await leaving.code()
        assert leaving.took == pytest.approx(3 * HAND_OVER + OTHER_NODES, abs=0.2)


@in_virtual_time
async def test_what_is_waited_is_taken_from_what_tool_calls_may_take():
    async with attached(waiting()) as scene:
        await scene.open()
        await scene.call_tool(takes=60)
        leaving = Leaving(scene)
        assert await leaving.code() is WorkerExit.DRAIN_TIMED_OUT, "a request was cut"
        assert leaving.took == pytest.approx(DRAIN - 5, abs=1), "and its processes have five seconds"


@in_virtual_time
async def test_a_second_signal_ends_the_waiting_and_a_third_cuts_the_requests():
    async with attached(waiting()) as scene:
        await scene.open()
        await scene.call_tool(takes=60)
        leaving = Leaving(scene)
        await passes(1)
        leaving.hurry.set()
        await passes(0.5)
        assert not leaving.hurry.is_set(), "it has been heeded"
        assert (scene.consumed(), leaving.leaving.done()) == (set(), False)
        leaving.hurry.set()
        assert await leaving.code() is WorkerExit.DRAIN_TIMED_OUT
        assert leaving.took < 3
        leaving.in_order("worker.draining", "worker.stopped")
        assert scene.parts.sessions.count() == 0


# What stays behind.


@in_virtual_time
async def test_an_inbox_with_a_message_in_it_stays_for_the_placer():
    async with attached() as scene:
        leaving = Leaving(scene)
        await passes(OTHER_NODES / 2)
        control, tag = scene.consumers._control, scene.consumers._inbox_consumer
        assert control is not None
        await control.cancel(tag)  # what comes from now on stays in the inbox
        await scene.send("call.started", {}, exchange="", call=CallId(scene.wire.names.inbox(ME)))
        assert await leaving.code() is WorkerExit.DRAINED
        assert scene.queue(scene.wire.names.inbox(ME)).message_count == 1


@in_virtual_time
async def test_what_cannot_be_told_is_left_to_the_placer_with_the_inbox():
    async with attached() as scene:
        await scene.open()
        scene.wire.node.set_alarm(on=True)
        leaving = Leaving(scene)
        with capture_logs() as logs:
            code = await leaving.code()
        told = {one["event"]: one for one in logs}
        assert told["worker.events_unsent"]["count"] > 0
        assert (code, told["worker.stopped"]["drained"]) == (WorkerExit.DRAIN_TIMED_OUT, False)
        assert leaving.took > FLUSH_TIMEOUT
        assert scene.wire.names.inbox(ME) in scene.wire.node.queues
        scene.wire.node.set_alarm(on=False)


@pytest.mark.parametrize(("waits", "drained"), [(INBOX_TIMEOUT / 2, True), (INBOX_TIMEOUT + 1, False)])
@in_virtual_time
async def test_an_event_of_what_comes_out_of_the_inbox_last_is_waited_for(waits: float, drained: bool):
    async with attached() as scene:
        leaving = Leaving(scene)
        await passes(OTHER_NODES / 2)
        assert "worker.stopped" in scene.story, "all events so far are confirmed"
        await scene.wire.declare(Queue("events", "of this test"))
        await (await scene.wire.link.channel()).bind(Binding(scene.wire.names.events, "events", "#"))
        scene.wire.node.leaderless["events"] = asyncio.get_running_loop().time() + OTHER_NODES / 2 + waits
        scene.parts.reporter.worker("stopped")
        with capture_logs() as logs:
            assert await leaving.code() is (WorkerExit.DRAINED if drained else WorkerExit.DRAIN_TIMED_OUT)
        told = {one["event"]: one for one in logs}
        assert told["worker.stopped"]["drained"] is drained
        assert ("worker.events_unsent" in told) is not drained
        assert (scene.wire.names.inbox(ME) in scene.wire.node.queues) is not drained
        assert leaving.took < OTHER_NODES + INBOX_TIMEOUT + 0.5


@in_virtual_time
async def test_a_worker_without_calls_whose_events_are_not_told_leaves_its_inbox_and_has_not_drained():
    async with attached() as scene:
        scene.wire.node.set_alarm(on=True)
        leaving = Leaving(scene)
        with capture_logs() as logs:
            assert await leaving.code() is WorkerExit.DRAIN_TIMED_OUT
        told = {one["event"]: one for one in logs}
        assert told["worker.events_unsent"]["count"] > 0
        assert told["worker.stopped"]["drained"] is False
        assert leaving.took == pytest.approx(FLUSH_TIMEOUT + OTHER_NODES, abs=0.5)
        assert scene.wire.names.inbox(ME) in scene.wire.node.queues
        scene.wire.node.set_alarm(on=False)
