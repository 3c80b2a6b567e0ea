"""What is answered of the whole cluster: lists in pages that are put together of what each worker has, and figures."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.broker.message import Delivery
from consumer.broker.rpc import RpcClient
from consumer.broker.topology import Binding, Queue
from consumer.calls import queries
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Configured
from consumer.calls.queries import Queries
from consumer.processes.service import MCPService
from consumer.sessions import SessionManager
from schemas.base import Json
from schemas.errors import ErrorCode, ServiceNotFound
from schemas.ids import ServiceName, SessionId, WorkerId
from schemas.internal import FiguresScatter, PresenceReport, SessionsScatter
from schemas.replies import Reply, parse_reply
from schemas.sessions import ServiceLoad, WorkerInfo
from tests.calls.owner_parts import Times
from tests.calls.presences import presence_of
from tests.calls.simulated_link import BOUND, SimulatedLink, delivered, simulated_link
from tests.sessions.processes import Remote

ECHO, OTHER = ServiceName("echo"), ServiceName("other")
W1, W2, W3 = (WorkerId(f"w-{number}") for number in (1, 2, 3))


class NoCatalogue:
    """A catalogue that knows what this test has configured."""

    async def get_service_tools(self, service_name: str) -> list[Json]:
        return [{"name": f"tool of {service_name}"}]

    async def describe_service(self, service_name: str) -> Json:
        raise ServiceNotFound(f"{service_name} went away")


@dataclass
class Member:
    """A worker, as far as it answers queries."""

    worker_id: WorkerId
    queries: Queries
    sessions: SessionManager[Any]
    presence: Presence
    silent: bool = False
    """Whether it hears and does not answer."""

    def report(self, *others: WorkerId) -> None:
        """Who is there."""
        for worker in (self.worker_id, *others):
            load = ServiceLoad(sessions=1, max_sessions=3, description="d", transport="stdio")
            info = WorkerInfo(
                worker_id=worker, host="h", pid=1, version="1", state="ready", started_at=datetime.now(UTC),
                sessions=1, capacity=9, services={ECHO: load},
            )  # fmt: skip
            self.presence.heard(PresenceReport(worker=info), self.worker_id)
        self.presence.asked()
        for seen in self.presence._table.values():
            seen.asked_at = None  # they have answered

    async def ask(self, wire: SimulatedLink, kind: str, body: Json | None = None) -> Reply:
        raw = json.dumps(body or {}).encode()
        names = wire.names
        replies: asyncio.Queue[Delivery] = asyncio.Queue()
        channel, queue = await wire.link.channel(), Queue(f"asker-{id(replies)}", "", exclusive=True)
        await channel.declare_queue(queue)
        await channel.consume(queue.name, replies.put_nowait, no_ack=True)
        delivery, settled = delivered(
            kind, raw, queue=names.queries, exchange=names.cluster, reply_to=queue.name, correlation_id="q"
        )
        self.queries.take(delivery)
        async with asyncio.timeout(BOUND):
            reply = parse_reply((await replies.get()).message.body)
        assert await settled.wait() == "acked"
        return reply


async def member(wire: SimulatedLink, worker_id: WorkerId) -> Member:
    rpc_client = RpcClient(wire.publisher)
    sessions: SessionManager[Any] = SessionManager()
    presence = presence_of(worker_id)
    made = Queries(
        worker_id, wire.names, wire.settler, rpc_client, sessions=sessions, catalogue=NoCatalogue(),
        presence=presence, figures=Figures(), is_placer=lambda: worker_id == W1,
        configured=Configured({ECHO: MCPService(name=ECHO, command=["echo", "--token=hush"])}, (), Times()),
    )  # fmt: skip
    one = Member(worker_id, made, sessions, presence)

    def hear(delivery: Delivery) -> None:
        if delivery.type in (SessionsScatter.type, FiguresScatter.type):
            if delivery.message.reply_to != rpc_client.reply_to and not one.silent:
                made.take_scatter(delivery)
        else:
            rpc_client.receive(delivery)

    channel, queue = await wire.link.channel(), Queue(f"{worker_id}-hears", "", exclusive=True)
    await channel.declare_queue(queue)
    await channel.bind(Binding(wire.names.workers, queue.name))
    await channel.consume(queue.name, hear, no_ack=True)
    rpc_client.attach(queue.name)
    return one


@dataclass
class Three:
    """Three workers on one broker."""

    wire: SimulatedLink
    members: list[Member]

    async def open(self, where: int, session_id: str, service: ServiceName = ECHO) -> None:
        await self.members[where].sessions.open_session(SessionId(session_id), service, Remote.start)

    async def ask(self, kind: str, body: Json | None = None, *, where: int = 0) -> Reply:
        return await self.members[where].ask(self.wire, kind, body)


@asynccontextmanager
async def three() -> AsyncIterator[Three]:
    async with simulated_link() as wire:
        members = [await member(wire, one) for one in (W1, W2, W3)]
        for one in members:
            one.report(*(other.worker_id for other in members if other is not one))
        yield Three(wire, members)
        for one in members:
            await one.queries.detach()
            await one.sessions.shutdown()


@pytest.fixture
async def cluster() -> AsyncIterator[Three]:
    async with three() as made:
        yield made


IDS = st.lists(
    st.tuples(st.integers(0, 2), st.text("ab#é\ud7ff", min_size=1, max_size=4), st.sampled_from([ECHO, OTHER])),
    unique_by=lambda one: one[1],
    max_size=9,
)


@settings(max_examples=40)
@given(held=IDS, limit=st.integers(1, 4), service=st.sampled_from([None, ECHO]), where=st.integers(0, 2))
def test_pages_put_together_are_what_the_workers_have(
    held: list[tuple[int, str, ServiceName]], limit: int, service: ServiceName | None, where: int
):
    async def pages() -> list[list[str]]:
        async with three() as cluster:
            for at, session_id, of in held:
                await cluster.open(at, session_id, of)
            found: list[list[str]] = []
            cursor: str | None = None
            while True:
                asked = {"limit": limit, "service_name": service, "cursor": cursor}
                page = (await cluster.ask("sessions.list", asked, where=where)).unwrap()
                assert (page["complete"], page["missing_workers"]) == (True, [])
                found.append(list(page["sessions"]))
                if (cursor := page.get("next_cursor")) is None:
                    return found

    found = asyncio.run(pages())
    assert all(len(page) == limit for page in found[:-1])
    assert [one for page in found for one in page] == sorted(
        session_id for _, session_id, of in held if service in (None, of)
    )


async def test_a_list_may_be_of_one_call_or_of_one_worker(cluster: Three):
    for where, session_id in ((0, "c-1"), (1, "c-1#other"), (2, "c-2")):
        await cluster.open(where, session_id)
    for asked, found in (
        ({"call_id": "c-1"}, ["c-1", "c-1#other"]),
        ({"worker_id": W3}, ["c-2"]),
        ({"worker_id": W1}, ["c-1"]),
        ({"worker_id": "w-unknown"}, []),
        ({"call_id": "c-2", "worker_id": W1}, []),
    ):
        page = (await cluster.ask("sessions.list", asked)).unwrap()
        assert (list(page["sessions"]), page["complete"]) == (found, True), asked
    told = (await cluster.ask("sessions.list", {"worker_id": W3})).unwrap()["sessions"]["c-2"]
    assert (told["worker_id"], told["service_name"]) == (W3, ECHO)


async def test_who_does_not_answer_is_named_and_what_the_others_have_is_told(
    cluster: Three, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queries, "GATHER_TIMEOUT", 0.05)
    await cluster.open(1, "c-1")
    cluster.members[2].silent = True
    page = (await cluster.ask("sessions.list")).unwrap()
    assert (list(page["sessions"]), page["complete"], page["missing_workers"]) == (["c-1"], False, [W3])
    figures = (await cluster.ask("workers.figures")).unwrap()
    assert ([one["worker_id"] for one in figures["workers"]], figures["missing_workers"]) == ([W1, W2], [W3])


async def test_every_worker_tells_its_figures_and_who_is_the_placer(cluster: Three):
    figures = (await cluster.ask("workers.figures", where=1)).unwrap()
    assert {one["worker_id"]: one["placer"] for one in figures["workers"]} == {W1: True, W2: False, W3: False}
    assert figures["missing_workers"] == []


async def test_places_of_a_service_are_added_up_and_its_command_is_masked(cluster: Three):
    services = (await cluster.ask("services.list")).unwrap()["services"]
    assert (services["echo"]["sessions"], services["echo"]["max_sessions"]) == (3, 9)
    assert "hush" not in json.dumps(services)
    assert [one["worker_id"] for one in (await cluster.ask("workers.list")).unwrap()["workers"]] == [W1, W2, W3]


async def test_the_workers_that_one_knows_are_told_without_asking_the_others(cluster: Three):
    asked: list[str] = []
    presence = cluster.members[0].presence
    presence._request_presence = lambda: asked.append("presence")
    for body, questions in (({"known": True}, 0), ({}, 1)):
        workers = (await cluster.ask("workers.list", body)).unwrap()["workers"]
        assert [one["worker_id"] for one in workers] == [W1, W2, W3]
        assert len(asked) == questions


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("services.tools", {"service_name": "nobody"}, ErrorCode.SERVICE_NOT_FOUND),
        ("services.describe", {"service_name": "echo"}, ErrorCode.SERVICE_NOT_FOUND),
        ("sessions.list", {"cursor": "no cursor"}, ErrorCode.INVALID_MESSAGE),
        ("sessions.list", {"limit": 0}, ErrorCode.INVALID_MESSAGE),
        ("session.get", {"session_id": "c-1"}, ErrorCode.INVALID_MESSAGE),
        ("no.such.type", {}, ErrorCode.UNKNOWN_TYPE),
    ],
)
async def test_what_cannot_be_answered_is_told_with_its_code(cluster: Three, kind: str, body: Json, code: ErrorCode):
    answer = await cluster.ask(kind, body)
    assert answer.error is not None
    assert answer.error.code is code


async def test_the_tools_of_a_configured_service_come_from_the_catalogue(cluster: Three):
    told = (await cluster.ask("services.tools", {"service_name": "echo"})).unwrap()
    assert told == {"service_name": "echo", "tools": [{"name": "tool of echo"}]}


async def test_a_question_of_a_newer_worker_is_refused_and_stops_nothing(cluster: Three):
    dead = await cluster.wire.consume(cluster.wire.names.dead_letters)
    delivery, settled = delivered(SessionsScatter.type, b'{"newer": 1}', queue="mine", exchange="x")
    cluster.members[0].queries.take_scatter(delivery)
    assert await settled.wait() == "acked"
    assert (await dead.next()).type == SessionsScatter.type
    assert (await cluster.ask("sessions.list")).unwrap()["complete"]
