"""When a request to a session is acknowledged, when it runs, and when it does not; the servers are simulated."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from consumer.broker.topology import Queue
from consumer.calls.context import Bounds
from consumer.processes.service import MCPService
from schemas import headers
from schemas.base import Json
from schemas.ids import routing_key
from schemas.replies import Reply, parse_reply
from tests.calls.owner_parts import CALL, ECHO, ME, OTHER
from tests.calls.owning import A_WHILE, ID, Owning, owning
from tests.calls.simulated_link import Heard, Settled, delivered
from tests.virtual_time import in_virtual_time, moment, passes

LONGEST = MCPService(name=ECHO, command=["x"]).longest_call
"""How long (s) a service lets its tools run, whatever their callers say."""
BUSY = 5.0
"""How long (s) the lane of the call is busy."""


@dataclass
class Asking:
    """Requests to the owner of a call, as its requests queue delivers them."""

    scene: Owning
    replies: Heard

    def take(self, kind: str, body: Json, **more: Any) -> Settled:
        """Have the owner take a request; returns what becomes of its delivery."""
        body = {"session_id": ID} | body
        delivery, settled = delivered(
            kind, json.dumps(body).encode(), queue="fast", exchange=self.scene.wire.names.requests,
            key=routing_key(CALL), reply_to="replies", correlation_id=kind, **more,
        )  # fmt: skip
        self.scene.parts.owner.take(delivery)
        return settled

    def call_tool(self, number: int = 1, *, takes: float = 0.0, fields: Json | None = None, **more: Any) -> Settled:
        arguments = {"number": str(number), "takes": takes}
        return self.take("tools.call", {"name": "note", "arguments": arguments} | (fields or {}), **more)

    def executed(self, number: int = 1) -> int:
        """How often a tool call was executed."""
        return len(self.scene.servers.executed(str(number)))

    def make_busy(self, seconds: float = BUSY) -> None:
        """Something else of the call happens first."""
        self.scene.parts.lanes.submit(CALL, partial(asyncio.sleep, seconds))

    async def reply(self) -> Reply:
        return parse_reply((await self.replies.next()).message.body)

    async def code(self) -> str:
        reply = await self.reply()
        assert reply.error is not None
        return str(reply.error.code)

    async def no_reply(self) -> None:
        await passes(60)
        assert self.replies.deliveries.empty()


@asynccontextmanager
async def asking(**more: Any) -> AsyncIterator[Asking]:
    async with owning(**more) as scene:
        await scene.wire.declare(Queue("replies", "of this test"))
        yield Asking(scene, await scene.wire.consume("replies"))


@in_virtual_time
async def test_a_tool_call_is_acknowledged_before_it_is_executed():
    async with asking() as asked:
        await asked.scene.opened()
        settled = asked.call_tool(takes=5)
        await passes(0.001)
        assert (settled.how, asked.executed()) == (["acked"], 0)
        assert (await asked.reply()).unwrap()["text"] == "1"
        assert asked.executed() == 1
        assert asked.scene.parts.call.tool_calls == 0


@in_virtual_time
async def test_a_request_waits_for_its_turn_and_is_rabbitmqs_until_then():
    async with asking() as asked:
        await asked.scene.opened()
        asked.make_busy()
        settled = [asked.call_tool(), asked.take("session.get", {})]
        await passes(BUSY - 0.1)
        assert [one.how for one in settled] == [[], []]
        await passes(0.2)
        assert [one.how for one in settled] == [["acked"]] * 2
        assert {(await asked.reply()).ok for _ in settled} == {True}


@in_virtual_time
async def test_a_request_that_waits_too_long_for_its_turn_is_not_executed():
    async with asking() as asked:
        await asked.scene.opened()
        asked.make_busy()
        began = moment()
        settled = asked.call_tool(expiration=1000)
        assert await asked.code() == "DEADLINE_EXCEEDED"
        assert moment() - began == pytest.approx(1, abs=0.01)
        assert settled.how == ["acked"]
        await asked.no_reply()
        assert asked.executed() == 0


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"redelivered": True}, "OUTCOME_UNKNOWN"),
        ({"headers": {headers.LATE: True}}, "OUTCOME_UNKNOWN"),
        ({"headers": {headers.RESENT: True}}, "DEADLINE_EXCEEDED"),
    ],
    ids=["again", "late", "sent on"],
)
@in_virtual_time
async def test_a_tool_call_that_waits_too_long_may_have_been_executed_only_if_it_was_delivered_before(
    more: dict[str, Any], code: str
):
    async with asking() as asked:
        await asked.scene.opened()
        asked.make_busy()
        settled = asked.call_tool(expiration=1000, **more)
        assert await asked.code() == code, "the owner has the first copy of what was sent on to it"
        asked.take("session.get", {}, expiration=1000, **more)
        assert await asked.code() == "DEADLINE_EXCEEDED", "to look executes nothing"
        assert settled.how == ["acked"]
        await asked.no_reply()
        assert asked.executed() == 0


OPENING = [
    ("tools.call", {"name": "note", "service_name": ECHO}),
    ("resources.list", {"service_name": ECHO, "open": "beside"}),
]


@pytest.mark.parametrize(("kind", "fields"), OPENING, ids=["tools.call", "resources.list"])
@in_virtual_time
async def test_a_request_whose_deadline_has_passed_opens_no_session(kind: str, fields: Json):
    async with asking() as asked:
        asked.take(kind, fields, headers={headers.DEADLINE: headers.milliseconds(moment() - 60)})
        reply = await asked.reply()
        assert reply.error is not None
        assert (reply.error.code, "was not executed" in reply.error.message) == ("DEADLINE_EXCEEDED", True)
        assert "still starting" not in reply.error.message
        await asked.no_reply()
        assert not asked.scene.parts.call.sessions
        assert "created" not in asked.scene.story


@in_virtual_time
async def test_an_opening_that_does_not_begin_in_time_never_begins():
    """Two requests get their turn together: the second has to wait until the session of the first is open."""
    async with asking() as asked:
        asked.make_busy(0.01)
        asked.call_tool(1, fields={"service_name": ECHO})
        asked.call_tool(2, fields={"service_name": OTHER, "timeout": 0.03})  # less than a server takes to start
        replies = [await asked.reply() for _ in range(2)]
        assert [one.error.code if one.error is not None else "ok" for one in replies] == ["DEADLINE_EXCEEDED", "ok"]
        await asked.no_reply()
        assert [one.service_name for one in asked.scene.parts.call.sessions.values()] == [ECHO]


@in_virtual_time
async def test_a_request_to_a_call_that_is_not_ours_is_returned_to_the_placer():
    async with asking() as asked:
        asked.make_busy(0.1)
        settled = asked.take("session.get", {})
        unowned = await asked.scene.wire.consume(asked.scene.wire.names.unowned)
        await asked.scene.parts.owned_calls.release(asked.scene.parts.call)
        returned = await unowned.next()
        assert (returned.type, returned.message.headers[headers.RETURNED]) == ("session.get", ME)
        assert settled.how == ["acked"]
        await asked.no_reply()


@pytest.mark.parametrize("more", [{"redelivered": True}, {"headers": {headers.LATE: True}}], ids=["again", "late"])
@in_virtual_time
async def test_a_tool_call_that_may_have_been_executed_is_answered_by_who_knows_its_key_alone(more: dict[str, Any]):
    async with asking() as asked:
        await asked.scene.opened()
        assert await asked.call_tool(**more).wait() == "acked"
        await asked.no_reply()
        assert asked.executed() == 0
        key = {"idempotency_key": "k"}
        asked.call_tool(fields=key)
        first = (await asked.reply()).unwrap()
        asked.call_tool(fields=key, **more)
        assert (await asked.reply()).unwrap() == first
        assert asked.executed() == 1
        asked.take("session.get", {}, **more)
        assert (await asked.reply()).ok, "to look twice does no harm"
        await asked.scene.parts.owned_calls.release(asked.scene.parts.call)
        await asked.call_tool(fields=key, **more).wait()
        await asked.no_reply()


@in_virtual_time
async def test_a_tool_call_is_cancelled_while_something_else_of_its_call_happens():
    async with asking() as asked:
        await asked.scene.opened()
        asked.call_tool(takes=60, fields={"idempotency_key": "k"})
        await passes(A_WHILE)
        asked.make_busy()
        began = moment()
        settled = asked.take("tools.cancel", {"idempotency_key": "k"})
        replies = [await asked.reply() for _ in range(2)]
        assert moment() - began < 1
        assert settled.how == ["acked"]
        assert sorted(str(one.error.code) if one.error else str(one.result) for one in replies) == [
            "TOOL_CANCELLED", "{'cancelled': True}",
        ]  # fmt: skip


@in_virtual_time
async def test_what_is_not_known_yet_may_come_before_its_cancellation():
    async with asking() as asked:
        await asked.scene.opened()
        asked.make_busy()
        asked.call_tool(takes=60, fields={"idempotency_key": "k"})
        asked.take("tools.cancel", {"idempotency_key": "k"})
        await passes(BUSY)
        codes = {str(one.error.code) if one.error else "ok" for one in [await asked.reply(), await asked.reply()]}
        assert codes == {"TOOL_CANCELLED", "ok"}
        asked.take("tools.cancel", {"idempotency_key": "unknown"})
        assert (await asked.reply()).unwrap() == {"cancelled": False}


@in_virtual_time
async def test_a_request_opens_its_session_only_if_it_says_so():
    async with asking() as asked:
        asked.take("prompts.list", {"service_name": "echo"})
        assert await asked.code() == "SESSION_NOT_FOUND"
        asked.take("prompts.list", {"service_name": "nobody"})
        assert await asked.code() == "SERVICE_NOT_FOUND"
        asked.take("session.get", {})
        assert await asked.code() == "SESSION_NOT_FOUND"
        asked.take("prompts.list", {"service_name": "echo", "open": "beside"})
        assert (await asked.reply()).ok
        assert list(asked.scene.parts.call.sessions) == [ID]


@in_virtual_time
async def test_a_call_that_a_request_opened_nothing_for_is_not_kept():
    opening = {"service_name": "echo", "open": "beside"}
    for kind, body, code in (
        ("prompts.list", {"service_name": "nobody", "open": "beside"}, "SERVICE_NOT_FOUND"),
        ("tools.call", {"name": "t", "service_name": "nobody"}, "SERVICE_NOT_FOUND"),
        ("tools.call", {"name": "t", "arguments": {"a": "x" * (1 << 20)}, **opening}, "INVALID_MESSAGE"),
    ):
        async with asking() as asked:
            asked.take(kind, dict(body))
            assert await asked.code() == code
            await passes(A_WHILE)
            assert asked.scene.parts.owned_calls.calls == {}


@in_virtual_time
async def test_a_worker_holds_so_many_requests_and_refuses_the_others():
    async with asking(bounds=Bounds(max_requests=2)) as asked:
        await asked.scene.opened()
        for number in (1, 2):
            asked.call_tool(number, takes=5)
        settled = asked.call_tool(3)
        assert await asked.code() == "CAPACITY"
        assert settled.how == ["acked"]
        assert [(await asked.reply()).ok for _ in range(2)] == [True, True]
        asked.call_tool(3)
        assert (await asked.reply()).ok
        assert asked.executed(3) == 1


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        ({}, 30),
        ({"service_name": "echo"}, 30),
        ({"timeout": 7}, 7),
        ({"timeout": 10_000}, LONGEST),
        ({"service_name": "nobody", "timeout": 10_000}, LONGEST),
        ({"service_name": "nobody"}, 30),
    ],
)
@in_virtual_time
async def test_how_long_a_tool_call_may_take(fields: Json, waits: float):
    async with asking() as asked:
        await asked.scene.opened()
        if fields.get("service_name") == "nobody":
            asked.make_busy(2 * LONGEST)
        asked.call_tool(takes=2 * LONGEST, fields=fields)
        await passes(waits - 1)
        assert asked.replies.deliveries.empty()
        await passes(2)
        assert await asked.code() in ("TOOL_TIMEOUT", "DEADLINE_EXCEEDED")
