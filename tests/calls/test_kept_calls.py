"""Requests that stay open at a server while their requester answers its questions; the server is a coroutine here."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.calls.owned_call import CallSession
from consumer.calls.requests.kept_calls import STOP_TIMEOUT, KeptCall, KeptCalls
from consumer.calls.requests.running import Running
from consumer.processes.service import MCPService
from consumer.sessions import Session
from schemas.base import Json
from schemas.errors import InvalidMessage, McpError, ToolTimeout
from schemas.ids import CallId, ServiceName, SessionId
from schemas.interim import Interim, ToolsLog
from tests.simulation.world.servers import Books, SimulatedClient, SimulatedServers
from tests.virtual_time import in_virtual_time, moment, passes

CALL, WHAT = CallId("c-1"), "tools/call book"
PATIENCE = 40.0
"""How long (s) the service's questions wait for answers."""
LEFT = 10.0
"""How long (s) the requester waits."""


def session(name: str = CALL) -> CallSession:
    service = MCPService(name=ServiceName("echo"), command=["echo"], question_timeout=PATIENCE)
    process = SimulatedClient(SimulatedServers("w-1", Books(), lambda: 0.5, 0.0), service)
    return Session(SessionId(name), service.name, process)


@dataclass
class Server:
    """Asks ``questions`` one after the other, and answers with what it was told."""

    questions: list[str]
    takes: float = 0.0
    heard: list[Json] = field(default_factory=list)
    ended: str = ""

    async def work(self, kept: KeptCall) -> Json:
        try:
            for question in self.questions:
                self.heard.append(await kept.ask("elicitation/create", {"message": question}))
                if kept.origin is not None:
                    await kept.origin.tell(ToolsLog(session_id=SessionId(CALL), level="info", data=question))
            await asyncio.sleep(self.takes)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "answered"
        return {"heard": list(self.heard)}


def asked(result: Json) -> tuple[str, dict[str, str]]:
    """The state of a result that asks, and what it asks under which id."""
    assert result["resultType"] == "input_required"
    assert {one["method"] for one in result["inputRequests"].values()} == {"elicitation/create"}
    questions = {input_id: one["params"]["message"] for input_id, one in result["inputRequests"].items()}
    return result["requestState"], questions


def each(questions: dict[str, str], answer: Any) -> Json:
    """The same answer to each question."""
    return {input_id: answer for input_id in questions}  # noqa: C420 - JSON, which may be changed


@in_virtual_time
async def test_a_request_without_a_question_is_answered_and_not_kept():
    kept = KeptCalls()
    assert await kept.begin(session(), WHAT, Server([], takes=LEFT / 2).work, LEFT) == {"heard": []}
    assert len(kept) == 0


@in_virtual_time
async def test_questions_are_returned_and_the_request_goes_on_with_their_answers():
    kept, one, server = KeptCalls(), session(), Server(["name?", "date?"], takes=1.0)
    began = moment()
    state, questions = asked(await kept.begin(one, WHAT, server.work, LEFT))
    assert moment() == began, "as soon as it is asked"
    assert (list(questions.values()), len(kept)) == (["name?"], 1)
    again, questions_2 = asked(await kept.resume(one, WHAT, state, each(questions, {"a": 1}), LEFT))
    assert (again, list(questions_2.values()), len(kept)) == (state, ["date?"], 1)
    result = await kept.resume(one, WHAT, state, each(questions_2, {"a": 2}), LEFT)
    assert result == {"heard": [{"a": 1}, {"a": 2}]}
    assert len(kept) == 0
    with pytest.raises(InvalidMessage, match="unknown or has expired"):
        await kept.resume(one, WHAT, state, {}, LEFT)


@pytest.mark.parametrize(("answer", "heard"), [({"action": "accept"}, {"action": "accept"}), ("yes", {}), (None, {})])
@in_virtual_time
async def test_an_answer_that_is_none_is_told_as_one_without_content(answer: Any, heard: Json):
    kept, one, server = KeptCalls(), session(), Server(["name?"])
    state, questions = asked(await kept.begin(one, WHAT, server.work, LEFT))
    assert await kept.resume(one, WHAT, state, each(questions, answer), LEFT) == {"heard": [heard]}


@in_virtual_time
async def test_a_question_that_is_not_answered_is_asked_again():
    kept, one, server = KeptCalls(), session(), Server(["name?"])
    state, questions = asked(await kept.begin(one, WHAT, server.work, LEFT))
    assert asked(await kept.resume(one, WHAT, state, {"another": {}}, LEFT)) == (state, questions)
    assert server.heard == []
    kept.stop()


@in_virtual_time
async def test_a_question_that_the_server_takes_back_is_not_asked_any_more():
    async def impatient(kept: KeptCall) -> Json:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await kept.ask("elicitation/create", {"message": "name?"})
        return {"heard": await kept.ask("elicitation/create", {"message": "date?"})}

    kept, one = KeptCalls(), session()
    state, _ = asked(await kept.begin(one, WHAT, impatient, LEFT))
    await passes(2)
    state, questions = asked(await kept.resume(one, WHAT, state, {}, LEFT))
    assert list(questions.values()) == ["date?"]
    assert await kept.resume(one, WHAT, state, each(questions, {"a": 1}), LEFT) == {"heard": {"a": 1}}


@in_virtual_time
async def test_who_may_go_on_with_a_request():
    kept, one = KeptCalls(), session()
    state, questions = asked(await kept.begin(one, WHAT, Server(["name?"], takes=1.0).work, LEFT))
    answers = each(questions, {"a": 1})
    for why, other, what, given_state in (
        ("another state", one, WHAT, "x" * 100),
        ("another session, even of the same id", session(), WHAT, state),
    ):
        with pytest.raises(InvalidMessage, match="unknown or has expired") as told:
            await kept.resume(other, what, given_state, answers, LEFT)
        assert len(told.value.details["request_state"]) <= 64, why
    with pytest.raises(InvalidMessage, match="belongs to tools/call book, not to tools/call other"):
        await kept.resume(one, "tools/call other", state, answers, LEFT)
    going_on = asyncio.create_task(kept.resume(one, WHAT, state, answers, LEFT))
    await asyncio.sleep(0)
    with pytest.raises(InvalidMessage):
        await kept.resume(one, WHAT, state, answers, LEFT)
    assert await going_on == {"heard": [{"a": 1}]}


# Time.


@in_virtual_time
async def test_a_request_that_takes_too_long_is_cancelled_at_the_server():
    kept, server, began = KeptCalls(), Server([], takes=LEFT + 1), moment()
    with pytest.raises(ToolTimeout, match=f"{WHAT} did not finish within 10 s") as told:
        await kept.begin(session(), WHAT, server.work, LEFT)
    assert moment() - began == pytest.approx(LEFT)
    assert (server.ended, len(kept), told.value.details["timeout"]) == ("cancelled", 0, LEFT)


@in_virtual_time
async def test_a_server_that_will_not_be_cancelled_is_not_waited_for():
    async def stubborn(_: KeptCall) -> Json:
        try:
            await asyncio.sleep(LEFT * 2)
        except asyncio.CancelledError:
            await asyncio.sleep(STOP_TIMEOUT * 2)
        return {}

    began = moment()
    with pytest.raises(ToolTimeout):
        await KeptCalls().begin(session(), WHAT, stubborn, LEFT)
    assert moment() - began == pytest.approx(LEFT + STOP_TIMEOUT)
    await passes(STOP_TIMEOUT * 2)


@in_virtual_time
async def test_questions_wait_for_answers_as_long_as_the_service_says():
    kept, one, server = KeptCalls(), session(), Server(["name?", "date?"])
    state, questions = asked(await kept.begin(one, WHAT, server.work, LEFT))
    await passes(PATIENCE - 1)
    state, _ = asked(await kept.resume(one, WHAT, state, each(questions, {}), LEFT))
    await passes(PATIENCE - 1)
    assert (len(kept), server.ended) == (1, "")
    await passes(2)
    assert (len(kept), server.ended) == (0, "cancelled")
    with pytest.raises(InvalidMessage):
        await kept.resume(one, WHAT, state, {}, LEFT)


@in_virtual_time
async def test_a_requester_that_goes_away_ends_its_request():
    kept, server = KeptCalls(), Server([], takes=LEFT)
    waiting = asyncio.create_task(kept.begin(session(), WHAT, server.work, LEFT))
    await passes(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (server.ended, len(kept)) == ("cancelled", 0)


@in_virtual_time
async def test_what_goes_wrong_at_the_server_is_told_and_ends_the_request():
    async def fails(_: KeptCall) -> Json:
        raise McpError("no such book", code=-1, data=None)

    kept = KeptCalls()
    with pytest.raises(McpError, match="no such book"):
        await kept.begin(session(), WHAT, fails, LEFT)
    assert len(kept) == 0


# Cancelling, and who hears.


@in_virtual_time
async def test_a_kept_request_is_cancelled_under_each_key_that_it_had_in_its_call():
    for key, call, found in (("k-1", CALL, True), ("k-2", CALL, True), ("k-3", CALL, False), ("k-1", "c-2", False)):
        kept, one, server = KeptCalls(), session(), Server(["name?", "date?"])
        state, questions = asked(await kept.begin(one, WHAT, server.work, LEFT, key="k-1"))
        await kept.resume(one, WHAT, state, each(questions, {}), LEFT, key="k-2")
        assert kept.cancel(CallId(call), key) is found
        await asyncio.sleep(0)
        assert (server.ended, len(kept)) == (("cancelled", 0) if found else ("", 1))
        kept.stop()
        await passes(PATIENCE)
        assert (server.ended, len(kept)) == ("cancelled", 0)


@in_virtual_time
async def test_who_waits_hears_what_the_server_tells_and_nobody_does_while_nobody_waits():
    heard: dict[str, list[Any]] = {"first": [], "second": []}

    async def listened(who: str) -> Running:
        async def listen(message: Interim) -> None:
            assert isinstance(message, ToolsLog)
            heard[who].append(message.data)

        running = Running()
        await running.join(listen)
        return running

    first, second = await listened("first"), await listened("second")
    kept, one = KeptCalls(), session()
    state, questions = asked(await kept.begin(one, WHAT, Server(["name?", "date?"]).work, LEFT, first))
    await first.tell(ToolsLog(session_id=SessionId(CALL), level="info", data="nobody is there"))
    await kept.resume(one, WHAT, state, each(questions, {}), LEFT, second)
    kept.stop()
    assert heard == {"first": [], "second": ["name?"]}


ALL = ("a", "b", "c", "d")


@settings(max_examples=30)
@given(rounds=st.lists(st.sets(st.sampled_from(ALL)), min_size=1, max_size=5))
@in_virtual_time
async def test_each_question_gets_the_answer_under_its_id_and_is_open_until_then(rounds: list[set[str]]):
    async def ask_all(kept: KeptCall) -> Json:
        answers = await asyncio.gather(*(kept.ask("elicitation/create", {"message": one}) for one in ALL))
        return dict(zip(ALL, answers, strict=True))

    kept, one = KeptCalls(), session()
    result = await kept.begin(one, WHAT, ask_all, LEFT)
    told: set[str] = set()
    for answered in rounds:
        state, questions = asked(result)
        assert sorted(questions.values()) == sorted(set(ALL) - told)
        answers: Json = {key: {"to": question} for key, question in questions.items() if question in answered}
        result = await kept.resume(one, WHAT, state, answers, LEFT)
        told |= answered
        if told == set(ALL):
            assert result == {question: {"to": question} for question in ALL}
            break
    kept.stop()
    await asyncio.sleep(0)
