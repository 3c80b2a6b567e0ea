"""Thousands of random messages of a client and of a publisher, beside live calls that must not notice.

What may really change a live call (its client may close it, its publisher may end it) is not drawn for one: there the
messages are forged, malformed, or under a wrong key.
"""

import asyncio
import json
import random
import string
import time
from typing import Any

import pytest

from consumer.client import SessionClient
from infra.broker import PrivateBroker
from schemas import headers
from schemas.events import CloudEvent
from schemas.ids import WorkerId
from schemas.internal import INTERNAL
from schemas.requests import MADE_OF_EVENTS, REQUESTS
from tests.broker_users import NAMES, url_of
from tests.harness import Cluster, config
from tests.security.broker.attacker import Attacker
from tests.security.broker.scene import Scene

LIVE = 50
SEED = 20
MEMORY = 48 << 20
"""How much (bytes) the two workers may have grown: what the allocator keeps of messages that are gone."""

WORKERS_WORDS = sorted({*MADE_OF_EVENTS, *(one.type for one in INTERNAL)})
TERMINAL = ("closed", "expired", "died", "lost")
OUR_HEADERS = sorted(value for value in vars(headers).values() if isinstance(value, str) and value.startswith("x-mcp-"))
KINDS: list[str | None] = [*REQUESTS, *(one.type for one in INTERNAL), *(f"{one}.reply" for one in REQUESTS), None, ""]


class Dice:
    """Draws messages; the same for the same seed."""

    def __init__(self, seed: int, live: list[str]) -> None:
        self._random = random.Random(seed)
        self._live = live

    def text(self) -> str:
        letters = self._random.choice((string.printable, "é🙂\x00#*.%", "#"))
        return "".join(self._random.choices(letters, k=self._random.choice((0, 1, 8, 60))))

    def value(self, depth: int = 0) -> Any:
        kinds = [self.text(), self._random.randint(-(2**62), 2**62), self._random.random() * 10**9, None, True, 0, -1]
        if depth < 3:
            kinds += [[self.value(depth + 1)], {self.text(): self.value(depth + 1)}]
        return self._random.choice(kinds)

    def _call(self) -> str:
        return self._random.choice((f"random-{self._random.randint(0, 40)}", self.text()))

    def kind(self) -> str | None:
        return self._random.choice([*KINDS, self.text()[:200], "k" * 255])

    def body(self, kind: str | None) -> bytes:
        fields = ("session_id", "call_id", "service_name", "name", "kind", "timeout", "metadata", "arguments", "limit")
        drawn = {name: self.value() for name in self._random.sample(fields, k=self._random.randint(0, 5))}
        sensible = {
            "session_id": self._call(),
            "call_id": self._call(),
            "service_name": self._random.choice(("echo", "nothing", "")),
            "name": self._random.choice(("echo", "cwd", "nothing")),
            "timeout": self._random.choice((0.2, 5, 1e300)),
            "worker_id": "w-random",
            "revision": 1,
        }
        model = REQUESTS.get(kind or "")
        if model is not None and self._random.random() < 0.6:
            drawn |= {name: value for name, value in sensible.items() if name in model.model_fields}
            drawn = {name: value for name, value in drawn.items() if name in model.model_fields}
        if self._random.random() < 0.1:
            return bytes(self._random.randbytes(self._random.choice((0, 10, 3000))))
        return json.dumps(drawn).encode()

    def headers(self) -> dict[str, Any]:
        names = [*OUR_HEADERS, "x-death", "x-first-death-queue", "traceparent", "x-mcp-exchange", self.text()[:50]]
        return {name: self.value() for name in self._random.sample(names, k=self._random.randint(0, 4)) if name}

    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = {"headers": self.headers(), "delivery_mode": self._random.choice((1, 2))}
        if self._random.random() < 0.5:
            found["reply_to"] = self._random.choice(
                ("amq.rabbitmq.reply-to", NAMES.unowned, NAMES.calls, NAMES.inbox(WorkerId("w")), "nobody", "r" * 255)
            )
        if self._random.random() < 0.3:
            found["expiration"] = str(self._random.choice((0, 1, 5000, 2**32 - 1)))
        if self._random.random() < 0.5:
            found["message_id"] = self.text()[:60]
        if self._random.random() < 0.5:
            found["correlation_id"] = self.text()[:60]
        return found

    def of_client(self) -> tuple[str, str, str | None, bytes, dict[str, Any]]:
        """A message of a client: where, under which key, what."""
        kind = self.kind()
        exchange = self._random.choice((NAMES.sessions, NAMES.requests, NAMES.cluster))
        body = self.body(kind)
        if self._random.random() < 0.3:  # aimed at a live call: forged, or under a key that is not its own
            live = self._random.choice(self._live)
            kind = self._random.choice([*WORKERS_WORDS, "session.close", "tools.call"])
            body = json.dumps({"session_id": live, "call_id": live, "kind": kind[5:], "worker_id": "w"}).encode()
            if kind not in ("session.close", "tools.call"):
                return exchange, live, kind, body, self.properties()
        named = _id_in(body)
        keys = [self._call()[:60], ""]
        if named and len(named.encode()) < 200 and named not in self._live:
            keys.append(named)
        return exchange, self._random.choice(keys), kind, body, self.properties()

    def of_publisher(self) -> tuple[str, str, str | None, bytes, dict[str, Any]]:
        """A message of a publisher; of calls that are not the live ones."""
        event = {"call_id": self._call(), "kind": self._random.choice(("started", "progress", "ended", "x"))}
        body = json.dumps(event).encode() if self._random.random() < 0.3 else self.body("session.create")
        key = "".join(filter(str.isprintable, self.text()))[:60]  # RabbitMQ's permissions know no other letters
        return NAMES.calls, key, self.kind(), body, self.properties()


def _id_in(body: bytes) -> str:
    try:
        named = json.loads(body)["session_id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return named.partition("#")[0] if isinstance(named, str) else ""


def untrue(events: list[CloudEvent], live: list[str]) -> list[str]:
    """What was told and cannot be: of a live call, or an end without a beginning, or a second one."""
    faults, open_now = [], set()
    for event in events:
        what, subject = event.type.rpartition(".")[2], str(event.subject)
        if event.type.startswith("mcp.session.") and subject in live and what != "created":
            faults.append(f"{what} of the live call {subject}")
        if what == "created":
            if subject in open_now:
                faults.append(f"{subject} was created twice")
            open_now.add(subject)
        elif what in TERMINAL:
            if subject not in open_now:
                faults.append(f"{subject} ended without being open: {what}")
            open_now.discard(subject)
    return faults


async def shoot(gun: Attacker, draw: Any, count: int) -> None:
    for _ in range(count):
        exchange, key, kind, body, properties = draw()
        await gun.send(exchange, key, kind, body, **properties)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(300, marks=pytest.mark.timeout(300)),
        pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1200)]),
    ],
)
async def test_random_messages_disturb_no_live_call(mcp: Cluster, node: PrivateBroker, count: int):
    configuration = config(session={"max_total_sessions": 100})
    for _ in range(2):
        await mcp.start(configuration, AMQP_URL=url_of(node, "worker"))
    async with (
        SessionClient(url_of(node, "publisher"), prefix=NAMES.prefix) as publisher,
        SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client,
        Attacker(url_of(node, "client")) as as_client,
        Attacker(url_of(node, "publisher")) as as_publisher,
    ):
        scene = Scene(mcp, publisher, client)
        await scene.live(LIVE)
        dice = Dice(SEED, scene.calls)
        before = await scene.state()

        async def volley(shots: int) -> float:
            async with scene.pulse() as pulse:
                await asyncio.gather(
                    shoot(as_client, dice.of_client, shots // 2), shoot(as_publisher, dice.of_publisher, shots // 2)
                )
            return pulse.worst

        worst = await volley(count // 10)  # what is kept by right (ends, answers, metrics) has its size after that
        memory = scene.memory()
        began = time.monotonic()
        worst = max(worst, await volley(count - count // 10))
        took = time.monotonic() - began
        await all_is_handled(node)
        grown = scene.memory() - memory
        print(f"\n{count} messages, {took:.0f} s; slowest live call {worst * 1000:.0f} ms; grown {grown >> 20} MiB")  # noqa: T201
        after = await scene.state()
        assert {name: one for name, one in after.sessions.items() if name in scene.calls} == before.sessions
        assert untrue(mcp.events, scene.calls) == []
        assert grown < MEMORY
        assert not mcp.logged("delivery.defect")
        assert not mcp.logged("broker.lost")
        for call in scene.calls:
            assert (await client.call_tool(call, "echo", {"text": call})).text == call


async def all_is_handled(node: PrivateBroker) -> None:
    """Wait until the queues that all workers share are empty."""
    shared = {NAMES.calls, NAMES.unowned, NAMES.queries}
    async with asyncio.timeout(120):
        while True:
            told = await asyncio.to_thread(
                node.rabbitmqctl, "list_queues", "name", "messages", "--silent", "--no-table-headers"
            )
            rows = [line.split("\t") for line in told.splitlines()]
            if not any(int(count) for name, count in rows if name in shared):
                return
            await asyncio.sleep(0.3)
