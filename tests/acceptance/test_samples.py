"""Every sample of every platform has the effect of its manifest line, with two workers that compete for them."""

import json
import uuid
from functools import partial
from pathlib import Path

from tests.harness import Cluster

SAMPLES = Path(__file__).resolve().parents[1] / "samples" / "call-events"
MANIFEST = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
SEQUENCES = json.loads((SAMPLES / "sequences.json").read_text())


def bodies(sample: dict, fresh: str) -> list[tuple[bytes, str]]:
    """The sample's body, and its raw form if it has one, with a call id of its own."""
    path = SAMPLES / sample["file"]
    own = sample.get("call_id")

    def renamed(text: str) -> bytes:
        return (text.replace(own, fresh) if own else text).encode()

    found = [(renamed(path.read_text()), sample.get("amqp", {}).get("content_type", "application/json"))]
    if (form := path.with_suffix(".form.txt")).exists():
        found.append((renamed(form.read_text()), "application/x-www-form-urlencoded"))
    return found


def fresh_id() -> str:
    return str(uuid.uuid4())


async def two_workers(mcp: Cluster) -> None:
    await mcp.start()
    await mcp.start()


async def test_every_sample_has_the_effect_of_its_manifest_line(mcp: Cluster):
    await two_workers(mcp)
    opened, ended, ignored = set(), set(), 0
    for sample in MANIFEST:
        for body, content_type in bodies(sample, call_id := fresh_id()):
            match sample["action"]:
                case "start" | "progress":
                    opened.add(call_id)
                case "end":
                    await mcp.client.publish_call_event({"call_id": call_id, "kind": "started"})
                    await mcp.event("created", session_id=call_id)
                    ended.add(call_id)
                case "ending":
                    await mcp.client.publish_call_event({"call_id": call_id, "kind": "started"})
                    await mcp.event("created", session_id=call_id)
                case "none":
                    ignored += 1
            await mcp.client.publish_call_event(body, content_type=content_type)
    await mcp.until(lambda: opened <= {event.subject for event in mcp.of("created")})
    await mcp.until(lambda: ended <= {event.subject for event in mcp.of("closed", reason="call_ended")})
    for event in mcp.of("created"):
        if event.subject in opened:
            assert event.data["metadata"]["call"]["call_id"] == event.subject

    await mcp.client.publish_call_event({"call_id": "marker", "kind": "started"})
    await mcp.event("created", session_id="marker")
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="ignored")) == ignored)
    known = opened | ended | {"marker"}
    strangers = [event.subject for event in mcp.of("created") if event.subject not in known]
    endings = [sample for sample in MANIFEST if sample["action"] == "ending"]
    assert len(strangers) == len(endings), strangers


async def test_every_sequence_has_its_net_effect(mcp: Cluster):
    await two_workers(mcp)
    samples = {sample["file"]: sample for sample in MANIFEST}
    published = 0
    for sequence in SEQUENCES * 3:
        renamed: dict[str, str] = {}
        for file in sequence["deliver"]:
            for own in (samples[file].get("call_id"), samples[file].get("related_call_id")):
                if own:
                    renamed.setdefault(own, fresh_id())
        for file in sequence["deliver"]:
            text = (SAMPLES / file).read_text()
            for own, fresh in renamed.items():
                text = text.replace(own, fresh)
            await mcp.client.publish_call_event(text.encode())
            published += 1
        calls = set(renamed.values())
        # A raw event is acknowledged when its effect is safe: an end when its taker has answered.
        await mcp.until(lambda: len(mcp.logged("delivery", queue=f"{mcp.prefix}.calls")) == published)  # noqa: B023
        await mcp.until(partial(nothing_is_open, mcp, calls))
        opened = [event.subject for event in mcp.of("created") if event.subject in calls]
        closed = [event.subject for event in mcp.of("closed") if event.subject in calls]
        expected = str(sequence["net"]["opened"])
        assert str(len(opened)) in expected, (sequence["name"], opened)
        assert sorted(closed) == sorted(opened), sequence["name"]


def nothing_is_open(mcp: Cluster, calls: set[str]) -> bool:
    def count(what: str) -> int:
        return sum(event.subject in calls for event in mcp.of(what))

    return count("created") == count("closed")
