"""What a server is given with a tool call, what its requester hears, and what becomes of its result."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from consumer.broker.topology import Queue
from consumer.calls.owned_call import CallSession
from consumer.calls.requests.tool_calls import text_of
from consumer.processes.service import MCPService
from consumer.sessions import Session
from consumer.sessions.dialogue import SILENT, Dialogue
from schemas.base import Json
from schemas.errors import OutcomeUnknown, SessionDied, SessionsError
from schemas.events import EndReason, SessionEventType
from schemas.ids import ServiceName, routing_key
from schemas.replies import Reply, parse_reply
from tests.calls.asked_server import AskedServer
from tests.calls.owner_parts import CALL
from tests.calls.owning import ID, Owning, owning
from tests.calls.simulated_link import Heard, delivered
from tests.virtual_time import in_virtual_time, moment, passes

SERVICE = ServiceName("asked")
TEXT: Json = {"content": [{"type": "text", "text": "done"}]}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (TEXT, "done"),
        ({}, ""),
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": ["nonsense", {"type": "text", "text": 1}]}, ""),
        ({"content": [], "structuredContent": {"a": [1, None]}}, '{"a":[1,null]}'),
        ({"content": [{"type": "image"}], "structuredContent": {"x": float("nan")}}, '{"x":null}'),
        ({"structuredContent": {"half": "\ud83d"}}, '{"half":"\ufffd"}'),
        ({"content": [{"type": "text", "text": "a"}], "structuredContent": {"a": 1}}, "a"),
    ],
    ids=[str(number) for number in range(9)],
)
def test_the_text_of_a_result(result: Json, text: str):
    assert text_of(result) == text


class ToolServer(AskedServer):
    """A server whose tools say what the test has them say; ``errors`` come one after the other, before answers."""

    def __init__(self, service: MCPService, **more: Any) -> None:
        super().__init__(service, **more)
        self.answer = TEXT
        self.errors: list[SessionsError] = []
        self.metas: list[Json] = []

    async def call_tool(
        self, name: str, arguments: Any = None, *, timeout: float | None = None, meta: Any = None,
        dialogue: Dialogue = SILENT,
    ) -> Json:  # fmt: skip
        self.metas.append(meta)
        self.dialogues.append(dialogue)
        if self.question is not None and dialogue.on_question is not None:
            heard = await dialogue.on_question("elicitation/create", self.question)
            self.answer = {"structuredContent": heard}
        result = await self._answered(name, arguments, timeout)
        if self.errors:
            raise self.errors.pop(0)
        return result


@dataclass
class Calling:
    """Tool calls on a session, and who hears of them."""

    scene: Owning
    session: CallSession
    server: ToolServer
    replies: Heard

    def ask(self, kind: str = "tools.call", **fields: object) -> None:
        body = {"session_id": ID} | ({"name": "t"} if kind == "tools.call" else {}) | fields
        delivery, _ = delivered(
            kind, json.dumps(body).encode(), queue="fast", exchange=self.scene.wire.names.requests,
            key=routing_key(CALL), reply_to="replies", correlation_id=kind,
        )  # fmt: skip
        self.scene.parts.owner.take(delivery)

    async def heard(self) -> tuple[str, Json]:
        """The next message to the requester: its type and its body."""
        message = (await self.replies.next()).message
        return str(message.type), json.loads(message.body)

    async def reply(self, **fields: Any) -> Reply:
        self.ask(**fields)
        return parse_reply((await self.replies.next()).message.body)

    async def code(self, **fields: Any) -> str:
        reply = await self.reply(**fields)
        assert reply.error is not None
        return str(reply.error.code)


@asynccontextmanager
async def calling(*, modern: bool = False, tools: list[Json] | None = None, **more: Any) -> AsyncIterator[Calling]:
    service = MCPService(name=SERVICE, command=["x"], **more)
    server = ToolServer(service, modern=modern, tools=tools)
    async with owning() as scene:
        session: CallSession = Session(ID, SERVICE, server, metadata={"call": {"from": "+1"}})
        scene.parts.call.enter(session)
        await scene.wire.declare(Queue("replies", "of this test"))
        yield Calling(scene, session, server, await scene.wire.consume("replies"))
        del scene.parts.call.sessions[ID]


@in_virtual_time
async def test_a_tool_is_told_who_asks_and_its_result_names_the_session():
    async with calling() as calls:
        reply = await calls.reply(arguments={"a": 1}, meta={"mine": 1, "call_id": "mallory"})
        assert reply.unwrap() == {**TEXT, "session_id": ID, "text": "done"}
        assert calls.server.asked == [("t", {"a": 1})]
        assert calls.server.metas == [{"mine": 1, "call_id": CALL, "session_id": ID}]
        await calls.reply(idempotency_key="k")
        assert calls.server.metas[1]["idempotency_key"] == "k"
        assert (calls.session.record.calls, calls.session.record.errors) == (2, 0)


@in_virtual_time
async def test_a_restored_session_says_so_once():
    async with calling() as calls:
        calls.session.restored = True
        assert (await calls.reply()).unwrap()["restored"] is True
        assert "restored" not in (await calls.reply()).unwrap()


@in_virtual_time
async def test_an_error_of_the_tool_is_a_result():
    async with calling() as calls:
        calls.server.answer = {**TEXT, "isError": True}
        assert (await calls.reply()).unwrap()["isError"] is True
        assert calls.session.record.errors == 1


@in_virtual_time
async def test_what_is_pinned_is_not_the_requesters():
    tool = {"name": "t", "inputSchema": {"type": "object", "properties": {"caller": {}, "a": {}}}}
    async with calling(bind={"caller": "{from}"}, tools=[tool]) as calls:
        await calls.reply(arguments={"caller": "me", "a": 1})
        assert calls.server.asked[-1] == ("t", {"a": 1, "caller": "+1"})


@in_virtual_time
async def test_what_is_too_large_is_refused_before_or_after_the_tool_has_run():
    async with calling(max_arguments=1024, max_result=2048) as calls:
        assert await calls.code(arguments={"a": "x" * 1024}) == "INVALID_MESSAGE"
        assert calls.server.asked == []
        calls.server.answer = {"content": [{"type": "text", "text": "x" * 2048}]}
        assert await calls.code() == "MCP_ERROR"
        assert len(calls.server.asked) == 1


# What may be executed a second time.


def died() -> SessionDied:
    return SessionDied("it had died", exit_code=1, signal=None, stderr="")


def unknown() -> OutcomeUnknown:
    return OutcomeUnknown("it died under the call")


HARMLESS = [{"name": "t", "annotations": {"idempotentHint": True}}]


@pytest.mark.parametrize(
    ("why", "error", "named", "retry", "tools", "times"),
    [
        ("a dead one has executed nothing", died, True, False, None, 2),
        ("the requester has not named what to open", died, False, False, None, 1),
        ("nobody knows whether it was executed", unknown, True, False, None, 1),
        ("the tool says that it does no harm", unknown, True, True, HARMLESS, 2),
        ("that it reads only", unknown, True, True, [{"name": "t", "annotations": {"readOnlyHint": True}}], 2),
        ("the service does not rely on that", unknown, True, False, HARMLESS, 1),
        ("it says so of another tool", unknown, True, True, [{**HARMLESS[0], "name": "u"}], 1),
        ("it says nothing of use", unknown, True, True, [{"name": "t", "annotations": None}], 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@in_virtual_time
async def test_what_is_executed_again_on_a_fresh_session(
    why: str, error: Callable[[], SessionsError], named: bool, retry: bool, tools: Any, times: int
):
    async with calling(retry=retry, tools=tools) as calls:
        calls.server.errors.append(error())
        fresh: CallSession = Session(ID, SERVICE, calls.server)

        async def replaced() -> None:  # the session core has noticed the death
            while not calls.server.asked:
                await asyncio.sleep(0)
            calls.session.mark_ended(EndReason.PROCESS_EXIT, None)
            calls.scene.parts.call.sessions[ID] = fresh

        replacing = asyncio.create_task(replaced())
        reply = await calls.reply(**({"service_name": SERVICE} if named else {}))
        await replacing
        assert (len(calls.server.asked), reply.ok) == (times, times == 2), why


CLOSED = sorted(reason for reason in EndReason if reason.event_type is not SessionEventType.DIED)


@pytest.mark.parametrize("reason", CLOSED, ids=[reason.value for reason in CLOSED])
@in_virtual_time
async def test_a_call_that_was_cut_by_the_end_of_its_session_names_the_reason_and_is_not_repeated(reason: EndReason):
    async with calling(retry=True, tools=HARMLESS) as calls:
        calls.server.errors.append(unknown())
        calls.session.end_reason = reason
        reply = await calls.reply(service_name=SERVICE)
        assert reply.error is not None
        assert (reply.error.code, reply.error.details["reason"]) == ("OUTCOME_UNKNOWN", reason.value)
        assert "and ended the server before it answered" in reply.error.message
        assert calls.server.asked == [("t", {})]


@pytest.mark.parametrize("kind", ["resources.list", "prompts.get"])
@in_virtual_time
async def test_other_requests_name_the_reason_too(kind: str):
    async with calling() as calls:
        calls.server.error = unknown()
        calls.session.end_reason = EndReason.CALL_ENDED
        calls.ask(kind, **({"name": "p"} if kind == "prompts.get" else {}))
        _, body = await calls.heard()
        assert body["error"]["details"]["reason"] == "call_ended"


# What the requester hears before the reply.


@in_virtual_time
async def test_who_wants_to_be_asked_answers_the_question():
    async with calling() as calls:
        calls.server.question = {"message": "who?"}
        calls.ask(questions=True)
        kind, asked = await calls.heard()
        assert (kind, asked["params"]) == ("input.required", {"message": "who?"})
        answer = {"input_id": asked["input_id"], "action": "accept", "content": {"name": "me"}}
        calls.ask("input.answer", **answer)
        calls.ask("input.answer", **answer)
        bodies = [(await calls.heard())[1] for _ in range(3)]
        assert [one.get("result") for one in bodies if one["ok"]].count({"accepted": True}) == 1
        assert [one["error"]["code"] for one in bodies if not one["ok"]] == ["INVALID_MESSAGE"]
        assert {"action": "accept", "content": {"name": "me"}} in [
            (one.get("result") or {}).get("structuredContent") for one in bodies
        ]


@pytest.mark.parametrize(("timeout", "waits"), [(None, 10), (4, 4)])
@in_virtual_time
async def test_a_question_that_nobody_answers_is_cancelled_in_time(timeout: float | None, waits: float):
    async with calling(question_timeout=10.0, call_timeout=60.0) as calls:
        calls.server.question = {"message": "who?"}
        began = moment()
        limit: Json = {} if timeout is None else {"timeout": timeout}
        calls.ask(questions=True, **limit)
        _, asked = await calls.heard()
        assert asked["timeout"] == pytest.approx(waits, abs=0.1)
        _, body = await calls.heard()
        assert moment() - began == pytest.approx(waits, abs=0.1)
        if timeout is None:
            assert body["result"]["structuredContent"] == {"action": "cancel"}


@pytest.mark.parametrize(("takes", "told"), [(2.0, False), (5.0, True)])
@pytest.mark.parametrize("by_service", [True, False])
@in_virtual_time
async def test_a_call_that_takes_long_is_told_to_be_pending_if_that_is_wanted(
    takes: float, told: bool, by_service: bool
):
    async with calling(pending_after=3.0 if by_service else None) as calls:
        calls.server.takes = takes
        wish: Json = {} if by_service else {"pending_after": 3.0}
        calls.ask(**wish)
        kinds = []
        if told:
            kind, body = await calls.heard()
            kinds.append(kind)
            assert (body["elapsed"], body["name"]) == (3.0, "t")
        assert kinds == ["tools.pending"] * told
        assert (await calls.heard())[0] == "tools.call.reply"
        await passes(10)
        assert calls.replies.deliveries.empty()


@pytest.mark.parametrize("wanted", ["progress", "logs", "changes", None])
@in_virtual_time
async def test_a_requester_hears_what_it_wants_to_hear(wanted: str | None):
    async with calling() as calls:
        calls.server.takes = 1.0
        wish: Json = {} if wanted is None else {wanted: True}
        calls.ask(**wish)
        while not calls.server.dialogues:
            await asyncio.sleep(0)
        (dialogue,) = calls.server.dialogues
        says = {"progress": dialogue.on_progress, "logs": dialogue.on_log, "changes": dialogue.on_change}
        assert [name for name, one in says.items() if one is not None] == ([] if wanted is None else [wanted])
        if dialogue.on_progress is not None:
            await dialogue.on_progress(1.0, 2.0, "half")
            expected: tuple[str, Json] = ("tools.progress", {"progress": 1.0, "total": 2.0, "message": "half"})
        elif dialogue.on_log is not None:
            await dialogue.on_log("info", "l", {"a": 1})
            expected = ("tools.log", {"level": "info", "logger": "l", "data": {"a": 1}})
        elif dialogue.on_change is not None:
            await dialogue.on_change("tools", None)
            expected = ("tools.changed", {"list": "tools"})
        if wanted is not None:
            kind, body = await calls.heard()
            assert (kind, {name: body[name] for name in expected[1]}) == expected
        assert (await calls.heard())[0] == "tools.call.reply"


@in_virtual_time
async def test_the_question_of_an_older_server_is_returned_and_its_call_goes_on_with_the_answer():
    async with calling() as calls:
        calls.server.question = {"message": "who?"}
        asked = (await calls.reply(questions="return", idempotency_key="k-1")).unwrap()
        ((input_id, _),) = asked["inputRequests"].items()
        going_on = {"request_state": asked["requestState"], "input_responses": {input_id: {"action": "accept"}}}
        assert await calls.code(name="u", **going_on) == "INVALID_MESSAGE"
        result = (await calls.reply(idempotency_key="k-2", **going_on)).unwrap()
        assert result["structuredContent"] == {"action": "accept"}
        asked = (await calls.reply(questions="return", idempotency_key="k-3")).unwrap()
        assert (await calls.reply(kind="tools.cancel", idempotency_key="k-3")).unwrap() == {"cancelled": True}
        going_on = {"request_state": asked["requestState"], "input_responses": {}}
        assert await calls.code(**going_on) == "INVALID_MESSAGE"


@in_virtual_time
async def test_a_newer_server_gets_what_it_asked_for_as_it_is():
    async with calling(modern=True) as calls:
        await calls.reply(
            questions="return", request_state="s", input_responses={"i": {}}, client_capabilities={"roots": {}}
        )
        (dialogue,) = calls.server.dialogues
        assert (dialogue.returned, dialogue.request_state, dialogue.input_responses) == (True, "s", {"i": {}})
        assert (dialogue.capabilities, dialogue.on_question) == ({"roots": {}}, None)
