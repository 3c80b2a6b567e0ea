"""Questions that a server asks back, in both eras of the protocol."""

import asyncio
from typing import Any

import pytest

from consumer.sessions.dialogue import Dialogue
from schemas.errors import McpError, ToolTimeout

from .helpers import Start, structured, text

Json = dict[str, Any]


class Caller:
    """Answers questions."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Json] = []
        self.given_up = asyncio.Event()

    async def __call__(self, method: str, question: Json) -> Json:
        assert method == "elicitation/create"
        self.asked.append(question)
        if self.answer is None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                self.given_up.set()
                raise
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, dict)
        return self.answer


def answer_of(result: Json) -> Json:
    """What the server got, whichever way it asked."""
    seen = structured(result)
    found = seen["reply"]["result"] if "reply" in seen else seen["answers"]["q1"]
    assert isinstance(found, dict)
    return found


servers = pytest.mark.parametrize("server", ["echo_server", "modern_server"])


@servers
async def test_a_question_reaches_the_caller_and_the_answer_the_server(start: Start, server: str) -> None:
    client = await start(server)
    caller = Caller({"action": "accept", "content": {"answer": "blue"}})
    result = await client.call_tool("ask", {"question": "Which colour?"}, dialogue=Dialogue(on_question=caller))
    assert answer_of(result) == {"action": "accept", "content": {"answer": "blue"}}
    (asked,) = caller.asked
    assert asked["message"] == "Which colour?"
    assert asked["requestedSchema"]["properties"] == {"answer": {"type": "string"}}


@servers
async def test_without_anybody_to_ask_it_is_declined(start: Start, server: str) -> None:
    client = await start(server)
    assert answer_of(await client.call_tool("ask")) == {"action": "decline"}


@servers
@pytest.mark.parametrize("answer", [{"action": "perhaps"}, {"nothing": 1}, ValueError("hung up")])
async def test_a_caller_who_cannot_answer_cancels(start: Start, server: str, answer: Any) -> None:
    client = await start(server)
    assert answer_of(await client.call_tool("ask", dialogue=Dialogue(on_question=Caller(answer)))) == {
        "action": "cancel"
    }


@servers
async def test_a_question_that_nobody_answers_ends_with_the_call(start: Start, server: str) -> None:
    client = await start(server)
    caller = Caller(None)
    with pytest.raises(ToolTimeout):
        await client.call_tool("ask", timeout=0.5, dialogue=Dialogue(on_question=caller))
    async with asyncio.timeout(45):
        await caller.given_up.wait()
    assert text(await client.call_tool("echo", {"text": "usable"})) == "usable"


async def test_the_state_of_a_modern_server_comes_back_to_it(start: Start) -> None:
    client = await start("modern_server")
    result = await client.call_tool("ask", dialogue=Dialogue(on_question=Caller({"action": "accept", "content": {}})))
    assert structured(result)["state"] == "state of the first round"
    assert text(await client.call_tool("wait", {"rounds": 3})) == "waited 3 rounds"


async def test_a_modern_server_that_only_asks_is_given_up(start: Start) -> None:
    client = await start("modern_server")
    caller = Caller({"action": "accept", "content": {"answer": "x"}})
    with pytest.raises(McpError, match="asked for input 10 times"):
        await client.call_tool("ask_forever", dialogue=Dialogue(on_question=caller))
    assert len(caller.asked) == 10


async def test_a_modern_servers_wish_for_a_model_is_refused(start: Start) -> None:
    client = await start("modern_server")
    with pytest.raises(McpError, match="sampling/createMessage, which is not supported"):
        await client.call_tool("sample")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("roots/list", {}),
        ("sampling/createMessage", {"messages": [], "maxTokens": 1}),
        ("something/else", {}),
        ("elicitation/create", {"message": 7}),
    ],
)
async def test_other_requests_of_a_server_are_refused_politely(start: Start, method: str, params: Json) -> None:
    client = await start()
    reply = structured(await client.call_tool("request", {"method": method, "params": params}))["reply"]
    assert "error" in reply
    assert client.is_alive


async def test_a_ping_of_a_server_is_answered(start: Start) -> None:
    client = await start()
    assert structured(await client.call_tool("request", {"method": "ping"}))["reply"] == {"result": {}}


async def test_of_two_callers_the_later_is_asked(start: Start) -> None:
    client = await start()
    early, late = Caller({"action": "decline"}), Caller({"action": "accept", "content": {"answer": "me"}})
    waiting = asyncio.create_task(client.call_tool("sleep", {"seconds": 30}, dialogue=Dialogue(on_question=early)))
    await client.call_tool("echo")
    assert answer_of(await client.call_tool("ask", dialogue=Dialogue(on_question=late)))["action"] == "accept"
    assert early.asked == []
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
