"""What an MCP server can make the event loop do in one turn, while which no other call is served."""

import asyncio
import json
import random
import statistics
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.processes import loop_share
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
from consumer.sessions.dialogue import Dialogue
from schemas.errors import McpError, SessionsError
from schemas.json_values import has_more_values
from tests.security.talker import HEAVY
from tests.security.test_bounds_of_servers import TALKER
from tests.security.turns import Turns, measured_turns

ANSWER = 0.1
"""Seconds that one answer may cost; measured: 0.04."""

TALK = 0.025
"""Seconds that a turn may cost for what is said unasked; measured: 0.01."""

PARSES = 10
"""How many times a turn may cost what it costs to parse the largest message of a flood; measured: 3. Where the machine
is slower than it was when ``TALK`` was measured, or the process has more to look after, this is more than ``TALK``."""

MEASUREMENTS = 3
"""A turn that costs too much because of the product does so in each; one charged with the machine's work does not."""

FLOOD = 3.0
"""Seconds that a server may exceed its share here. After the first half second all seconds of a flood are alike."""

BYTES, VALUES = "4259840 are read at most", "more than 100000 JSON values"
REFUSED = {"integers": BYTES, "objects": BYTES, "long": BYTES, "nested": VALUES, "names": VALUES}


def talker(kind: str = "progress") -> MCPClient:
    return MCPClient(MCPService(command=[*TALKER, "--flood", kind]))


@pytest.mark.parametrize("kind", HEAVY)
async def test_no_answer_costs_much_of_the_loop_and_the_session_lives(kind: str):
    client = talker()
    await client.start()
    try:
        with measured_turns() as turns:
            try:
                await client.call_tool("answer", {"kind": kind}, timeout=30)
                said = ""
            except McpError as refusal:
                said = refusal.message
        sys.stdout.write(f"{kind}: {turns.longest * 1000:.1f} ms in {turns.ran[:80]}; {said[:90]}" + "\n")
        assert turns.longest < ANSWER, f"{turns.longest * 1000:.0f} ms in {turns.ran}"
        assert REFUSED.get(kind, "") in said
        assert bool(said) == (kind in REFUSED)
        with pytest.raises(McpError, match="more than 100000"):
            await client.call_tool("answer", {"kind": "nested"}, timeout=30)
    finally:
        await client.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["progress", "elicitation", "keys", "few keys", "unheard", "pretended"])
async def test_no_turn_of_the_loop_is_long_because_a_server_talks(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop_share, "OVERDRAWN_TIMEOUT", FLOOD)
    for _ in range(MEASUREMENTS):
        turns = await turns_beside_a_flood(kind)
        most = max(TALK, PARSES * parsing())
        if turns.longest < most:
            return
    took, allowed = (f"{seconds * 1000:.0f} ms" for seconds in (turns.longest, most))
    pytest.fail(f"each time a turn was too long, at last {took} in {turns.ran}; {allowed} are allowed")


def parsing() -> float:
    """Processor time (s) in which the standard library parses the largest message of a flood, here and now."""
    text, took = json.dumps({"extra": [{}] * 45_000}), []
    for _ in range(5):
        began = time.thread_time()
        json.loads(text)
        took.append(time.thread_time() - began)
    return statistics.median(took)


async def turns_beside_a_flood(kind: str) -> Turns:
    """The turns of the loop until a server is ended because it talks."""
    client, beside = talker(kind), talker()

    async def hear(*_: object) -> None:
        return None

    async def decline(*_: object) -> dict[str, Any]:
        return {"action": "decline"}

    await client.start()
    await beside.start()
    try:
        with measured_turns() as turns:
            dialogue = Dialogue(on_progress=hear, on_question=decline)
            flooding = asyncio.create_task(client.call_tool("flood", timeout=60, dialogue=dialogue))
            slowest = 0.0
            while not flooding.done():
                began = time.monotonic()
                await beside.list_again()
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.wait({flooding}, timeout=0.02)
            with pytest.raises(SessionsError):
                await flooding
        sys.stdout.write(
            f"{kind}: {turns.longest * 1000:.1f} ms in {turns.ran[:80]}; a listing beside it {slowest * 1000:.0f} ms\n"
        )
        return turns
    finally:
        await client.stop()
        await beside.stop()


def _values(value: Any) -> int:
    """As they are counted: an empty object or array twice."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + (sum(map(_values, inner)) or 1)
    return 1


_JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a",:[{\\/é\n'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='b",[\\'), inner),
    max_leaves=40,
)


@given(_JSON, st.booleans(), st.integers(0, 70_000))
def test_values_are_counted_as_a_parser_finds_them(value: Any, ascii_only: bool, padding: int):
    # The padding moves the end of a piece to any place, in an escape or a string.
    whole = ['\\"x' * (padding // 5), value, '\\"' * (random.Random(padding).randrange(20_000)), value]
    body, found = json.dumps(whole, ensure_ascii=ascii_only).encode(), _values(whole)
    assert has_more_values(body, found - 2)
    assert not has_more_values(body, found - 1)
