"""Any bytes as properties and headers, at every queue that a stranger can write to, beside a live call."""

import asyncio
import json
import re
import struct
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic

from consumer.broker.dead_letter import DeadLetter
from consumer.broker.dead_letter_queue import DeadLetterQueue
from consumer.broker.link import Link
from consumer.broker.topology import Queue
from consumer.cli import dead_letter_screen
from schemas.ids import WorkerId
from tests.acceptance.live_call import live_call
from tests.amqp_values import of_type
from tests.cli.conftest import Cli
from tests.harness import Cluster
from tests.raw_amqp import PROPERTIES, RawPublisher, Refused, short

AT_ONCE: Final = 5
"""At how many places in turn the same properties are published; making them up takes longer than publishing."""

SETTLED: Final = 60.0
"""How long (s) the worker has to deal with all of them; orphans wait for five seconds."""

TYPES: Final = st.one_of(
    st.sampled_from(
        [b"session.create", b"session.close", b"tools.call", b"call.ended", b"sessions.list", b"call.recipe"]
    ),
    of_type("shortstr").map(lambda value: value[1:]),
).map(short)

properties: Final = st.fixed_dictionaries(
    {},
    optional={
        # RabbitMQ takes no other user than the publisher's own, and no expiration or delivery mode that is none
        name: TYPES
        if name == "type"
        else of_type(Basic.Properties.amqp_type("message_type" if name == "type" else name))
        for name in PROPERTIES
        if name not in ("user_id", "expiration", "delivery_mode")
    },
)


@dataclass(frozen=True)
class Target:
    """Where a stranger publishes; what is ``kept`` there is handled or a dead letter, the rest is only overheard."""

    exchange: str
    key: bytes
    kept: bool = True


def targets(mcp: Cluster) -> list[Target]:
    """Every exchange and queue of a worker, of a client, and the dead-letter queue itself."""
    names, worker = mcp.client.names, mcp.workers[0]
    token = next(str(one["link"]) for one in worker.records if one["event"] == "broker.attached")
    worker_id = WorkerId(worker.worker_id)
    return [
        Target(names.calls, b"any.key"),
        Target(names.sessions, b"nobody"),
        Target(names.sessions, b"live"),
        Target(names.requests, b"nobody"),
        Target(names.requests, b"live"),
        Target(names.unowned, b""),
        Target(names.orphans, b""),
        Target("", names.queries.encode()),
        Target("", names.inbox(worker_id).encode()),
        Target("", names.requests_of(worker_id, token).encode()),
        Target("", names.dead_letters.encode()),
        Target(names.dead_letters, b""),
        Target(names.workers, b"", kept=False),
        Target("", names.worker(worker_id, token).encode(), kept=False),
        Target(names.events, b"session.created.any", kept=False),
        Target("", mcp.client._connection._rpc_client.reply_to.encode(), kept=False),
    ]


def publish_all(mcp: Cluster, messages: int) -> tuple[dict[str, str], int]:
    """Publish so many. Returns by its body what must be a dead letter in the end, and the number of good events."""
    kept: dict[str, str] = {}
    taken = good = 0
    where, turn = cycle(targets(mcp)), count()

    @settings(
        max_examples=2 * messages // AT_ONCE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(properties, st.one_of(st.none(), st.binary(max_size=60)))
    def publish(given: dict[str, bytes], noise: bytes | None) -> None:
        nonlocal taken, good
        flags = sum(1 << 15 - PROPERTIES.index(name) for name in given)
        encoded = b"".join(given.get(name, b"") for name in PROPERTIES)
        if noise is not None and next(turn) % 20 == 0:  # most of it RabbitMQ takes from nobody
            encoded = noise
        for target in islice(where, AT_ONCE if taken < messages else 0):
            is_event = target.exchange == mcp.client.names.calls and taken % 2 == 0
            body = json.dumps({"call_id": f"c-{taken}", "kind": "ended"}) if is_event else f"message {taken}"
            try:
                raw.publish_encoded(target.exchange, target.key, body.encode(), struct.pack(">H", flags) + encoded)
            except Refused:
                return
            taken += 1
            good += is_event
            if target.kept and not is_event:
                kept[body] = f"{target.exchange} {target.key!r} {given}"

    with RawPublisher(mcp.url) as raw:
        publish()
    assert taken >= messages, "RabbitMQ refused too many"
    return kept, good


async def everything_in(lot: DeadLetterQueue) -> list[DeadLetter]:
    found: list[DeadLetter] = []

    def visit(letter: DeadLetter) -> bool:
        found.append(letter)
        return True

    await lot.look(visit)
    return found


async def all_in(lot: DeadLetterQueue, kept: dict[str, str]) -> list[DeadLetter]:
    """The dead letters, when all that must be is there."""
    missing = set(kept)
    try:
        async with asyncio.timeout(SETTLED):
            while missing:
                found = await everything_in(lot)
                missing = kept.keys() - {one.message.body.decode() for one in found}
    except TimeoutError:
        raise AssertionError(f"{len(missing)} are neither handled nor dead letters: {kept[min(missing)]}") from None
    return found


async def ready_in(link: Link, names: list[str]) -> dict[str, int]:
    """The queues that are not empty."""
    async with link.scratch() as channel:
        counts = {name: await channel.declare_queue(Queue(name, ""), passive=True) for name in names}
    return {name: ready for name, ready in counts.items() if ready}


async def emptied(link: Link, names: list[str]) -> None:
    left: dict[str, int] = {}
    try:
        async with asyncio.timeout(SETTLED):
            while left := await ready_in(link, names):
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"messages are left: {left}") from None


@pytest.mark.timeout(240)
@pytest.mark.parametrize("messages", [500, pytest.param(2_000, marks=pytest.mark.long)])
async def test_any_message_is_handled_or_becomes_a_dead_letter_that_can_be_shown_replayed_and_dropped(
    mcp: Cluster, link: Link, tmp_path: Path, messages: int
):
    names, cli = mcp.client.names, Cli(tmp_path, AMQP_URL=mcp.url, MCP_SESSIONS_PREFIX=mcp.prefix)
    shared = [names.calls, names.unowned, names.orphans, names.queries]
    async with live_call(mcp) as live:
        kept, good = await asyncio.to_thread(publish_all, mcp, messages)
        await mcp.until(lambda: len(mcp.logged("delivery", outcome="translated", kind="ended")) >= good, within=SETTLED)
        lot = DeadLetterQueue(link, names)
        letters = await all_in(lot, kept)
        await live.undisturbed()
        for one in letters:
            json.dumps(dead_letter_screen.fields(one) | dead_letter_screen.whole(one), allow_nan=False).encode()

        listed = (await cli("dead-letters", "list", "--limit", "65535", "--json")).json
        assert (listed["total"], listed["complete"]) == (len(letters), True)
        shown = listed["dead_letters"][len(letters) // 2]["id"]
        assert (await cli("dead-letters", "show", shown, "--json")).json["id"] == shown
        replayed = (await cli("dead-letters", "replay", "--all", "--json")).json
        assert len(replayed["replayed"]) + len(replayed["kept"]) == len(letters)
        assert replayed["replayed"]
        for one in replayed["kept"]:  # what nobody vouches for, or nobody knows where it came from
            assert re.search("is unknown|only workers send|no queue takes", one["problem"]), one
        letters = await all_in(lot, kept)
        await live.undisturbed()
        dropped = (await cli("dead-letters", "drop", "--all", "--json")).json["dropped"]
        assert len(dropped) == len(letters)
        await emptied(link, [*shared, names.dead_letters])
    await mcp.client.close("live")
    await mcp.workers[0].terminate()  # what it held without settling it is in its queue again
    assert not await ready_in(link, [*shared, names.dead_letters])
