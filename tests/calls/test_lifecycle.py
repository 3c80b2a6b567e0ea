"""What a message does to a call: its sessions, its events, why it is owned. Real sessions, and no broker."""

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from consumer.broker.errors import BrokerError
from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.outcome import Done, Outcome
from consumer.broker.topology import Queue
from consumer.calls.owned_call import CallSession, Reason
from consumer.calls.routes import Route
from schemas import headers
from schemas.base import Json
from schemas.calls import CallKind
from schemas.errors import InvalidMessage, ServiceNotFound, SessionExists, SessionNotFound, SessionsError
from schemas.events import EndReason
from schemas.ids import ServiceName, SessionId, WorkerId, session_id_of
from schemas.internal import OwnerCheck, Recipe, SessionRecipe
from schemas.replies import Reply
from schemas.requests import CallEnded, CallProgress, CallStarted, SessionClose, SessionCreate, ToolsCall
from tests.calls.owner_parts import CALL, ECHO, ME, OTHER, OwnerParts, owner_parts
from tests.calls.owning import owning
from tests.calls.simulated_link import BOUND, simulated_link
from tests.simulation.world.servers import Books, SimulatedServers
from tests.virtual_time import in_virtual_time

STARTED = CallStarted(call_id=CALL, kind=CallKind.STARTED, source="test")
ENDED = CallEnded(call_id=CALL, kind=CallKind.ENDED, source="test")
ANSWERED = CallProgress(call_id=CALL, kind=CallKind.PROGRESS, source="test", attributes={"call_state": "answered"})
RINGING = CallStarted(call_id=CALL, kind=CallKind.STARTED, source="test", attributes={"call_state": "ringing"})
ID = SessionId(CALL)
SECOND = session_id_of(CALL, OTHER, first=False)


@pytest.fixture
async def parts(tmp_path: Path):
    async with owner_parts(tmp_path) as made:
        yield made


def done(outcome: Outcome) -> tuple[str, Json]:
    assert isinstance(outcome, Done)
    result = outcome.reply.result if isinstance(outcome.reply, Reply) else None
    return outcome.what, result or {}


def create(**more: Any) -> SessionCreate:
    return SessionCreate(session_id=ID, service_name=ECHO, **more)


def tool_call(**more: Any) -> ToolsCall:
    return ToolsCall(**({"session_id": ID, "name": "echo", "arguments": {}} | more))


async def test_a_start_opens_a_session_on_each_service_and_an_end_closes_them(parts: OwnerParts):
    what, result = done(await parts.carry_out(STARTED))
    assert (what, result) == ("opened", {"sessions": [CALL, SECOND]})
    sessions = list(parts.call.sessions.values())
    assert parts.call.events.untold == sessions, "nobody is told before there is a recipe"
    assert parts.call.recipe.dirty
    assert all(session.metadata["call"]["call_id"] == CALL for session in sessions)
    _, result = done(await parts.carry_out(ENDED))
    assert sorted(result["closed"]) == [CALL, SECOND]
    assert [session.end_reason for session in sessions] == [EndReason.CALL_ENDED] * 2
    assert (parts.call.sessions, parts.call.tenure.reason) == ({}, Reason.ENDED)
    assert CALL in parts.endings
    assert done(await parts.carry_out(STARTED))[0] == "ended_before"


async def test_a_start_that_comes_again_touches(parts: OwnerParts):
    await parts.carry_out(STARTED)
    sessions = dict(parts.call.sessions)
    assert done(await parts.carry_out(ANSWERED))[0] == "touched"
    assert parts.call.sessions == sessions


async def test_a_session_that_was_opened_ahead_becomes_that_of_the_start(parts: OwnerParts):
    await parts.carry_out(create(metadata={"mine": 1}))
    (ahead,) = parts.call.sessions.values()
    await parts.carry_out(STARTED)
    assert parts.call.sessions[ID] is ahead
    assert ahead.metadata["mine"] == 1
    assert ahead.metadata["call"]["source"] == "test"
    assert parts.call.undecided == set()


async def test_a_command_that_is_delivered_again_opens_nothing(parts: OwnerParts):
    await parts.carry_out(create(), message_id="m-1")
    (first,) = parts.call.sessions.values()
    await parts.carry_out(create(), message_id="m-1")
    assert list(parts.call.sessions.values()) == [first]
    await parts.carry_out(SessionClose(session_id=ID))
    with pytest.raises(SessionNotFound):
        await parts.carry_out(create(), message_id="m-1")
    await parts.carry_out(create(), message_id="m-2")
    assert first not in parts.call.sessions.values()
    assert first.end_reason is EndReason.REQUESTED


async def test_a_command_lifts_the_tombstone(parts: OwnerParts):
    await parts.carry_out(ENDED)
    await parts.carry_out(create())
    assert parts.call.tenure.reason is Reason.SESSIONS
    assert CALL not in parts.endings


@pytest.mark.parametrize("given", [{headers.LATE: True}, {headers.DEATHS: 1}], ids=["orphan", "forwarded since"])
async def test_a_command_that_was_held_back_until_after_the_end_opens_nothing(parts: OwnerParts, given: Json):
    before = datetime.now(UTC)
    await parts.carry_out(ENDED)
    with pytest.raises(SessionNotFound, match="has ended"):
        await parts.carry_out(create(), headers=given, timestamp=before)
    assert CALL in parts.endings
    await parts.carry_out(create(), headers=given, timestamp=datetime.now(UTC))
    assert ID in parts.call.sessions, "it was sent behind the end"


async def test_a_session_on_another_service_is_not_kept(parts: OwnerParts):
    await parts.carry_out(create())
    (first,) = parts.call.sessions.values()
    with pytest.raises(SessionExists, match="'c-1' is on service 'echo', not 'other'"):
        await parts.carry_out(SessionCreate(session_id=ID, service_name=OTHER, if_exists="keep"))
    await parts.carry_out(create(if_exists="keep"))
    assert list(parts.call.sessions.values()) == [first]


async def test_what_a_command_may_not_say_is_refused(parts: OwnerParts):
    with pytest.raises(InvalidMessage, match=r"metadata\.call"):
        await parts.carry_out(create(metadata={"call": {}}))
    with pytest.raises(ServiceNotFound):
        await parts.carry_out(SessionCreate(session_id=ID, service_name=ServiceName("nobody")))
    assert parts.call.sessions == {}


async def test_a_call_that_rings_has_processes_ready_and_its_sessions_when_it_is_answered(tmp_path: Path):
    routes = (Route(services=(ECHO,), start="answered"),)
    async with owner_parts(tmp_path, routes) as parts:
        assert done(await parts.carry_out(RINGING))[0] == "reserved"
        assert (parts.call.tenure.reason, parts.call.sessions) == (Reason.RINGING, {})
        assert done(await parts.carry_out(RINGING))[0] == "touched", "it rings on"
        assert done(await parts.carry_out(ANSWERED))[0] == "opened"
        assert parts.call.tenure.reason is Reason.SESSIONS
        (session,) = parts.call.sessions.values()
        assert session.record.start_kind == "reserved"


async def test_a_call_that_ends_while_it_rings_gives_back_what_was_held(tmp_path: Path):
    routes = (Route(services=(ECHO,), start="answered"),)
    async with owner_parts(tmp_path, routes) as parts:
        await parts.carry_out(RINGING)
        await parts.carry_out(ENDED)
        assert (parts.call.tenure.reason, parts.call.tenure.ringing) == (Reason.ENDED, None)


def recipe_of(session_id: SessionId, revision: int = 1) -> Recipe:
    now = datetime.now(UTC)
    one = SessionRecipe(
        session_id=session_id, service_name=ECHO, created_at=now, last_accessed=now, timeout=300.0,
        metadata={"call": STARTED.model_dump(mode="json")}, life="life",
    )  # fmt: skip
    return Recipe(call_id=CALL, worker_id=WorkerId("dead"), revision=revision, sessions=[one])


async def test_a_recipe_brings_back_what_the_call_has_not_had_here(parts: OwnerParts):
    assert done(await parts.carry_out(recipe_of(ID)))[0] == "restored"
    (session,) = parts.call.sessions.values()
    assert session.restored
    assert done(await parts.carry_out(recipe_of(SECOND)))[0] == "restore_not_needed", "it is no newer"
    await parts.carry_out(SessionClose(session_id=ID))
    assert done(await parts.carry_out(recipe_of(ID, revision=2)))[0] == "restore_not_needed"
    assert parts.call.sessions == {}, "what has been here comes back by no recipe"
    await parts.carry_out(ENDED)
    assert done(await parts.carry_out(recipe_of(SECOND, revision=3)))[0] == "restore_not_needed"


async def test_a_recipe_whose_sessions_do_not_start_is_not_restored():
    async with owner_parts(SimulatedServers("w-1", Books(), lambda: 0.5, 1.0)) as parts:
        assert done(await parts.carry_out(recipe_of(ID)))[0] == "not_restored"
        assert parts.call.sessions == {}


@in_virtual_time
async def test_our_own_question_says_that_the_call_is_ours_and_anothers_that_it_is_not_theirs():
    async with owning() as scene:
        await scene.opened()
        parts = scene.parts
        mine = OwnerCheck(call_id=CALL, worker_id=ME, revision=0)
        older = parts.owned_calls.answers_to
        await scene.lose_link()
        assert done(await parts.carry_out(mine, reply_to=older))[0] == "asked_before", (
            "it came before the link was lost"
        )
        await scene.new_link()
        assert done(await parts.carry_out(mine, reply_to=older))[0] == "asked_before"
        assert parts.call.check.in_doubt, "a placer may have taken the call away since"
        assert done(await parts.carry_out(mine, reply_to=parts.owned_calls.answers_to))[0] == "still_owner"
        assert not parts.call.check.in_doubt
        _, answer = done(await parts.carry_out(OwnerCheck(call_id=CALL, worker_id=WorkerId("w-2"), revision=0)))
        assert answer == {"call_id": CALL, "owner": ME, "link": parts.owned_calls.answers_to}


async def test_an_end_waits_while_it_is_not_known_whose_the_call_is(parts: OwnerParts):
    await parts.carry_out(create())
    recipe_held(parts)
    parts.owned_calls.detach()
    await parts.carry_out(SessionClose(session_id=ID))
    assert [one.event.type for one in parts.call.events.pending] == ["mcp.session.closed"]
    told = len(parts.outbox)
    async with simulated_link() as wire, asyncio.timeout(BOUND):
        await wire.declare(Queue("requests", "of this test", exclusive=True))
        parts.owned_calls.attach(await wire.link.channel(), "requests")
        parts.call.recipe.lives.clear()  # it has come back, and was acknowledged
        question = OwnerCheck(call_id=CALL, worker_id=ME, revision=0)
        await parts.carry_out(question, reply_to=parts.owned_calls.answers_to)
        while parts.call.events.pending:
            await asyncio.sleep(0)
    assert len(parts.outbox) == told + 1


async def test_what_ends_before_it_is_told_of_is_told_behind_a_recipe_and_its_end_when_that_has_come(parts: OwnerParts):
    await parts.carry_out(create())
    session = parts.call.sessions[ID]
    await parts.carry_out(SessionClose(session_id=ID))
    async with simulated_link() as wire:
        parts.owned_calls.attach(await wire.link.channel(), "requests")
        await parts.owned_calls.tell_ends(parts.call)
        assert len(parts.outbox) == 1, "the recipe"
        assert parts.call.recipe.naming(session.life) == {parts.call.recipe.revision}
        assert len(parts.call.events.pending) == 2
        assert parts.owned_calls.left_from == parts.call.recipe.revision, "should we die, a placer reports created"
        recipe_back(parts, [session])
        await parts.owned_calls.tell_ends(parts.call)
    assert len(parts.outbox) == 3, "created and its end"
    assert parts.owned_calls.left_from == parts.call.recipe.revision, "RabbitMQ may not have created"


async def test_what_ends_before_it_is_told_of_is_told_behind_the_end_of_the_life_before(parts: OwnerParts):
    await parts.carry_out(create())
    before = parts.call.sessions[ID]
    recipe_away(parts)
    await parts.carry_out(SessionClose(session_id=ID))
    told = len(parts.outbox)
    await parts.carry_out(create())
    session = parts.call.sessions[ID]
    await parts.carry_out(SessionClose(session_id=ID))
    assert [one.event.type.rpartition(".")[2] for one in parts.call.events.pending] == ["closed", "created", "closed"]
    async with simulated_link() as wire:
        parts.owned_calls.attach(await wire.link.channel(), "requests")
        await parts.owned_calls.tell_ends(parts.call)
        assert len(parts.outbox) == told, "the recipe of the life before may be at a placer"
        recipe_back(parts, [before])
        await parts.owned_calls.tell_ends(parts.call)
        assert len(parts.outbox) == told + 1, "a recipe"
        recipe_back(parts, [before, session])
        await parts.owned_calls.tell_ends(parts.call)
    assert len(parts.outbox) == told + 4, "the end of the life before, then created and its end"


async def test_what_ends_before_it_is_told_of_at_a_worker_that_gives_its_call_up_has_a_recipe_too(parts: OwnerParts):
    await parts.carry_out(create())
    await parts.carry_out(SessionClose(session_id=ID))
    parts.owned_calls.leave_to_placer(parts.call)
    assert len(parts.outbox) == 1, "the recipe: whoever gets it reports its lives"
    assert not parts.call.events.pending
    assert parts.owned_calls.left_from == parts.call.recipe.revision


async def test_a_recipe_for_what_has_ended_leaves_out_what_is_told_of_later(parts: OwnerParts):
    await parts.carry_out(create())
    ended = parts.call.sessions[ID]
    await parts.carry_out(SessionClose(session_id=ID))
    await parts.carry_out(create())
    parts.owned_calls.leave_to_placer(parts.call)
    assert parts.call.recipe.lives == {parts.call.recipe.revision: frozenset({ended.life})}
    assert parts.call.recipe.dirty, "the next one names the new life, and created is behind it"


def recipe_away(parts: OwnerParts) -> None:
    """Have the call's recipe written, and its sessions told of."""
    parts.owned_calls.write_recipe(parts.call)
    parts.owned_calls.tell_created(parts.call)


def recipe_held(parts: OwnerParts) -> None:
    """Have the call's recipe written, its sessions told of, and the recipe delivered to us."""
    recipe_away(parts)
    recipe_back(parts, parts.call.sessions.values())


def recipe_back(parts: OwnerParts, sessions: Iterable[CallSession]) -> None:
    """Have the call's recipe delivered to us, which names these sessions."""
    recipe = parts.owned_calls.recipe(parts.call, sessions)
    message = Message(recipe.model_dump_json().encode(), headers={CALL_HEADER: CALL})
    parts.owned_calls.recipe_arrived(Delivery(message, "inbox", "", "", False, 0.0, None), recipe)


async def test_an_end_waits_when_the_broker_has_given_the_link_up(parts: OwnerParts):
    await parts.carry_out(create())
    recipe_held(parts)
    async with simulated_link() as wire:
        parts.owned_calls.attach(await wire.link.channel(), "requests")
        consuming = next(one for one in wire.node.clients if not one.closed)
        consuming.cut(client_after=0.02, server_after=0.0)
        await parts.carry_out(SessionClose(session_id=ID))
        with pytest.raises(BrokerError):
            await parts.owned_calls.tell_ends(parts.call)
        parts.owned_calls.detach()
    assert [one.event.type for one in parts.call.events.pending] == ["mcp.session.closed"]


async def test_an_end_waits_for_a_recipe_that_was_written_and_has_not_come(parts: OwnerParts):
    await parts.carry_out(create())
    parts.owned_calls.write_recipe(parts.call)
    parts.owned_calls.tell_created(parts.call)
    await parts.carry_out(SessionClose(session_id=ID))
    assert not parts.call.may_tell, "another connection of ours may have it, which RabbitMQ has not given up yet"
    assert [one.event.type for one in parts.call.events.pending] == ["mcp.session.closed"]


async def test_a_start_that_the_placer_sent_on_before_it_heard_of_the_end_opens_nothing(parts: OwnerParts):
    parts.endings.note(CALL)
    assert done(await parts.carry_out(STARTED, timestamp=datetime.now(UTC)))[0] == "ended_before"
    assert not parts.call.sessions


# The session that a request runs on.


def soon() -> float:
    return time.monotonic() + 30


async def test_a_request_that_waits_for_its_turn_while_its_call_ends_opens_nothing(parts: OwnerParts):
    ending = asyncio.create_task(parts.lanes.run(CALL, partial(parts.closing.end, parts.call)))
    await asyncio.sleep(0)  # it is the end's turn, and it is not carried out yet
    with pytest.raises(SessionNotFound, match="ended"):
        await parts.session_for.ensure(parts.call, tool_call(service_name=ECHO, open="beside"), soon())
    await ending
    assert parts.call.sessions == {}


async def test_a_request_finds_its_session_by_id_or_by_service(parts: OwnerParts):
    await parts.carry_out(STARTED)
    echo, other = (parts.call.sessions[one] for one in (ID, SECOND))
    assert await parts.session_for.ensure(parts.call, tool_call(), soon()) is echo
    assert await parts.session_for.ensure(parts.call, tool_call(service_name=OTHER), soon()) is other


async def test_a_request_opens_its_session_if_it_says_so(parts: OwnerParts):
    with pytest.raises(SessionNotFound):
        await parts.session_for.ensure(parts.call, tool_call(service_name=ECHO, open="never"), soon())
    opened = await parts.session_for.ensure(parts.call, tool_call(service_name=ECHO, open="beside"), soon())
    assert parts.call.sessions == {ID: opened}
    assert parts.call.undecided == {ID}, "the route of the start says its timeout"
    with pytest.raises(SessionExists):
        await parts.session_for.ensure(parts.call, tool_call(service_name=OTHER, open="alone"), soon())
    beside = await parts.session_for.ensure(parts.call, tool_call(service_name=OTHER, open="beside"), soon())
    assert beside.session_id == SECOND


@pytest.mark.parametrize("how", ["beside", "alone", "never"])
async def test_an_id_that_is_neither_the_calls_nor_its_services_nor_open_stands_for_no_session(parts: OwnerParts, how):
    ensure, more = parts.session_for.ensure, {"service_name": ECHO, "open": how}
    named = [tool_call(session_id=SessionId(f"{CALL}#{word}"), **more) for word in ("nobody", ECHO)]
    with pytest.raises(SessionNotFound, match=f"no session 'c-1#nobody'; the call's session on service '{ECHO}'"):
        await ensure(parts.call, named[0], soon())
    assert not parts.call.sessions
    await parts.carry_out(STARTED)
    with pytest.raises(SessionNotFound):
        await ensure(parts.call, named[0], soon())
    assert sorted(parts.call.sessions) == [ID, SECOND]
    assert (await ensure(parts.call, named[1], soon())).session_id == ID


async def test_a_session_of_another_name_is_found_by_that_name_only(parts: OwnerParts):
    mine = SessionId(f"{CALL}#mine")
    await parts.carry_out(SessionCreate(session_id=mine, service_name=ECHO))
    for session_id in (mine, ID):
        request = ToolsCall(session_id=session_id, name="echo", service_name=ECHO, open="never")
        assert (await parts.session_for.ensure(parts.call, request, soon())).session_id == mine
    with pytest.raises(ServiceNotFound, match="there is no service 'nope'"):
        await parts.session_for.ensure(parts.call, tool_call(service_name="nope", open="never"), soon())


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"service_name": "nope"}, "SERVICE_NOT_FOUND"),
        ({"metadata": {"call": {}}}, "INVALID_MESSAGE"),
        ({"metadata": {"large": "x" * 300_000}}, "INVALID_MESSAGE"),
    ],
    ids=["no service", "a reserved key", "too large"],
)
@in_virtual_time
async def test_a_command_whose_sender_hears_no_reply_is_rejected_with_an_event(
    bad: Json, code: str, capsys: pytest.CaptureFixture[str]
):
    request = SessionCreate.model_validate({"session_id": ID, "service_name": ECHO, **bad})
    async with owning() as scene:
        with pytest.raises(SessionsError):
            await scene.parts.carry_out(request, reply_to="replies")
        assert "rejected" not in await scene.told()
        assert "session.rejected" not in capsys.readouterr().out
        with pytest.raises(SessionsError):
            await scene.parts.carry_out(request)
        assert (await scene.told()).count("rejected") == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "session.rejected" in line]
    assert "[warning" in line
    assert code in line


async def test_a_refused_command_tells_nothing_of_a_session_that_is_open(
    parts: OwnerParts, capsys: pytest.CaptureFixture[str]
):
    await parts.carry_out(SessionCreate(session_id=ID, service_name=ECHO))
    told = len(parts.outbox)
    with pytest.raises(ServiceNotFound):
        await parts.carry_out(SessionCreate(session_id=ID, service_name=ServiceName("nope")))
    assert len(parts.outbox) == told
    assert "session.rejected" not in capsys.readouterr().out
    assert list(parts.call.sessions) == [ID]


async def test_nothing_is_opened_for_a_call_that_has_ended_or_is_given_away(parts: OwnerParts):
    request = tool_call(service_name=ECHO, open="beside")
    parts.owned_calls.leaving = True
    with pytest.raises(SessionNotFound):
        await parts.session_for.ensure(parts.call, request, soon())
    parts.owned_calls.leaving = False
    await parts.carry_out(ENDED)
    with pytest.raises(SessionNotFound):
        await parts.session_for.ensure(parts.call, request, soon())


async def test_a_session_that_died_under_a_request_is_replaced_by_one_like_it(parts: OwnerParts):
    await parts.carry_out(create(timeout=77.0, metadata={"mine": 1}))
    (died,) = parts.call.sessions.values()
    await parts.carry_out(SessionClose(session_id=ID))
    fresh = await parts.session_for.replacement(parts.call, tool_call(), died, soon())
    assert fresh is not died
    assert (fresh.session_id, fresh.service_name, fresh.timeout, fresh.metadata) == (ID, ECHO, 77.0, {"mine": 1})
    again = await parts.session_for.replacement(parts.call, tool_call(), died, soon())
    assert again is fresh, "somebody else has had it replaced"
