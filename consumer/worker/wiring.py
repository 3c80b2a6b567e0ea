"""Builds a worker: each part once, with the parts that it needs."""

import asyncio
import os
import secrets
import socket
from datetime import UTC, datetime
from functools import partial

from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.rpc import RpcClient
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.cluster.presence_requests import PresenceRequests
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Bounds, Configured, ToolProcess
from consumer.calls.events import Reporter, published
from consumer.calls.intake import Intake
from consumer.calls.messages.gate import Gate
from consumer.calls.messages.origin import Origins
from consumer.calls.messages.parsing import AMONG_WORKERS, kind_of
from consumer.calls.placement.orphans import Orphans
from consumer.calls.placement.placements import Placements
from consumer.calls.placement.placer import Placer
from consumer.calls.queries import Queries
from consumer.concurrency.task_set import Tasks
from consumer.processes.mcp_manager import MCPManager
from consumer.processes.service import MCPService
from consumer.processes.warm.starter import ColdStarter, Starter
from consumer.sessions import SessionCreated, SessionEnded, SessionLimits, SessionManager
from consumer.settings import Settings
from consumer.settings.fields import needing_restart, reloaded
from consumer.worker.counting import begin_counting
from consumer.worker.current_link import CurrentLink
from consumer.worker.id_claim import IdClaim
from consumer.worker.own_report import OwnReport
from consumer.worker.owner_wiring import Ownership, ownership_of
from consumer.worker.peers import Peers
from consumer.worker.reports import Reports
from schemas.ids import WorkerId
from schemas.sessions import WorkerState


def new_worker_id() -> WorkerId:
    """Return an id that no other worker has ever had, and that is a valid part of a queue name.

    It ends with eight letters, because six are the mark of workers that do not sign; see ``messages.origin``.
    """
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:40]
    return WorkerId(f"{host}-{os.getpid()}-{secrets.token_hex(4)}")


def _configured(settings: Settings) -> Configured:
    return Configured(settings.services, settings.routes, settings.worker)


def _services(settings: Settings) -> dict[str, MCPService]:
    return {str(name): service for name, service in settings.services.items()}


class Parts:
    """The connected parts of one worker. Nothing runs yet. ``starter`` starts its servers.

    Each part is made from parts above it. A ``_make`` method makes one with the parts that it names.
    """

    def __init__(self, settings: Settings, *, starter: Starter | None = None) -> None:
        own = settings.worker
        self.settings = settings
        self.configured = _configured(settings)
        self.worker_id = WorkerId(own.worker_id) if own.worker_id else new_worker_id()
        self.names = Names(own.prefix)
        self.state: WorkerState = "starting"
        self.started_at = datetime.now(UTC)
        self.news = asyncio.Event()
        """Set when this worker should report to the others."""
        self.room_freed = asyncio.Event()
        """Set when a place for a session is free again."""
        self.tasks = Tasks()
        self.figures = Figures()
        begin_counting(_services(settings))

        # The broker.
        self.link = CurrentLink(self.names, own.max_dead_letter_bytes)
        self.publisher = Publisher(signs=True)
        self.rpc_client = RpcClient(self.publisher)
        self.outbox = Outbox(self.publisher, published)
        self.settler = self._make_settler()

        # The cluster.
        self.claim = IdClaim(self.started_at)
        self.origins = Origins(self.names, lambda: self.publisher.user)
        self.presence_requests = PresenceRequests(self.publisher, self.names.workers, self.worker_id, self.tasks)
        self.presence = Presence(
            own.grace,
            self.worker_id,
            report_soon=self.news.set,
            request_presence=self.presence_requests.send_soon,
            restart=self.link.restart,
        )
        self.reporter = Reporter(self.worker_id, self.names, self.outbox)
        self.endings = Endings(self.worker_id, self.names, self.publisher, own.tombstone)

        # MCP servers and their sessions.
        self.mcp = MCPManager(
            _services(settings),
            starter=starter or ColdStarter(folder=settings.session.sandbox_dir),
            warm_changed=self.news.set,
        )
        self.sessions: SessionManager[ToolProcess] = SessionManager(
            settings.session, on_event=self._on_session, on_room=self._on_room
        )

        # Calls: who owns them, and who handles which messages.
        self.ownership = self._make_ownership()
        self.owner = self.ownership.owner
        self.placer = self._make_placer()
        self.intake = self._make_intake()
        self.queries = self._make_queries()
        self.gate = Gate(self.settler, self.names, self.origins, max_message=own.max_message, start=self.tasks.start)

        # What this worker and the others tell each other.
        self.own_report = self._make_own_report()
        self.reports = self._make_reports()
        self.peers = self._make_peers()

    def _make_settler(self) -> Settler:
        return Settler(
            self.publisher,
            self.names.dead_letters,
            dead_lettered=self.figures.dead_lettered,
            restore=self.link.restore_dead_letters,
            kind_of=partial(kind_of, names=self.names),
            quiet=AMONG_WORKERS,
        )

    def _make_ownership(self) -> Ownership:
        own = self.settings.worker
        return ownership_of(
            self.worker_id,
            self.names,
            self.publisher,
            self.settler,
            sessions=self.sessions,
            start=self.mcp.create_client,
            take_back=self.mcp.take_back,
            reporter=self.reporter,
            presence=self.presence,
            endings=self.endings,
            figures=self.figures,
            configured=self.configured,
            bounds=Bounds(
                max_requests=own.max_requests, max_kept=own.max_kept, max_metadata=self.settings.session.max_metadata
            ),
        )

    def _make_placer(self) -> Placer:
        placements = Placements(self.worker_id, self.names)
        return Placer(
            self.names,
            self.settler,
            placements,
            Orphans(self.names, placements, self.presence, self.reporter),
            presence=self.presence,
            presence_requests=self.presence_requests,
            endings=self.endings,
            reporter=self.reporter,
            configured=self.configured,
        )

    def _make_intake(self) -> Intake:
        exchanges = self.settings.worker.call_exchanges
        return Intake(
            self.names,
            self.settler,
            self.publisher,
            self.rpc_client,
            self.configured,
            {one.exchange: one.platform for one in exchanges if one.platform},
        )

    def _make_queries(self) -> Queries:
        return Queries(
            self.worker_id,
            self.names,
            self.settler,
            self.rpc_client,
            sessions=self.sessions,
            catalogue=self.mcp,
            presence=self.presence,
            figures=self.figures,
            configured=self.configured,
            is_placer=lambda: self.placer.is_placing,
        )

    def _make_own_report(self) -> OwnReport:
        return OwnReport(
            self.worker_id,
            self.started_at,
            self.sessions,
            self.mcp,
            owner=self.owner,
            recovery=self.ownership.recovery,
            phase=lambda: self.state,
        )

    def _make_reports(self) -> Reports:
        return Reports(
            self.worker_id,
            self.names,
            self.publisher,
            self.rpc_client,
            own=self.own_report,
            presence=self.presence,
            placer=self.placer,
            news=self.news,
        )

    def _make_peers(self) -> Peers:
        return Peers(
            self.worker_id,
            self.claim,
            self.reports,
            origins=self.origins,
            presence=self.presence,
            endings=self.endings,
            queries=self.queries,
            closing=self.ownership.closing,
            rpc_client=self.rpc_client,
        )

    def reload(self, settings: Settings) -> list[str]:
        """Apply new settings to calls that start from now on. Return the names of those that need a restart."""
        running = self.settings
        kept = [f"worker.{name}" for name in needing_restart(running.worker, settings.worker)]
        kept += [f"session.{name}" for name in needing_restart(running.session, settings.session)]
        if settings.amqp_url != running.amqp_url:
            kept.append("AMQP_URL")
        worker, session = reloaded(running.worker, settings.worker), reloaded(running.session, settings.session)
        self.settings = settings.model_copy(update={"worker": worker, "session": session, "amqp_url": running.amqp_url})
        new = _configured(self.settings)
        configured = self.configured
        configured.services, configured.routes, configured.timings = new.services, new.routes, new.timings
        self.sessions.limits = SessionLimits.from_config(session)
        services, before = _services(settings), self.mcp.services
        self.figures.reconfigured({name for name, service in services.items() if service == before.get(name)})
        self.mcp.reconfigure(services)
        begin_counting(services)
        self.news.set()
        return kept

    def _on_session(self, _event: SessionCreated[ToolProcess] | SessionEnded[ToolProcess]) -> None:
        self.news.set()

    def _on_room(self) -> None:
        self.news.set()
        self.room_freed.set()
