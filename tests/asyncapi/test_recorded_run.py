"""The document names every message of a real run, where it was sent, and says what is in it."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from consumer.asyncapi import document
from consumer.asyncapi.messages import UNTYPED
from consumer.asyncapi.payloads import CALL_EVENT, DEAD_LETTER, PLATFORM_EVENT, message_types
from consumer.broker.topology import Names, cluster_topology
from consumer.client import Answer, SessionClient
from schemas.errors import InvalidMessage, OutcomeUnknown, ServiceNotFound, SessionNotFound, SessionsError, UnknownType
from schemas.interim import InputRequired, ToolsPending, ToolsProgress
from tests.asyncapi.tap import Published, Tap
from tests.harness import ECHO, ROOT, Cluster, WorkerProcess

pytestmark = pytest.mark.timeout(240)

PLATFORM = ROOT / "tests" / "samples" / "call-events" / "freeswitch_amqp" / "CHANNEL_CREATE_inbound.json"
SCHEMAS = ROOT / "docs" / "schemas"

NEVER_SEEN: dict[str, str] = {}
"""What the document names and this run does not produce, with the reason."""

REFUSED = "'colour' was unexpected"
"""What the one message does wrong that is sent to be refused."""

UNTYPED_REQUEST = "none"
"""What the run sends without a type, to be refused."""

CONFIGURATION = {
    "services": {
        "echo": {"command": ECHO},
        "brief": {"command": ECHO, "timeout": 0.5},
        "broken": {"command": [sys.executable, "-c", "raise SystemExit('no licence')"]},
    },
    "routes": [
        {"match": {"to": "nobody"}, "services": ["broken"]},
        {"match": {"to": "rings"}, "services": ["echo"], "start": "answered"},
        {"match": {}, "services": ["echo"]},
    ],
    "worker": {"grace": 1.5},
}


@dataclass
class Recording:
    """Workers and a client whose every message is kept."""

    mcp: Cluster
    client: SessionClient
    taps: AsyncExitStack
    kept: list[Published]

    ways: dict[str, Tap] = field(default_factory=dict)
    """Each worker's way to the broker."""

    async def tap(self) -> Tap:
        return await self.taps.enter_async_context(Tap(self.mcp.url, self.kept.append))

    async def start(self) -> None:
        way = await self.tap()
        worker = await self.mcp.start(CONFIGURATION, AMQP_URL=way.url)
        self.ways[worker.worker_id] = way

    def worker(self, worker_id: str) -> WorkerProcess:
        return next(one for one in self.mcp.workers if one.worker_id == worker_id)


@pytest.fixture
async def recording(mcp: Cluster) -> AsyncIterator[Recording]:
    kept: list[Published] = []
    async with AsyncExitStack() as taps:
        made = Recording(mcp, mcp.client, taps, kept)
        tap = await made.tap()
        made.client = await taps.enter_async_context(SessionClient(tap.url, prefix=mcp.prefix))
        yield made
        for worker in mcp.workers:  # before their way to the broker goes
            await worker.kill()


async def test_every_message_of_a_run_is_in_the_document_and_fits_its_schema(recording: Recording):
    mcp = recording.mcp
    await recording.start()
    await calls(recording)
    await sessions(recording.client, mcp)
    await tools(recording.client)
    await more_of_mcp(recording.client, mcp)
    await questions_to_the_cluster(recording.client)
    await what_is_refused(recording.client, mcp)
    await recording.start()
    await sessions_of_all_workers(recording, 2)
    await a_worker_that_leaves(recording)
    await recording.start()
    await sessions_of_all_workers(recording, 2)
    await a_worker_that_was_away(recording)

    described = document(Names(mcp.prefix), cluster_topology(Names(mcp.prefix)))
    faults = [fault for one in recording.kept for fault in faults_of(one, described, mcp.prefix)]
    assert [fault for fault in faults if REFUSED not in fault] == []
    assert len(faults) == 1, "what a worker refuses does not fit"
    seen = {kind_of(one, mcp.prefix) for one in recording.kept} - {UNTYPED_REQUEST}
    print(f"\n{len(recording.kept)} messages of {len(seen)} types")  # noqa: T201
    assert seen == set(message_types()) - set(NEVER_SEEN)


async def calls(recording: Recording) -> None:
    client, mcp = recording.client, recording.mcp
    await client.publish_call_event(PLATFORM.read_bytes())
    opened = await mcp.event("created")
    assert opened.data["metadata"]["call"]["source"] == "freeswitch_amqp"
    await client.publish_call_event({"call_id": "own", "kind": "started", "direction": "inbound", "from": "+1555"})
    await mcp.event("created", session_id="own")
    for kind in ("progress", "ended"):
        await client.publish_call_event({"call_id": "own", "kind": kind})
    await mcp.event("closed", session_id="own", reason="call_ended")
    for kind in ("started", "progress", "ended"):
        with pytest.raises(InvalidMessage, match="only workers publish"):
            await client.request(f"call.{kind}", {"call_id": "asked", "kind": kind}, call_id="asked")
    await client.publish_call_event({"call_id": "hopeless", "kind": "started", "to": "nobody"})
    await mcp.event("rejected", session_id="hopeless")
    await client.publish_call_event({"nobody": "sends this"})
    await a_call_that_rings(client, mcp)


async def a_call_that_rings(client: SessionClient, mcp: Cluster) -> None:
    rings = {"call_id": "rings", "to": "rings", "attributes": {"call_state": "ringing"}}
    await client.publish_call_event(rings | {"kind": "started"})
    await mcp.until(lambda: mcp.logged("delivery", call_id="rings", outcome="reserved"))
    await client.publish_call_event(rings | {"kind": "progress", "attributes": {"call_state": "answered"}})
    await mcp.event("created", session_id="rings")
    await client.publish_call_event({"call_id": "rings", "kind": "ended"})
    assert (await mcp.event("closed", session_id="rings")).data["tools"]["start"] == "reserved"


async def sessions(client: SessionClient, mcp: Cluster) -> None:
    await client.create("c", "echo", timeout=600, metadata={"tenant": "acme"})
    await client.create("c", "echo")
    await client.get("c")
    await client.touch("c")
    await client.create("late", "brief")
    await mcp.event("expired", session_id="late")
    await client.create("frail", "echo")
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("frail", "die", {"code": 3, "stderr": "out of paper"})
    await mcp.event("died", session_id="frail")
    await client.create("short", "echo")
    await client.close("short")
    await client.close("short")


async def tools(client: SessionClient) -> None:
    heard: list[Any] = []

    async def hear(message: ToolsProgress | ToolsPending) -> None:
        heard.append(message)

    async def answer(question: InputRequired) -> Answer:
        return {"action": "accept", "content": {"answer": question.params["message"]}}

    await client.list_tools("c")
    await client.call_tool("c", "content")
    await client.call_tool("c", "fail")
    await client.call_tool("c", "progress", {"steps": 2}, on_progress=hear)
    await client.call_tool("c", "sleep", {"seconds": 0.3}, pending_after=0.01, on_pending=hear)
    assert {type(one) for one in heard} == {ToolsProgress, ToolsPending}
    await client.call_tool("c", "ask", on_question=answer)
    await client.list_resources("c")
    await client.list_resource_templates("c")
    await client.read_resource("c", "note://one")
    await client.list_prompts("c")
    await client.get_prompt("c", "greet", {"who": "Ada"})


async def more_of_mcp(client: SessionClient, mcp: Cluster) -> None:
    logged: list[Any] = []
    await client.describe("c")
    await client.describe_service("echo")
    await client.complete("c", {"type": "ref/prompt", "name": "greet"}, {"name": "who", "value": "A"})
    await client.set_logging_level("c", "debug")
    await client.call_tool("c", "log", on_log=logged.append)
    assert logged
    await client.subscribe_resource("c", "note://one")
    await client.call_tool("c", "touch")
    await mcp.event("resource_updated", session_id="c")
    await client.unsubscribe_resource("c", "note://one")
    changed: list[Any] = []
    await client.call_tool("c", "add_tool", {"name": "new"}, on_change=changed.append)
    assert changed
    await mcp.event("list_changed", session_id="c")
    await client.cancel_tool("c", "no-such-key")


async def questions_to_the_cluster(client: SessionClient) -> None:
    page = await client.list_sessions(limit=1)
    await client.list_sessions(limit=1, cursor=page.next_cursor)
    await client.list_sessions(service_name="echo")
    await client.list_services()
    await client.service_tools("echo")
    await client.list_workers()
    await client.worker_figures()


async def what_is_refused(client: SessionClient, mcp: Cluster) -> None:
    refusals: list[tuple[type[SessionsError], Any]] = [
        (SessionNotFound, client.get("nobody")),
        (ServiceNotFound, client.create("x", "nothing")),
        (InvalidMessage, client.request("session.get", {"session_id": "c", "colour": "red"}, call_id="c")),
        (UnknownType, client.request("", {}, call_id="c")),
    ]
    for error, refused in refusals:
        with pytest.raises(error):
            await refused
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) >= 3)


async def sessions_of_all_workers(recording: Recording, workers: int) -> None:
    """The client's question makes the workers ask each other."""
    async with asyncio.timeout(45):
        while len((await recording.client.list_workers()).workers) < workers:
            pass  # each question takes its time
    listed = await recording.client.list_sessions()
    assert listed.complete
    assert len((await recording.client.worker_figures()).workers) > 0


async def a_worker_that_leaves(recording: Recording) -> None:
    await recording.client.create("handed-over", "echo")
    info = await recording.client.get("handed-over")
    assert await recording.worker(info.worker_id).terminate() == 0
    await recording.mcp.event("created", session_id="handed-over", restored=True)


async def a_worker_that_was_away(recording: Recording) -> None:
    """Cut off for longer than the grace: its session is lost and opened elsewhere, and it is told so."""
    mcp, client = recording.mcp, recording.client
    info = await client.create("away", "echo")
    await client.get("away")  # by then its creation is acknowledged, which would be carried out elsewhere otherwise
    way = recording.ways[info.worker_id]
    await way.cut()
    await mcp.event("lost", session_id="away")
    await mcp.event("created", session_id="away", restored=True)
    way.mend()
    await mcp.until(lambda: mcp.logged("owner.ends_left_to_placer", call_id="away"))
    assert (await client.call_tool("away", "echo", {"text": "again"})).restored is True
    await client.publish_call_event({"call_id": "away", "kind": "ended"})
    await mcp.event("closed", session_id="away", reason="call_ended")


# What the document says.


def kind_of(one: Published, prefix: str) -> str:
    if one.exchange == f"{prefix}.dead":
        return DEAD_LETTER
    if one.exchange == f"{prefix}.calls":
        return CALL_EVENT if "kind" in json.loads(one.body) else PLATFORM_EVENT
    return one.properties.message_type or UNTYPED_REQUEST


def faults_of(one: Published, described: dict[str, Any], prefix: str) -> Iterator[str]:
    """Whether a channel of where the message was sent has it, and whether its headers and body fit."""
    kind = kind_of(one, prefix)
    told = f"{kind} to {one.exchange!r} under {one.routing_key!r}"
    if kind == UNTYPED_REQUEST and one.exchange == f"{prefix}.requests":
        return
    if not one.exchange and one.routing_key.startswith("nobody."):
        return  # a worker tries its signature on what no queue takes
    if not any(kind in channel["messages"] for channel in places(one, described)):
        yield f"{told}: no channel has it"
        return
    message = described["components"]["messages"][kind]
    headers = {"components": described["components"], **message["headers"]}
    for fault in Draft7Validator(headers).iter_errors(one.headers):
        yield f"{told}: header {fault.json_path}: {fault.message}"
    if kind not in UNTYPED - {CALL_EVENT}:
        for fault in validator(kind).iter_errors(json.loads(one.body)):
            told_more = "; ".join(f"{inner.json_path}: {inner.message}" for inner in fault.context or ())
            yield f"{told}: {fault.json_path}: {fault.message[:300]} {told_more}"


def places(one: Published, described: dict[str, Any]) -> list[dict[str, Any]]:
    """The channels of an exchange, or of the queue that the default exchange leads to: ours, or who asked."""
    channels: list[dict[str, Any]] = list(described["channels"].values())
    if one.exchange:
        return [
            one_of for one_of in channels if one_of["bindings"]["amqp"].get("exchange", {}).get("name") == one.exchange
        ]
    ours = [channel for channel in channels if is_queue(channel, one.routing_key)]
    return ours or [described["channels"]["replies"]]


def is_queue(channel: dict[str, Any], name: str) -> bool:
    if "queue" not in channel["bindings"]["amqp"]:
        return False
    pattern = re.sub(r"\\\{\w+\\\}", r"[^.]+", re.escape(channel["address"]))
    return re.fullmatch(pattern, name) is not None


VALIDATORS: dict[str, Draft7Validator] = {}


def validator(kind: str) -> Draft7Validator:
    """The schema of the committed file, closed: in a test even what may grow has nothing that it does not name."""
    if kind not in VALIDATORS:
        schema = closed(json.loads(Path(SCHEMAS / f"{kind}.json").read_text(encoding="utf-8")))
        Draft7Validator.check_schema(schema)
        VALIDATORS[kind] = Draft7Validator(schema)
    return VALIDATORS[kind]


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **inner} if "properties" in schema else inner
