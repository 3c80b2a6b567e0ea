"""A tool call from its delivery to the MCP server and back, without a broker: its requester is in this process."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.broker.topology import Names
from consumer.client.requester import OnInterim, Outgoing, Requester
from consumer.worker.local_requests import LocalRequests
from schemas.errors import NoReply, SessionNotFound
from schemas.ids import SessionId, session_id_of
from schemas.interim import Interim, ToolsProgress
from schemas.replies import Reply
from schemas.requests import SessionCreate
from tests.calls.owner_parts import CALL, ECHO, OTHER, OwnerParts, owner_parts

ID = SessionId(CALL)


@pytest.fixture
async def parts(tmp_path: Path):
    async with owner_parts(tmp_path) as made:
        await made.carry_out(SessionCreate(session_id=ID, service_name=ECHO))
        yield made


class Elsewhere(Requester):
    """What is asked when the owner in this process has not got the call: nobody is there."""

    async def ask(self, request: Outgoing, on_interim: OnInterim | None = None) -> Reply:
        raise NoReply("nobody is elsewhere")


async def ask(parts: OwnerParts, kind: str, on_interim: OnInterim | None = None, **body: Any) -> Reply:
    local = LocalRequests(parts.owner, Names(), Elsewhere())
    outgoing = Outgoing(
        type=kind, body=json.dumps({"session_id": CALL} | body).encode(), call_id=CALL, reply_timeout=30.0
    )
    return await local.ask(outgoing, on_interim)


async def call_tool(parts: OwnerParts, name: str, arguments: dict[str, Any] | None = None, **more: Any) -> Any:
    return (await ask(parts, "tools.call", name=name, arguments=arguments or {}, **more)).unwrap()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_tool_is_called_and_its_text_comes_back(parts: OwnerParts):
    assert (await call_tool(parts, "echo", {"text": "hello"}))["text"] == "hello"
    assert parts.call.tool_calls == 0


async def test_a_key_that_is_repeated_executes_once(parts: OwnerParts):
    first = asyncio.create_task(call_tool(parts, "count_slowly", {"seconds": 0.2}, idempotency_key="k"))
    await until(lambda: parts.call.tool_calls == 1)
    joined = await call_tool(parts, "count_slowly", {"seconds": 0.2}, idempotency_key="k")
    later = await call_tool(parts, "count_slowly", {"seconds": 0.2}, idempotency_key="k")
    assert (await first)["text"] == joined["text"] == later["text"]
    other = await call_tool(parts, "count_slowly", {"seconds": 0.2}, idempotency_key="another")
    assert other["text"] != joined["text"]


async def test_an_answer_is_kept_under_a_key_alone(parts: OwnerParts):
    await call_tool(parts, "echo", {"text": "once"})
    assert not parts.answers.has_some(parts.call)
    await call_tool(parts, "echo", {"text": "once"}, idempotency_key="k")
    assert parts.answers.has_some(parts.call)


async def test_progress_is_heard_before_the_answer(parts: OwnerParts):
    heard: list[Interim] = []

    async def hear(message: Interim) -> None:
        heard.append(message)

    reply = await ask(parts, "tools.call", hear, name="progress", arguments={"steps": 2}, progress=True)
    assert reply.ok
    assert [type(one) for one in heard] == [ToolsProgress, ToolsProgress]


async def test_a_session_that_dies_under_a_call_is_opened_anew_for_the_next(parts: OwnerParts):
    (died,) = parts.call.sessions.values()
    failed = await ask(parts, "tools.call", name="die", arguments={})
    assert not failed.ok
    answer = await call_tool(parts, "echo", {"text": "again"}, service_name=ECHO, open="beside")
    assert answer["text"] == "again"
    assert parts.call.sessions[ID] is not died


async def test_a_call_is_cancelled_by_its_key(parts: OwnerParts):
    calling = asyncio.create_task(
        ask(parts, "tools.call", name="sleep", arguments={"seconds": 20}, idempotency_key="k")
    )
    await until(lambda: bool(parts.call.sessions[ID].in_flight))
    assert (await ask(parts, "tools.cancel", idempotency_key="k")).unwrap() == {"cancelled": True}
    reply = await calling
    assert reply.error is not None
    assert reply.error.code == "TOOL_CANCELLED"
    assert (await ask(parts, "tools.cancel", idempotency_key="k")).unwrap() == {"cancelled": False}


async def test_other_requests_find_the_session_too(parts: OwnerParts):
    tools = (await ask(parts, "tools.list")).unwrap()["tools"]
    assert "echo" in {tool["name"] for tool in tools}
    with pytest.raises(SessionNotFound):
        (await ask(parts, "session.get", session_id=session_id_of(CALL, OTHER, first=False))).unwrap()


async def test_what_comes_for_a_call_that_is_not_owned_is_asked_elsewhere(parts: OwnerParts):
    await parts.owned_calls.release(parts.call)
    with pytest.raises(NoReply, match="elsewhere"):
        await call_tool(parts, "echo")
