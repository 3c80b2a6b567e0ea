"""What a server is asked for each request to its session, and how its answer comes back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from consumer.calls.owned_call import CallSession
from consumer.calls.requests.session_requests import Look, SessionRequests
from consumer.processes.service import MCPService
from consumer.sessions import Session
from schemas.base import Json
from schemas.errors import McpError
from schemas.ids import CallId, ServiceName, SessionId
from schemas.replies import Reply
from schemas.requests import (
    CompletionComplete,
    InputAnswer,
    LoggingLevel,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    SessionDescribe,
    SessionGet,
    SessionTouch,
    ToolsList,
)
from tests.calls.asked_server import AskedServer, simulated_servers
from tests.calls.owner_parts import ECHO, ME, OwnerParts, owner_parts
from tests.virtual_time import in_virtual_time, passes

CALL = CallId("c-1")
ID = SessionId(CALL)
LONGEST, LEFT = 100.0, 10.0
URI = "file:///a"


@dataclass
class Scene:
    """Requests to one session, and its server."""

    requests: SessionRequests
    session: CallSession
    server: AskedServer
    parts: OwnerParts

    async def run(self, request: Look, left: float = LEFT) -> Reply:
        return await self.requests.run(self.session, request, left)

    async def result(self, request: Look) -> Json:
        return (await self.run(request)).unwrap()

    async def code(self, request: Look, left: float = LEFT) -> str:
        reply = await self.run(request, left)
        assert reply.error is not None
        return str(reply.error.code)


@asynccontextmanager
async def asking(*, modern: bool = False, tools: list[Json] | None = None, **more: Any) -> AsyncIterator[Scene]:
    service = MCPService(
        name=ServiceName("asked"), command=["x"], call_timeout=LONGEST, max_call_timeout=LONGEST, **more
    )
    server = AskedServer(service, modern=modern, tools=tools)
    session: CallSession = Session(ID, service.name, server, metadata={"call": {"from": "+1"}})
    async with owner_parts(simulated_servers()) as parts:
        yield Scene(parts.session_requests, session, server, parts)


REF: Json = {"type": "ref/prompt", "name": "p"}
ARGUMENT: Json = {"name": "a", "value": "b"}

ASKED: list[tuple[Look, str, Json]] = [
    (ToolsList(session_id=ID), "tools/list", {}),
    (ResourcesList(session_id=ID), "resources/list", {}),
    (ResourcesList(session_id=ID, cursor="2"), "resources/list", {"cursor": "2"}),
    (ResourcesList(session_id=ID, templates=True), "resources/templates/list", {}),
    (ResourcesRead(session_id=ID, uri=URI), "resources/read", {"uri": URI}),
    (PromptsList(session_id=ID), "prompts/list", {}),
    (PromptsList(session_id=ID, cursor=""), "prompts/list", {"cursor": ""}),
    (PromptsGet(session_id=ID, name="p"), "prompts/get", {"name": "p", "arguments": {}}),
    (PromptsGet(session_id=ID, name="p", arguments={"a": "b"}), "prompts/get", {"name": "p", "arguments": {"a": "b"}}),
    (
        CompletionComplete(session_id=ID, ref=REF, argument=ARGUMENT),
        "completion/complete",
        {"ref": REF, "argument": ARGUMENT},
    ),
    (
        CompletionComplete(session_id=ID, ref=REF, argument=ARGUMENT, context={"c": 1}),
        "completion/complete",
        {"ref": REF, "argument": ARGUMENT, "context": {"c": 1}},
    ),
    (ResourcesSubscribe(session_id=ID, uri=URI), "subscribe", {"uri": URI}),
    (ResourcesSubscribe(session_id=ID), "subscribe", {"uri": None}),
    (ResourcesUnsubscribe(session_id=ID, uri=URI), "unsubscribe", {"uri": URI}),
    (LoggingLevel(session_id=ID, level="debug"), "set_log_level", {"level": "debug"}),
]


@pytest.mark.parametrize(
    ("request_", "method", "params"), ASKED, ids=[f"{number} {one[0].type}" for number, one in enumerate(ASKED)]
)
@in_virtual_time
async def test_what_the_server_is_asked(request_: Look, method: str, params: Json):
    async with asking() as scene:
        result = await scene.result(request_)
        assert scene.server.asked == [(method, params)]
        silent = method in ("subscribe", "unsubscribe", "set_log_level")
        no_tools: Json = {"tools": []}
        assert result == (no_tools if method == "tools/list" else {} if silent else {"answered": True})
        if method != "tools/list":
            assert scene.server.timeouts == [LEFT]
            await scene.run(request_, LONGEST + 1)
            assert scene.server.timeouts == [LEFT, LONGEST], "no longer than the service says"
        scene.server.error = McpError("no", code=-1, data=None)
        assert await scene.code(request_) == "MCP_ERROR"


@pytest.mark.parametrize(
    ("request_", "method", "params"), ASKED, ids=[f"{number} {one[0].type}" for number, one in enumerate(ASKED)]
)
@in_virtual_time
async def test_what_the_server_is_busy_with_is_bounded_and_is_a_use_of_the_session(
    request_: Look, method: str, params: Json
):
    async with asking(max_calls=1) as scene:
        scene.server.takes = 1.0
        first = asyncio.create_task(scene.run(request_))
        await passes(0.5)
        assert scene.session.in_flight == 1
        assert await scene.code(request_) == "CAPACITY"
        assert (await scene.run(SessionGet(session_id=ID))).ok, "this needs no server"
        assert (await first).ok
        assert scene.session.in_flight == 0


@pytest.mark.parametrize("left", [0.0, -1.0])
@in_virtual_time
async def test_what_nobody_waits_for_is_not_asked(left: float):
    async with asking() as scene:
        for request in (PromptsList(session_id=ID), ResourcesRead(session_id=ID, uri=URI), SessionGet(session_id=ID)):
            assert await scene.code(request, left) == "DEADLINE_EXCEEDED"
        assert scene.server.asked == []


# What needs no server.


@in_virtual_time
async def test_a_session_is_described_without_its_server_and_that_is_a_use_of_it():
    async with asking() as scene:
        scene.server.about = {"era": "handshake"}
        for request in (SessionGet(session_id=ID), SessionTouch(session_id=ID)):
            await passes(5)
            told = await scene.result(request)
            assert (told["session_id"], told["worker_id"], told["service_name"]) == (ID, ME, "asked")
            assert scene.session.time_remaining == scene.session.timeout
        described = await scene.result(SessionDescribe(session_id=ID))
        assert described == {"session_id": ID, "service_name": "asked", "era": "handshake"}
        assert await scene.code(InputAnswer(session_id=ID, input_id="unknown", action="decline")) == "INVALID_MESSAGE"
        assert scene.server.asked == []


# Arguments that the service pins.


@in_virtual_time
async def test_what_the_service_binds_is_hidden_in_its_tools_and_pinned_in_its_prompts():
    schema: Json = {"type": "object", "properties": {"caller": {}, "text": {}}, "required": ["caller", "text"]}
    async with asking(bind={"caller": "{from}"}, tools=[{"name": "t", "inputSchema": schema}]) as scene:
        (tool,) = (await scene.result(ToolsList(session_id=ID)))["tools"]
        assert (list(tool["inputSchema"]["properties"]), tool["inputSchema"]["required"]) == (["text"], ["text"])
        await scene.run(PromptsGet(session_id=ID, name="p", arguments={"caller": "me", "text": "x"}))
        assert scene.server.asked[-1][1]["arguments"] == {"caller": "+1", "text": "x"}
        scene.session.metadata = {}
        request = PromptsGet(session_id=ID, name="p", arguments={"caller": "me"})
        assert await scene.code(request) == "INVALID_MESSAGE"


# Questions.


INTERACTIVE = [ResourcesRead, PromptsGet]
NAMED: dict[type[Any], Json] = {ResourcesRead: {"uri": URI}, PromptsGet: {"name": "p"}}


@pytest.mark.parametrize("kind", INTERACTIVE)
@in_virtual_time
async def test_a_question_of_an_older_server_is_returned_if_that_is_wanted_and_answered_with_its_state(kind: type[Any]):
    async with asking() as scene:
        scene.server.question = {"message": "who?"}
        asked = await scene.result(kind(session_id=ID, questions="return", **NAMED[kind]))
        ((input_id, question),) = asked["inputRequests"].items()
        assert question == {"method": "elicitation/create", "params": {"message": "who?"}}
        assert scene.session.in_flight == 1, "its server is busy with it"
        another = kind(session_id=ID, request_state=asked["requestState"], **{**NAMED[kind], **other(kind)})
        assert await scene.code(another) == "INVALID_MESSAGE", "it goes on with what it was"
        answers = {input_id: {"action": "accept"}}
        again = kind(session_id=ID, request_state=asked["requestState"], input_responses=answers, **NAMED[kind])
        assert await scene.result(again) == {"heard": {"action": "accept"}}
        assert scene.server.timeouts == [LONGEST], "it may take longer than its first requester waits"
        assert scene.session.in_flight == 0


def other(kind: type[Any]) -> Json:
    return {"uri": "file:///b"} if kind is ResourcesRead else {"name": "q"}


@pytest.mark.parametrize("kind", INTERACTIVE)
@in_virtual_time
async def test_without_that_wish_nobody_is_asked(kind: type[Any]):
    async with asking() as scene:
        scene.server.question = {"message": "who?"}
        assert await scene.result(kind(session_id=ID, **NAMED[kind])) == {"answered": True}
        (dialogue,) = scene.server.dialogues
        assert (dialogue.on_question, dialogue.returned) == (None, False)


@pytest.mark.parametrize("returned", [True, False])
@pytest.mark.parametrize("kind", INTERACTIVE)
@in_virtual_time
async def test_a_newer_server_asks_by_its_results_and_keeps_the_state_itself(kind: type[Any], returned: bool):
    async with asking(modern=True) as scene:
        wish = {"questions": "return"} if returned else {}
        request = kind(
            session_id=ID, request_state="its own", input_responses={"i": {}}, client_capabilities={"roots": {}},
            **NAMED[kind], **wish,
        )  # fmt: skip
        assert await scene.result(request) == {"answered": True}
        (dialogue,) = scene.server.dialogues
        assert (dialogue.on_question, dialogue.returned, dialogue.request_state) == (None, returned, "its own")
        assert (dialogue.input_responses, dialogue.capabilities) == ({"i": {}}, {"roots": {}})


# Requests that open their session.


@in_virtual_time
async def test_a_request_runs_on_the_session_that_is_opened_for_it():
    async with asking() as scene:
        call, deadline = scene.parts.call, time.monotonic() + LEFT
        request = PromptsList(session_id=ID, service_name=ECHO)
        reply = await scene.requests.open_and_run(call, request, deadline)
        assert reply.error is not None
        assert reply.error.code == "SESSION_NOT_FOUND"
        opening = request.model_copy(update={"open": "beside"})
        assert (await scene.requests.open_and_run(call, opening, deadline)).unwrap() == {}
        assert list(call.sessions) == [ID]
