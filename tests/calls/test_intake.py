"""What becomes of raw events: passed on to their call, ignored, or a dead letter; and when each is acknowledged."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumer.broker.message import Delivery
from consumer.broker.topology import Names
from consumer.calls import intake
from consumer.calls.context import Configured
from consumer.calls.intake import Intake
from schemas import headers
from schemas.calls import Platform
from schemas.ids import CallId, routing_key
from schemas.replies import succeeded
from schemas.requests import CallEnded, CallProgress, CallStarted
from tests.calls.owner_parts import Times
from tests.calls.simulated_link import BOUND, Heard, Settled, SimulatedLink, delivered, simulated_link

CALL = CallId("c-1")
SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "call-events"


@dataclass
class Scene:
    """An intake, and the queue of what it passes on: nobody owns the calls."""

    wire: SimulatedLink
    intake: Intake
    passed: Heard

    def take(self, body: object, *, redelivered: bool = False, **properties: Any) -> Settled:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = self.wire.names
        delivery, settled = delivered(
            None, raw, queue=names.calls, exchange=names.calls, key="a.key", redelivered=redelivered, **properties
        )
        self.intake.take(delivery)
        return settled

    async def answer(self, end: Delivery) -> None:
        await self.wire.settler.answer(end, succeeded({"closed": []}).dump(), "call.ended.reply")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with simulated_link() as wire:
        made = Intake(wire.names, wire.settler, wire.publisher, wire.rpc_client, Configured({}, (), Times()), {})
        yield Scene(wire, made, await wire.consume(wire.names.unowned))
        await made.detach()


async def test_a_start_is_safe_when_the_broker_has_it_and_its_wait_for_room_has_begun(scene: Scene):
    settled = scene.take({"call_id": CALL, "kind": "started", "from": "+15550100"})
    passed = await scene.passed.next()
    assert (passed.type, passed.exchange, passed.routing_key) == (
        CallStarted.type,
        scene.wire.names.sessions,
        routing_key(CALL),
    )
    assert json.loads(passed.message.body)["from"] == "+15550100"
    left = float(passed.message.headers[headers.ADMISSION]) / 1000 - time.time()
    assert 0 < left <= Times().admission_wait + 0.001, "the header has whole milliseconds"
    assert await settled.wait() == "acked"


async def test_an_end_is_safe_only_when_its_taker_has_answered(scene: Scene):
    settled = scene.take({"call_id": CALL, "kind": "ended"})
    end = await scene.passed.next()
    assert end.type == CallEnded.type
    assert headers.ADMISSION not in end.message.headers
    assert settled.how == []
    await scene.answer(end)
    assert await settled.wait() == "acked"


async def test_an_end_that_nobody_answers_is_sent_again(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intake, "END_ANSWER_TIMEOUT", 0.02)
    settled = scene.take({"call_id": CALL, "kind": "ended"})
    first, second = await scene.passed.next(), await scene.passed.next()
    assert first.message.body == second.message.body
    assert first.message.correlation_id != second.message.correlation_id
    monkeypatch.undo()
    await scene.answer(await scene.passed.next())
    assert await settled.wait() == "acked"


async def test_events_of_a_call_keep_their_order_and_those_of_others_do_not_wait(scene: Scene):
    for call, kind in ((CALL, "started"), (CALL, "ended"), (CALL, "progress"), ("c-2", "started")):
        scene.take({"call_id": call, "kind": kind})
    seen = [await scene.passed.next() for _ in range(3)]
    mine = [one for one in seen if one.routing_key == routing_key(CALL)]
    assert [one.type for one in mine] == [CallStarted.type, CallEnded.type], "the end has no answer yet"
    await scene.answer(mine[-1])
    assert (await scene.passed.next()).type == CallProgress.type


@pytest.mark.parametrize("happened", [None, datetime(2025, 3, 12, 10, 15, 30, tzinfo=UTC)])
@pytest.mark.parametrize("redelivered", [True, False])
async def test_one_is_as_old_as_it_was_when_it_happened(scene: Scene, happened: datetime | None, redelivered: bool):
    published = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    event = {"call_id": CALL, "kind": "started"} | ({"occurred_at": happened.isoformat()} if happened else {})
    scene.take(event, redelivered=redelivered, timestamp=published)
    sent = (await scene.passed.next()).message.timestamp
    assert sent == (happened or published), "it must not pass for a new one because it has waited"


async def test_what_concerns_no_life_of_a_call_is_acknowledged_and_nothing_is_sent(scene: Scene):
    ignored = json.loads(next(iter(SAMPLES.glob("asterisk_ari/*.json"))).read_text()) | {"type": "ChannelDtmfReceived"}
    assert await scene.take(ignored).wait() == "acked"
    assert scene.passed.deliveries.empty()


async def test_what_nobody_recognises_becomes_a_dead_letter_with_the_reason(scene: Scene):
    dead = await scene.wire.consume(scene.wire.names.dead_letters)
    assert await scene.take(b"no event").wait() == "acked"
    letter = await dead.next()
    assert (letter.message.headers["x-mcp-reason"], letter.message.body) == ("unrecognised", b"no event")
    assert scene.passed.deliveries.empty()


async def test_a_platform_of_an_exchange_is_believed_to_be_its_own():
    async with simulated_link() as wire:
        platforms: dict[str, Platform] = {"TAP": "freeswitch"}
        made = Intake(
            wire.names, wire.settler, wire.publisher, wire.rpc_client, Configured({}, (), Times()), platforms
        )  # fmt: skip
        dead = await wire.consume(wire.names.dead_letters)
        own = b'{"call_id": "c-1", "kind": "started"}'
        for exchange, goes in (("TAP", False), (Names().calls, True)):
            delivery, settled = delivered(None, own, queue=wire.names.calls, exchange=exchange, key="k")
            made.take(delivery)
            assert await settled.wait() == "acked"
            if not goes:
                assert "freeswitch" in (await dead.next()).message.headers["x-mcp-error"]
        assert dead.deliveries.empty()
        await made.detach()


async def test_with_its_link_an_intake_loses_what_it_took_and_the_broker_has_it_back(scene: Scene):
    settled = [scene.take({"call_id": CALL, "kind": kind}) for kind in ("ended", "started")]
    await scene.passed.next()
    await scene.intake.detach()
    assert [one.how for one in settled] == [[], []]
    assert await scene.intake.drain(0), "nothing is left of it"


async def test_draining_waits_for_what_was_taken(scene: Scene):
    settled = scene.take({"call_id": CALL, "kind": "ended"})
    end = await scene.passed.next()
    assert not await scene.intake.drain(0.01)
    draining = asyncio.create_task(scene.intake.drain(BOUND))
    await scene.answer(end)
    assert await draining
    assert settled.how == ["acked"]
