"""Answers that are given once, in a bounded window; and what is pinned in arguments."""

import asyncio

import pytest

from consumer.calls.requests import idempotency
from consumer.calls.requests.idempotency import Answers, KeptAnswer
from consumer.calls.requests.pinned_arguments import bound_arguments, public_tools
from schemas.base import Json
from schemas.errors import InvalidMessage
from schemas.requests import ToolsCall
from tests.calls.asking import ask_for, once

REQUEST = ask_for("book")


class Work:
    def __init__(self):
        self.times = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, running):
        self.times += 1
        await self.gate.wait()
        return KeptAnswer(f"answer {self.times}".encode())


async def test_who_repeats_a_key_joins_or_gets_the_answer():
    answers, work = Answers(), Work()
    work.gate.clear()
    asking = [asyncio.create_task(once(answers, "k", REQUEST, work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.gate.set()
    assert {(await task).body for task in asking} == {b"answer 1"}
    assert (await once(answers, "k", REQUEST, work)).body == b"answer 1"
    assert work.times == 1


async def test_a_key_is_good_for_one_request_only():
    answers, work = Answers(), Work()
    await once(answers, "k", REQUEST, work)
    with pytest.raises(InvalidMessage, match=r"^idempotency_key: was used before in this call, for another tool"):
        await once(answers, "k", ask_for("another"), work)


FIRST: Json = {"session_id": "c-1", "name": "book", "arguments": {"day": 1, "hour": {"from": 2, "to": 3}}}


@pytest.mark.parametrize(
    "more",
    [
        {"timeout": 7},
        {"arguments": {"hour": {"to": 3, "from": 2}, "day": 1}},
        {"service_name": "crm", "open": "never", "session_timeout": 9, "session_metadata": {"a": 1}},
        {"progress": True, "logs": True, "changes": True, "pending_after": 1, "questions": True},
        {"meta": {"traceparent": "00-1"}, "client_capabilities": {"sampling": {}}, "idempotency_key": "k"},
    ],
)
async def test_how_somebody_waits_and_listens_is_no_part_of_the_request(more: Json):
    answers, work = Answers(), Work()
    first = ToolsCall.model_validate(FIRST)
    assert (await once(answers, "k", first, work)).body == b"answer 1"
    assert (await once(answers, "k", ToolsCall.model_validate(FIRST | more), work)).body == b"answer 1"
    assert work.times == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"name": "cancel"}, "for another tool ('book')"),
        ({"session_id": "c-1#crm"}, "for another session ('c-1')"),
        ({"service_name": "crm"}, "for another service ('todo')"),
        ({"arguments": {}}, "for other arguments"),
        ({"arguments": {"day": 1.0, "hour": {"from": 2, "to": 3}}}, "for other arguments"),
        ({"request_state": "s", "input_responses": {"sure": {}}}, "for other input_responses"),
    ],
)
async def test_what_differs_is_told(more: Json, told: str):
    answers, work = Answers(), Work()
    await once(answers, "k", ToolsCall.model_validate(FIRST | {"service_name": "todo"}), work)
    with pytest.raises(InvalidMessage) as caught:
        await once(answers, "k", ToolsCall.model_validate(FIRST | {"service_name": "todo"} | more), work)
    assert told in caught.value.message


async def test_without_a_key_everything_is_answered_anew():
    answers, work = Answers(), Work()
    await once(answers, "", REQUEST, work)
    await once(answers, "", REQUEST, work)
    assert work.times == 2


async def test_what_was_not_executed_and_what_failed_is_not_kept():
    answers = Answers()

    async def refused(running):
        return KeptAnswer(b"no", executed=False)

    async def broken(running):
        raise ZeroDivisionError

    work = Work()
    await once(answers, "a", REQUEST, refused)
    with pytest.raises(ZeroDivisionError):
        await once(answers, "b", REQUEST, broken)
    assert len(answers) == 0
    assert (await once(answers, "a", REQUEST, work)).body == b"answer 1"
    assert (await once(answers, "b", REQUEST, work)).body == b"answer 2"


async def test_the_window_is_bounded_in_number_and_calls_in_flight_stay(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_ANSWERS", 4)
    answers, slow, quick = Answers(), Work(), Work()
    slow.gate.clear()
    first = asyncio.create_task(once(answers, "slow", REQUEST, slow))
    await asyncio.sleep(0)
    for number in range(50):
        await once(answers, f"key-{number}", REQUEST, quick)
    assert len(answers) <= 6
    slow.gate.set()
    assert (await first).body == b"answer 1"
    assert (await once(answers, "slow", REQUEST, slow)).body == b"answer 1"
    assert slow.times == 1


async def test_the_window_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_BYTES", 1000)
    answers = Answers()

    async def large(running):
        return KeptAnswer(b"x" * 400)

    for number in range(10):
        await once(answers, f"key-{number}", REQUEST, large)
    assert len(answers) <= 4


TOOL: dict = {
    "name": "book",
    "inputSchema": {
        "type": "object",
        "properties": {"caller": {"type": "string"}, "date": {"type": "string"}},
        "required": ["caller", "date"],
    },
}
METADATA = {"tenant": "acme", "call": {"from": "+1555", "attributes": {"queue": "sales"}}}


def test_pinned_arguments_cannot_be_overridden_and_only_tools_that_have_them_get_them():
    bind = {"caller": "{from}/{queue}/{tenant}/{nobody|none}", "other": "x"}
    arguments = bound_arguments(bind, METADATA, [TOOL], "book", {"caller": "somebody else", "date": "today"})
    assert arguments == {"caller": "+1555/sales/acme/none", "date": "today"}
    assert bound_arguments(bind, METADATA, [TOOL], "unknown", {"a": 1}) == {"a": 1}


def test_pinned_arguments_are_not_in_the_schema_and_the_servers_own_listing_stays_as_it_is():
    (shown,) = public_tools({"caller": "{from}"}, [TOOL])
    assert shown["inputSchema"]["properties"] == {"date": {"type": "string"}}
    assert shown["inputSchema"]["required"] == ["date"]
    assert TOOL["inputSchema"]["required"] == ["caller", "date"]
    assert public_tools({}, [TOOL]) == [TOOL]
