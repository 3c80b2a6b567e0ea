"""What is remembered of calls that have ended, and for how long."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Binding, Names, Queue
from consumer.calls.cluster.ended_calls import CLOCKS, REMEMBER, Endings, OpenedBy
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, session_id_of
from schemas.internal import ClosedSessions, EndedCalls
from tests.calls.simulated_link import Heard, SimulatedLink, simulated_link

CALL = CallId("c-1")
ID = SessionId(CALL)
SECOND = session_id_of(CALL, ServiceName("other"), first=False)
TOMBSTONE = 30.0


@pytest.fixture
async def mine() -> AsyncIterator[Endings]:
    """A worker's, that has no link."""
    made = Endings(WorkerId("w-1"), Names(), Publisher(), TOMBSTONE)
    yield made
    await made.stop()


def told(mine: Endings, ended: dict[CallId, float], *, lifted: tuple[CallId, ...] = (), by: str = "w-2") -> None:
    message = EndedCalls(worker_id=WorkerId(by), ended=ended, lifted=list(lifted))
    body = message.model_dump_json().encode()
    mine.hear(Delivery(Message(body), "workers", "", "", False, 0.0, None))


def told_closed(mine: Endings, closed: dict[SessionId, float], *, by: str = "w-2") -> set[CallId]:
    body = ClosedSessions(worker_id=WorkerId(by), closed=closed).model_dump_json().encode()
    return mine.hear(Delivery(Message(body, type=ClosedSessions.type), "workers", "", "", False, 0.0, None))


async def reports(wire: SimulatedLink) -> Heard:
    """Consume what a worker reports to all others."""
    await wire.declare(Queue("w-3", "of this test"))
    await (await wire.link.channel()).bind(Binding(wire.names.workers, "w-3"))
    return await wire.consume("w-3")


def ago(seconds: float) -> datetime:
    return datetime.fromtimestamp(time.time() - seconds, UTC)


async def test_a_tombstone_keeps_everything_out(mine: Endings):
    assert not mine.bar(CALL, ago(0))
    mine.note(CALL)
    assert CALL in mine
    assert mine.bar(CALL, ago(-10))
    assert mine.bar(CALL, None)


async def test_what_is_older_than_the_end_is_kept_out_for_longer(mine: Endings):
    told(mine, {CALL: time.time() - 300})
    assert CALL not in mine
    assert mine.bar(CALL, ago(301))
    assert not mine.bar(CALL, ago(299)), "sent after the end, when there was no tombstone any more"
    assert not mine.bar(CALL, None), "nobody knows when"


async def test_an_end_that_is_told_again_is_not_remembered_for_longer(mine: Endings):
    told(mine, {CALL: time.time() - REMEMBER - 1})
    assert not mine.bar(CALL, ago(REMEMBER + 2))


async def test_the_last_end_counts(mine: Endings):
    told(mine, {CALL: time.time() - 100})
    told(mine, {CALL: time.time() - 200}, by="w-3")
    assert mine.bar(CALL, ago(150))


async def test_a_call_that_somebody_opens_again_has_not_ended(mine: Endings):
    mine.note(CALL)
    mine.lift(CALL)
    assert not mine.bar(CALL, ago(10))
    mine.note(CALL)
    told(mine, {}, lifted=(CALL,))
    assert not mine.bar(CALL, ago(10))


async def test_an_end_that_is_told_again_by_who_did_not_hear_of_the_lifting_stays_lifted(mine: Endings):
    ended = time.time() - 1
    told(mine, {CALL: ended})
    mine.lift(CALL)
    told(mine, {CALL: ended}, by="w-3")
    assert CALL not in mine
    told(mine, {CALL: time.time() + 1}, by="w-3")
    assert CALL in mine, "it has ended once more"


async def test_an_opening_again_that_is_heard_of_late_does_not_lift_a_newer_end(mine: Endings):
    lifted = time.time() - 2
    told(mine, {CALL: lifted + 1})
    told(mine, {CALL: lifted}, lifted=(CALL,), by="w-3")
    assert CALL in mine
    told(mine, {CALL: lifted + 1.5}, lifted=(CALL,), by="w-3")
    assert CALL not in mine


async def test_who_opens_a_call_again_or_ends_it_does_so_after_what_it_has_heard(mine: Endings):
    told(mine, {CALL: time.time() + 2})
    mine.lift(CALL)
    assert CALL not in mine, "the other's clock is ahead"
    mine.note(CALL)
    assert CALL in mine


async def test_an_older_worker_reads_that_a_call_was_opened_again():
    async with simulated_link() as wire:
        mine = Endings(WorkerId("w-1"), wire.names, wire.publisher, TOMBSTONE)
        taken = await reports(wire)
        mine.note(CALL)
        mine.lift(CALL)
        heard = EndedCalls.model_validate_json((await taken.next()).message.body)
        assert heard.lifted == [CALL], "it forgets the end of whatever is named here"
        assert list(heard.ended) == [CALL], "and newer ones learn when"
        await mine.stop()


async def test_what_was_heard_from_another_is_told_over_a_new_link():
    async with simulated_link() as wire:
        mine = Endings(WorkerId("w-1"), wire.names, wire.publisher, TOMBSTONE)
        taken = await reports(wire)
        ended = time.time() - 1
        told(mine, {CALL: ended})
        mine.tell_again()
        heard = EndedCalls.model_validate_json((await taken.next()).message.body)
        assert heard.ended == {CALL: ended}
        await mine.stop()


async def test_a_start_from_behind_the_end_opens_nothing_however_late_it_comes(mine: Endings):
    told(mine, {CALL: time.time() - 300})
    assert mine.bars_start(CALL, ago(299)), "it was sent when there was a tombstone"
    assert not mine.bars_start(CALL, ago(300 - TOMBSTONE - 5)), "it was sent when there was none any more"
    assert not mine.bars_start(CALL, None), "nobody knows when"
    assert not mine.bars_start(CallId("c-2"), ago(0)), "it has not ended"


async def test_an_end_that_is_heard_of_late_ends_what_a_start_opened_and_no_newer_request(mine: Endings):
    told(mine, {CALL: time.time() - 20})
    assert mine.ends(CALL, OpenedBy(ago(10))), "there was a tombstone"
    assert mine.ends(CALL, OpenedBy(None)), "there is one"
    assert not mine.ends(CALL, OpenedBy(ago(10), commanded=True)), "a request opens a call that has ended"
    assert mine.ends(CALL, OpenedBy(ago(21), commanded=True)), "it has ended since"
    assert mine.ends(CALL, OpenedBy(ago(20 - CLOCKS / 2), commanded=True)), "by the clock of another"


async def test_a_session_that_was_closed_is_that_which_the_command_closed_or_an_older_one(mine: Endings):
    created = ago(1)
    mine.note_closed(SECOND, [created])
    assert mine.was_closed(SECOND, created), "however short it lived"
    assert mine.was_closed(SECOND, ago(2)), "another worker had opened it before"
    assert not mine.was_closed(SECOND, ago(0)), "it was opened again"
    assert not mine.was_closed(ID, created), "another one of the call"
    assert not mine.bar(CALL, ago(1)), "the call has not ended"


async def test_the_id_of_a_call_stands_for_all_its_sessions(mine: Endings):
    mine.note_closed(ID, [ago(60), ago(50)])
    assert mine.was_closed(ID, ago(60))
    assert mine.was_closed(SECOND, ago(50))
    assert not mine.was_closed(SessionId("c-2"), ago(60))


async def test_a_command_that_closed_nothing_here_counts_for_what_is_older_than_clocks_differ(mine: Endings):
    mine.note_closed(ID, [])
    assert mine.was_closed(ID, ago(CLOCKS + 1))
    assert not mine.was_closed(ID, ago(CLOCKS - 1)), "it may have been opened since, by a clock that is behind"


async def test_the_last_closing_counts_whoever_tells_of_it(mine: Endings):
    mine.note_closed(ID, [ago(10)])
    assert told_closed(mine, {ID: time.time() - 100}) == {CALL}
    assert mine.was_closed(ID, ago(10))
    told_closed(mine, {ID: time.time() - 1, SECOND: time.time() - 1}, by="w-3")
    assert mine.was_closed(ID, ago(2))
    mine.note_closed(ID, [])
    assert mine.was_closed(ID, ago(2)), "the other's clock is ahead"
    told_closed(mine, {SessionId("c-2"): time.time() - REMEMBER - 1})
    assert not mine.was_closed(SessionId("c-2"), ago(REMEMBER + 2)), "it is not remembered for longer"


async def test_what_was_closed_is_told_in_a_message_of_its_own_and_over_a_new_link():
    async with simulated_link() as wire:
        mine = Endings(WorkerId("w-1"), wire.names, wire.publisher, TOMBSTONE)
        taken = await reports(wire)
        closed = ago(10)
        mine.note_closed(ID, [closed])
        for _ in range(2):
            heard = await taken.next()
            assert heard.type == ClosedSessions.type, "older workers ignore it, and no ended call with it"
            (told_of,) = ClosedSessions.model_validate_json(heard.message.body).closed.items()
            assert told_of[0] == ID
            assert told_of[1] >= closed.timestamp()
            mine.tell_again()
        await mine.stop()
