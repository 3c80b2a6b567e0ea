"""What was closed by command stays closed: no recipe brings it back, and no worker that was cut off keeps it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumer.broker.message import Delivery, Message
from schemas.events import EndReason
from schemas.ids import CallId, SessionId, WorkerId
from schemas.internal import ClosedSessions
from schemas.requests import SessionClose, SessionCreate
from tests.calls.owner_parts import CALL, OTHER, OwnerParts, owner_parts
from tests.calls.owning import Owning, owning
from tests.calls.placing import LONG, kept, placing
from tests.calls.test_lifecycle import ID, SECOND, STARTED, done, recipe_of
from tests.virtual_time import in_virtual_time, moment, passes


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[OwnerParts]:
    async with owner_parts(tmp_path) as made:
        yield made


def hear_closed(scene: Owning, ahead: float = 5.0) -> None:
    """Another worker says that it has closed the call's session, by a clock that is so much (s) ahead of ours."""
    body = ClosedSessions(worker_id=WorkerId("w-2"), closed={ID: moment() + ahead}).model_dump_json().encode()
    heard = Delivery(Message(body, type=ClosedSessions.type), "", "", "", False, 0.0, None)
    for call_id in scene.parts.endings.hear(heard):
        scene.parts.closing.closed_elsewhere(call_id)


async def test_a_recipe_brings_back_only_those_of_its_sessions_that_no_command_has_closed(parts: OwnerParts):
    first, second = (recipe_of(one).sessions[0] for one in (ID, SECOND))
    parts.endings.note_closed(ID, [first.created_at])  # so was every session of the call that is as old
    older = second.model_copy(update={"created_at": first.created_at})
    gone = recipe_of(ID).model_copy(update={"sessions": [first, older]})
    assert done(await parts.carry_out(gone))[0] == "restore_not_needed"
    in_part = recipe_of(ID, revision=2).model_copy(update={"sessions": [first, second]})
    assert done(await parts.carry_out(in_part))[0] == "restored"
    assert list(parts.call.sessions) == [SECOND]


@pytest.mark.parametrize(("session_id", "closed"), [(ID, {ID, SECOND}), (SECOND, {SECOND})])
async def test_it_is_remembered_which_sessions_a_command_has_closed(
    parts: OwnerParts, session_id: SessionId, closed: set[SessionId]
):
    await parts.carry_out(STARTED)
    sessions = dict(parts.call.sessions)
    await parts.carry_out(SessionClose(session_id=session_id))
    assert {one for one in sessions if parts.endings.was_closed(one, sessions[one].created_at)} == closed
    await parts.carry_out(SessionCreate(session_id=SECOND, service_name=OTHER))
    assert not parts.endings.was_closed(SECOND, parts.call.sessions[SECOND].created_at)


@pytest.mark.parametrize("hears", ["before it is sure", "when it is sure"])
@in_virtual_time
async def test_who_was_away_closes_what_another_owner_has_closed_meanwhile(hears: str):
    async with owning() as scene:
        session = await scene.opened()
        await scene.lose_link()
        await scene.new_link()
        if hears == "before it is sure":
            hear_closed(scene)
            assert await scene.told() == []
            assert session.end_reason is None, "it is not known whose it is"
        scene.parts.recovery.look()
        told = await scene.told()
        if hears == "when it is sure":
            assert session.end_reason is None
            hear_closed(scene)
            told = await scene.told()
        assert told.count("closed") == 1
        assert session.end_reason is EndReason.REQUESTED
        assert scene.parts.owned_calls.calls == {}


@in_virtual_time
async def test_a_session_that_was_opened_here_since_is_not_taken_for_one_that_was_closed_elsewhere():
    async with owning() as scene:
        session = await scene.opened()
        hear_closed(scene)
        scene.parts.closing.closed_elsewhere(CallId("c-2"))
        assert await scene.told() == []
        assert session.end_reason is None, "its former owner's clock is ahead of ours"


@in_virtual_time
async def test_who_was_away_keeps_what_was_opened_again_after_it_had_been_closed():
    async with owning() as scene:
        hear_closed(scene, ahead=0.0)
        await passes(1)
        session = await scene.opened()
        await scene.lose_link()
        await scene.new_link()
        hear_closed(scene, ahead=-2.0)  # it is told again over the new link
        scene.parts.recovery.look()
        await scene.told()
        assert scene.parts.call.sessions == {ID: session}


@pytest.mark.parametrize(("created_before", "restored"), [(10.0, False), (-1.0, True)])
@in_virtual_time
async def test_a_recipe_restores_no_session_that_a_command_closed_when_nobody_owned_its_call(
    created_before: float, restored: bool
):
    async with placing() as scene:
        created = datetime.fromtimestamp(moment(), UTC) - timedelta(seconds=created_before)
        await scene.send("session.close", {"session_id": CALL})
        assert (await scene.reply()).unwrap() == {"closed": False, "sessions": []}
        await scene.recipe(sessions=[kept(created_at=created)])
        if restored:
            assert (await scene.arrived()).type == "call.recipe"
        await passes(LONG)
        await scene.nothing_more()
        assert bool(scene.bound()) is restored
