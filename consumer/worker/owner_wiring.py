"""Builds the owner of calls from its parts."""

from dataclasses import dataclass

from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Bounds, Configured, Starter, TakeBack, ToolProcess
from consumer.calls.events import Reporter
from consumer.calls.messages.deadlines import Heartbeat
from consumer.calls.news import News
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
from consumer.concurrency.keyed_queues import KeyedQueues
from consumer.sessions import SessionManager
from schemas.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Ownership:
    """The parts of the owner that the rest of a worker uses."""

    owner: Owner
    owned_calls: OwnedCalls
    recovery: Recovery
    closing: Closing
    tool_calls: ToolCalls
    heartbeat: Heartbeat


def ownership_of(
    worker_id: WorkerId,
    names: Names,
    publisher: Publisher,
    settler: Settler,
    *,
    sessions: SessionManager[ToolProcess],
    start: Starter,
    take_back: TakeBack,
    reporter: Reporter,
    presence: Presence,
    endings: Endings,
    figures: Figures,
    configured: Configured,
    bounds: Bounds,
) -> Ownership:
    """Build the owner of a worker's calls. Each part gets those made before it."""
    lanes = KeyedQueues("owner")
    answers = AnswerWindows(bounds.max_kept)
    owned_calls = OwnedCalls(worker_id, names, publisher, reporter, answers)
    closing = Closing(worker_id, sessions, owned_calls, lanes, endings, configured)
    recovery = Recovery(
        owned_calls,
        closing,
        answers,
        lanes,
        reporter=reporter,
        presence=presence,
        endings=endings,
        configured=configured,
    )
    opening = Opening(
        sessions,
        start,
        owned_calls,
        recovery,
        kept_metadata=KeptMetadata(bounds),
        configured=configured,
        reporter=reporter,
        news=News(reporter),
        figures=figures,
    )
    lifecycle = CallLifecycle(
        owned_calls,
        opening,
        closing,
        recovery,
        Ringer(sessions, start, take_back, configured),
        lanes,
        worker_id=worker_id,
        endings=endings,
        configured=configured,
        grace=presence.grace,
    )
    in_flight, kept, heartbeat = InFlight(bounds), KeptCalls(), Heartbeat()
    session_for = SessionFor(lifecycle, configured)
    tool_calls = ToolCalls(
        session_for, answers, in_flight, kept, settler=settler, configured=configured, figures=figures
    )
    returns = Returns(worker_id, names)
    requests = CallRequests(
        owned_calls,
        recovery,
        lanes,
        returns,
        tool_calls=tool_calls,
        session_requests=SessionRequests(worker_id, session_for, tool_calls, in_flight, kept),
        in_flight=in_flight,
        configured=configured,
        heartbeat=heartbeat,
    )
    owner = Owner(
        worker_id,
        names,
        settler,
        presence,
        lanes,
        owned_calls=owned_calls,
        lifecycle=lifecycle,
        recovery=recovery,
        requests=requests,
        handover=Handover(worker_id, reporter, owned_calls, closing),
        returns=returns,
    )
    return Ownership(owner, owned_calls, recovery, closing, tool_calls, heartbeat)
