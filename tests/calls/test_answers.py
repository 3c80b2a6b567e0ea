"""Answers that are given once, in a bounded window; and what is pinned in arguments."""

import asyncio

import pytest

from consumer.calls.requests import idempotency
from consumer.calls.requests.idempotency import Answers, KeptAnswer
from consumer.calls.requests.pinned_arguments import bound_arguments, public_tools
from schemas.errors import InvalidMessage
from tests.calls.asking import once


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
    asking = [asyncio.create_task(once(answers, "k", b"request", work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.gate.set()
    assert {(await task).body for task in asking} == {b"answer 1"}
    assert (await once(answers, "k", b"request", work)).body == b"answer 1"
    assert work.times == 1


async def test_a_key_is_good_for_one_request_only():
    answers, work = Answers(), Work()
    await once(answers, "k", b"request", work)
    with pytest.raises(InvalidMessage):
        await once(answers, "k", b"another", work)


async def test_without_a_key_everything_is_answered_anew():
    answers, work = Answers(), Work()
    await once(answers, "", b"request", work)
    await once(answers, "", b"request", work)
    assert work.times == 2


async def test_what_was_not_executed_and_what_failed_is_not_kept():
    answers = Answers()

    async def refused(running):
        return KeptAnswer(b"no", executed=False)

    async def broken(running):
        raise ZeroDivisionError

    work = Work()
    await once(answers, "a", b"request", refused)
    with pytest.raises(ZeroDivisionError):
        await once(answers, "b", b"request", broken)
    assert len(answers) == 0
    assert (await once(answers, "a", b"request", work)).body == b"answer 1"
    assert (await once(answers, "b", b"request", work)).body == b"answer 2"


async def test_the_window_is_bounded_in_number_and_calls_in_flight_stay(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_ANSWERS", 4)
    answers, slow, quick = Answers(), Work(), Work()
    slow.gate.clear()
    first = asyncio.create_task(once(answers, "slow", b"request", slow))
    await asyncio.sleep(0)
    for number in range(50):
        await once(answers, f"key-{number}", b"request", quick)
    assert len(answers) <= 6
    slow.gate.set()
    assert (await first).body == b"answer 1"
    assert (await once(answers, "slow", b"request", slow)).body == b"answer 1"
    assert slow.times == 1


async def test_the_window_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(idempotency, "MAX_BYTES", 1000)
    answers = Answers()

    async def large(running):
        return KeptAnswer(b"x" * 400)

    for number in range(10):
        await once(answers, f"key-{number}", b"request", large)
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
