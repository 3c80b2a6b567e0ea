"""Every sample of every platform has the effect of its manifest line, with two workers that compete for them."""

import json
import uuid
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.harness import FORKED, Cluster, config

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "call-events"
MANIFEST = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
REJECTS = [json.loads(line) for line in (SAMPLES / "rejects.jsonl").read_text().splitlines()]
SEQUENCES = json.loads((SAMPLES / "sequences.json").read_text())
AT_ONCE = 12
"""Sequences that are played at the same time: each opens a process or two."""


def bodies(sample: dict) -> list[tuple[bytes, str, str]]:
    """The sample's body, and its raw form if it has one, each with its content type and a call id of its own."""
    path = SAMPLES / sample["file"]
    found = [(path, sample.get("amqp", {}).get("content_type", "application/json"))]
    if (form := path.with_suffix(".form.txt")).exists():
        found.append((form, "application/x-www-form-urlencoded"))
    own = sample.get("call_id")
    return [
        ((text.replace(own, call) if own else text).encode(), content_type, call)
        for text, content_type, call in ((file.read_text(), content_type, fresh_id()) for file, content_type in found)
    ]


def fresh_id() -> str:
    return str(uuid.uuid4())


def asterisks(mcp: Cluster) -> str:
    """The exchange that is configured as Asterisk's own."""
    return f"{mcp.prefix}.asterisk"


async def two_workers(mcp: Cluster) -> None:
    own = {"exchange": asterisks(mcp), "platform": "asterisk"}
    given = config(worker={"call_exchanges": [own]}, **FORKED)
    await mcp.start(given)
    await mcp.start(given)


async def publish(mcp: Cluster, sample: dict, body: bytes, content_type: str = "application/json") -> None:
    exchange = asterisks(mcp) if sample.get("platform") == "asterisk" else None
    await mcp.client.publish_call_event(body, content_type=content_type, exchange=exchange)


async def test_every_sample_has_the_effect_of_its_manifest_line(mcp: Cluster):
    await two_workers(mcp)
    known: set[str] = set()
    for _, platform in groupby(MANIFEST, key=lambda sample: sample["file"].partition("/")[0]):
        known |= await has_the_effect(mcp, list(platform))
    ignored = sum(len(bodies(sample)) for sample in MANIFEST if sample["action"] == "none")
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="ignored")) == ignored)
    strangers = [event.subject for event in mcp.of("created") if event.subject not in known]
    assert not strangers


async def has_the_effect(mcp: Cluster, samples: list[dict]) -> set[str]:
    """Publish one platform's samples, wait for what they do, and end the calls again; returns their ids."""
    played = [(sample, call, body, content_type) for sample in samples for body, content_type, call in bodies(sample)]
    there = {call for sample, call, *_ in played if sample["action"] in ("end", "ending")}
    for call in there:
        await mcp.client.publish_call_event({"call_id": call, "kind": "started"})
    await mcp.until(lambda: there <= subjects(mcp, "created"))
    for sample, _, body, content_type in played:
        await publish(mcp, sample, body, content_type)
    opened = {call for sample, call, *_ in played if sample["action"] in ("start", "progress")}
    ended = {call for sample, call, *_ in played if sample["action"] == "end"}
    await mcp.until(lambda: opened <= subjects(mcp, "created"))
    await mcp.until(lambda: ended <= subjects(mcp, "closed"))
    for event in mcp.of("created"):
        if event.subject in opened:
            assert event.data["metadata"]["call"]["call_id"] == event.subject
    for call in (opened | there) - ended:
        await mcp.client.publish_call_event({"call_id": call, "kind": "ended"})
    await mcp.until(lambda: opened | there <= subjects(mcp, "closed"))
    return opened | there


def subjects(mcp: Cluster, what: str) -> set[str]:
    return {str(event.subject) for event in mcp.of(what)}


async def test_a_body_whose_call_cannot_be_known_becomes_a_dead_letter_with_the_reason(mcp: Cluster):
    await two_workers(mcp)
    for line in REJECTS:
        await mcp.client.publish_call_event((SAMPLES / line["file"]).read_bytes())
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) == len(REJECTS))
    assert not mcp.of("created")


async def test_every_sequence_has_its_net_effect(mcp: Cluster):
    await two_workers(mcp)
    published = 0
    for together in (SEQUENCES[at : at + AT_ONCE] for at in range(0, len(SEQUENCES), AT_ONCE)):
        played = [(sequence, dict(fresh_ids(sequence))) for sequence in together]
        for sequence, ids in played:
            for file in sequence["deliver"]:
                text = (SAMPLES / file).read_text()
                for own, fresh in ids.items():
                    text = text.replace(own, fresh)
                await publish(mcp, by_file(file), text.encode())
                published += 1
        # A raw event is acknowledged when its effect is safe: an end when its taker has answered.
        await mcp.until(partial(taken, mcp, published))
        for sequence, ids in played:
            published += await has_the_net_effect(mcp, sequence, set(ids.values()))


async def has_the_net_effect(mcp: Cluster, sequence: dict, calls: set[str]) -> int:
    """Wait for a sequence's effect; returns how many events had to be published to end its calls."""
    net, more = sequence["net"], 0
    if net["closed"] == 0:  # the platform tells of no end
        await mcp.until(lambda: len(calls & subjects(mcp, "created")) == net["opened"])
        assert not calls & subjects(mcp, "closed")
        for call in calls:
            await mcp.client.publish_call_event({"call_id": call, "kind": "ended"})
            more += 1
    await mcp.until(lambda: count(mcp, "created", calls) == count(mcp, "closed", calls))
    opened = [event.subject for event in mcp.of("created") if event.subject in calls]
    closed = [event.subject for event in mcp.of("closed") if event.subject in calls]
    assert str(len(opened)) in str(net["opened"]), (sequence["name"], opened)
    assert sorted(closed) == sorted(opened), sequence["name"]
    return more


def fresh_ids(sequence: dict) -> Iterator[tuple[str, str]]:
    """A new id for each call of a sequence; an id that another one begins with comes after it."""
    own = {by_file(file).get(name) for file in sequence["deliver"] for name in ("call_id", "related_call_id")}
    return ((one, fresh_id()) for one in sorted(filter(None, own), key=len, reverse=True))


def by_file(file: str) -> dict[str, Any]:
    return next(sample for sample in MANIFEST if sample["file"] == file)


def taken(mcp: Cluster, published: int) -> bool:
    return len(mcp.logged("delivery", queue=f"{mcp.prefix}.calls")) == published


def count(mcp: Cluster, what: str, calls: set[str]) -> int:
    return sum(event.subject in calls for event in mcp.of(what))
