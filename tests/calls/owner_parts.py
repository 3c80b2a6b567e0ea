"""The parts of an owner without a link, with real sessions on a real MCP server: made by hand, as each part says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from consumer.broker.message import Delivery, Message
from consumer.broker.outbox import Outbox
from consumer.broker.outcome import Outcome
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Bounds, Configured, ToolProcess
from consumer.calls.events import Reporter
from consumer.calls.messages.deadlines import Heartbeat
from consumer.calls.news import News
from consumer.calls.owned_call import OwnedCall
from consumer.calls.ownership.call_requests import CallRequests
from consumer.calls.ownership.closing import Closing
from consumer.calls.ownership.handover import Handover
from consumer.calls.ownership.kept_metadata import KeptMetadata
from consumer.calls.ownership.lifecycle import CallLifecycle
from consumer.calls.ownership.opening import Opening
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.owner import Owner
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.ownership.returns import Returns
from consumer.calls.ownership.ringing import Ringer
from consumer.calls.requests.idempotency import AnswerWindows
from consumer.calls.requests.in_flight import InFlight
from consumer.calls.requests.kept_calls import KeptCalls
from consumer.calls.requests.session_for import SessionFor
from consumer.calls.requests.session_requests import SessionRequests
from consumer.calls.requests.tool_calls import ToolCalls
from consumer.calls.routes import Route
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.processes.mcp_manager import MCPManager
from consumer.processes.service import MCPService
from consumer.processes.warm.starter import ColdStarter, Starter
from consumer.sessions import SessionManager
from schemas.ids import CallId, ServiceName, WorkerId
from schemas.internal import OwnerCheck, Recipe
from schemas.requests import Lifecycle
from tests import harness
from tests.calls.presences import presence_of

ME = WorkerId("w-1")
CALL = CallId("c-1")
ECHO, OTHER = ServiceName("echo"), ServiceName("other")
GRACE = 5.0


@dataclass(frozen=True)
class Times:
    """Durations (s), longer than any test."""

    tombstone: float = 60.0
    admission_wait: float = 2.0
    ring_timeout: float = 60.0


@dataclass
class OwnerParts:
    """What of an owner these tests speak to."""

    owner: Owner
    call: OwnedCall
    owned_calls: OwnedCalls
    lifecycle: CallLifecycle
    closing: Closing
    recovery: Recovery
    presence: Presence
    session_for: SessionFor
    session_requests: SessionRequests
    endings: Endings
    lanes: KeyedQueues
    answers: AnswerWindows
    configured: Configured
    outbox: Outbox
    heartbeat: Heartbeat
    mcp: MCPManager = field(repr=False)

    async def carry_out(self, message: Lifecycle | Recipe | OwnerCheck, **properties: object) -> Outcome:
        """Do what a message says, as if it was delivered with these properties."""
        delivery = Delivery(Message(b"", **properties), "inbox", "", CALL, False, 0.0, None)  # type: ignore[arg-type]
        return await self.lifecycle.carry_out(delivery, self.call, message)


async def _nothing() -> None:
    """Nobody takes the dead letters of these tests."""


@asynccontextmanager
async def owner_parts(
    starter: Starter | Path,
    routes: tuple[Route, ...] = (),
    publisher: Publisher | None = None,
    bounds: Bounds = Bounds(),  # noqa: B008 - a value
) -> AsyncIterator[OwnerParts]:
    """An owner that has just taken a call on; ``starter`` starts its servers, or is the folder of real ones.

    Without a ``publisher`` it has no link.
    """
    services = {name: MCPService(name=name, command=harness.ECHO) for name in (ECHO, OTHER)}
    configured = Configured(services, routes, Times())
    names, publisher = Names(), publisher or Publisher()
    outbox = Outbox(publisher)
    reporter = Reporter(ME, names, outbox)
    presence, endings = presence_of(ME, GRACE), Endings(ME, names, publisher, configured.timings.tombstone)
    lanes, answers, figures = KeyedQueues("test"), AnswerWindows(1 << 20), Figures()
    starter = ColdStarter(folder=starter) if isinstance(starter, Path) else starter
    async with MCPManager({str(name): one for name, one in services.items()}, starter=starter) as mcp:
        sessions: SessionManager[ToolProcess] = SessionManager()
        owned_calls = OwnedCalls(ME, names, publisher, reporter, answers)
        closing = Closing(ME, sessions, owned_calls, lanes, endings, configured)
        recovery = Recovery(
            owned_calls, closing, answers, lanes,
            reporter=reporter, presence=presence, endings=endings, configured=configured,
        )  # fmt: skip
        opening = Opening(
            sessions, mcp.create_client, owned_calls, recovery,
            kept_metadata=KeptMetadata(bounds), configured=configured, reporter=reporter, news=News(reporter),
            figures=figures,
        )  # fmt: skip
        lifecycle = CallLifecycle(
            owned_calls, opening, closing, recovery, Ringer(sessions, mcp.create_client, mcp.take_back, configured),
            lanes, worker_id=ME, endings=endings, configured=configured, grace=GRACE,
        )  # fmt: skip
        in_flight, kept, returns, heartbeat = InFlight(bounds), KeptCalls(), Returns(ME, names), Heartbeat()
        session_for = SessionFor(lifecycle, configured)
        settler = Settler(publisher, names.dead_letters, dead_lettered=lambda _reason: None, restore=_nothing)
        tool_calls = ToolCalls(
            session_for, answers, in_flight, kept, settler=settler, configured=configured, figures=figures
        )
        session_requests = SessionRequests(ME, session_for, tool_calls, in_flight, kept)
        requests = CallRequests(
            owned_calls, recovery, lanes, returns, tool_calls=tool_calls,
            session_requests=session_requests,
            in_flight=in_flight, configured=configured, heartbeat=heartbeat,
        )  # fmt: skip
        owner = Owner(
            ME, names, settler, presence, lanes, owned_calls=owned_calls, lifecycle=lifecycle, recovery=recovery,
            requests=requests, handover=Handover(ME, reporter, owned_calls, closing),
            returns=returns,
        )  # fmt: skip
        call = owned_calls.own(CALL)
        parts = OwnerParts(
            owner, call, owned_calls, lifecycle, closing, recovery, presence, session_for, session_requests, endings,
            lanes, answers, configured, outbox, heartbeat, mcp,
        )  # fmt: skip
        try:
            yield parts
        finally:
            await sessions.shutdown()
            await owner.stop(0)
            await endings.stop()
