"""What comes behind a server that hangs while it starts: an end waits for it a moment, everything else to its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from consumer.broker.topology import Queue
from consumer.calls.starting import CUT_OFF_AFTER
from consumer.processes.service import MCPService
from schemas.base import Json
from schemas.ids import routing_key
from schemas.replies import Reply, parse_reply
from tests.calls.owner_parts import CALL, ECHO, OTHER
from tests.calls.owning import ID, Owning, owning
from tests.calls.simulated_link import Heard, Settled, delivered
from tests.virtual_time import in_virtual_time, passes

HANGS = 30.0
"""How long (s) the server takes to start."""

CREATE = ("session.create", {"session_id": ID, "service_name": ECHO})
ENDED = ("call.ended", {"call_id": CALL, "kind": "ended"})
CLOSE = ("session.close", {"session_id": ID})
BESIDE = f"{CALL}#{OTHER}"


@dataclass
class Hanging:
    """The owner of a call with one session. Servers of ``echo`` take long to start."""

    scene: Owning
    replies: Heard
    cancelled: int = 0

    async def start(self, begin: Any, service: MCPService, **more: Any) -> Any:
        if service.name == ECHO:
            try:
                await asyncio.sleep(HANGS)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return await begin(service, **more)

    def take(self, kind: str, body: Json) -> Settled:
        """Have the owner take a message of its inbox."""
        delivery, settled = delivered(
            kind, json.dumps(body).encode(), queue=self.scene.inbox, exchange=self.scene.wire.names.sessions,
            key=routing_key(CALL), reply_to="replies", correlation_id=kind,
        )  # fmt: skip
        self.scene.parts.owner.take(delivery)
        return settled

    async def heard(self) -> tuple[str, Reply]:
        message = (await self.replies.next()).message
        return str(message.correlation_id), parse_reply(message.body)

    def silent(self) -> bool:
        return self.replies.deliveries.empty()


@asynccontextmanager
async def hanging() -> AsyncIterator[Hanging]:
    async with owning() as scene:
        await scene.wire.declare(Queue("replies", "of this test"))
        found = Hanging(scene, await scene.wire.consume("replies"))
        found.take("session.create", {"session_id": BESIDE, "service_name": OTHER})
        assert (await found.heard())[1].ok
        await scene.told()
        scene.servers.start = partial(found.start, scene.servers.start)  # type: ignore[method-assign]
        yield found


@pytest.mark.parametrize("end", [ENDED, CLOSE], ids=["the call ends", "the session is closed"])
@pytest.mark.parametrize("after", [1.0, 12.0])
@in_virtual_time
async def test_an_end_cuts_off_a_start_that_takes_long(end: tuple[str, Json], after: float):
    async with hanging() as hangs:
        hangs.take(*CREATE)
        await passes(after)
        hangs.take(*end)
        await passes(max(0.0, CUT_OFF_AFTER - after - 0.1))
        assert hangs.silent(), "a server that works has some time to start"
        await passes(0.3)
        kind, created = await hangs.heard()
        assert (kind, created.error and str(created.error.code)) == ("session.create", "SESSION_NOT_FOUND")
        kind, ended = await hangs.heard()
        assert (kind, ended.ok) == (end[0], True)
        assert hangs.cancelled == 1
        assert not hangs.scene.parts.call.sessions
        told = [word for word in await hangs.scene.told() if word in ("created", "closed", "rejected")]
        assert told == ["closed"], "of the session beside it"


@in_virtual_time
async def test_what_starts_behind_it_is_not_waited_for_longer_either():
    async with hanging() as hangs:
        began = asyncio.get_running_loop().time()
        hangs.take(*CREATE)
        hangs.take("call.progress", {"call_id": CALL, "kind": "progress"})
        hangs.take(*ENDED)
        heard = [(await hangs.heard())[0] for _ in range(3)]
        assert heard == ["session.create", "call.progress", "call.ended"]
        assert asyncio.get_running_loop().time() - began < 2 * CUT_OFF_AFTER + 1
        hangs.take(*CREATE)  # and what comes behind the end is what somebody wants
        await passes(HANGS + 1)
        assert (await hangs.heard())[1].ok
        assert list(hangs.scene.parts.call.sessions) == [ID]


@in_virtual_time
async def test_the_end_of_another_session_cuts_off_nothing():
    async with hanging() as hangs:
        hangs.take(*CREATE)
        hangs.take("session.close", {"session_id": BESIDE})
        await passes(HANGS - 1)
        assert hangs.silent()
        assert [(await hangs.heard())[0] for _ in range(2)] == ["session.create", "session.close"]
        assert list(hangs.scene.parts.call.sessions) == [ID]


@in_virtual_time
async def test_a_start_that_takes_a_moment_is_waited_for_and_its_session_closed():
    async with hanging() as hangs:
        hangs.take("session.create", {"session_id": ID, "service_name": OTHER, "if_exists": "reject"})
        hangs.take(*ENDED)
        assert (await hangs.heard())[1].ok
        kind, ended = await hangs.heard()
        assert (kind, sorted(ended.unwrap()["closed"])) == ("call.ended", [ID, BESIDE])
        assert hangs.cancelled == 0
