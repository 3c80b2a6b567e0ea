"""What a worker is made of: every part made once, and given what it needs of the others."""

import asyncio
import os
import secrets
import socket
from datetime import UTC, datetime
from functools import partial

from consumer.broker.asking import Asker
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.context import Bounds, Configured, Context, Timings, ToolProcess
from consumer.calls.events import Reporter, published
from consumer.calls.intake import Intake
from consumer.calls.messages.gate import Gate
from consumer.calls.messages.origin import Origins
from consumer.calls.messages.parsing import AMONG_WORKERS, kind_of
from consumer.calls.ownership.owner import Owner
from consumer.calls.placement.placer import Placer
from consumer.calls.queries import Queries
from consumer.concurrency.task_set import Tasks
from consumer.processes.manager import MCPManager
from consumer.processes.service import MCPService
from consumer.processes.warm.starter import ColdStarter
from consumer.sessions import SessionCreated, SessionEnded, SessionLimits, SessionManager
from consumer.settings import Settings
from schemas.ids import WorkerId
from schemas.sessions import WorkerInfo, WorkerState

RELOADED = ("admission_wait", "ring_timeout", "drain", "drain_timeout", "log_level", "log_format")
"""Settings of ``[worker]`` that a running worker takes on; the others are in names, queues and connections."""


def new_worker_id() -> WorkerId:
    """An id that no other worker has ever had, and that is a valid part of a queue name.

    It ends with eight letters, because six are the mark of workers that do not sign; see ``messages.origin``.
    """
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:40]
    return WorkerId(f"{host}-{os.getpid()}-{secrets.token_hex(4)}")


def _configured(settings: Settings) -> Configured:
    own = settings.worker
    timings = Timings(tombstone=own.tombstone, admission_wait=own.admission_wait, ring_timeout=own.ring_timeout)
    return Configured(settings.services, settings.routes, timings)


def _services(settings: Settings) -> dict[str, MCPService]:
    return {str(name): service for name, service in settings.services.items()}


class Parts:
    """The rooms of one worker, put together; nothing of it runs yet."""

    def __init__(self, settings: Settings) -> None:
        own = settings.worker
        self.settings = settings
        self.worker_id = WorkerId(own.worker_id) if own.worker_id else new_worker_id()
        self.names = Names(own.prefix)
        self.state: WorkerState = "starting"
        self.started_at = datetime.now(UTC)
        self.news = asyncio.Event()
        """Set when there is something that the other workers should know."""
        self.joining = False
        """Whether it is not known yet that nobody else has our id."""
        self.rival: asyncio.Future[WorkerInfo] = asyncio.get_running_loop().create_future()
        """Done when another process has our id, and we are the one to go."""
        self.publisher = Publisher(signs=True)
        self.origins = Origins(self.names, lambda: self.publisher.user)
        self.outbox = Outbox(self.publisher, published)
        self.presence = Presence(own.grace, self.worker_id)
        self.presence.report_soon = self.news.set
        self.reporter = Reporter(self.worker_id, self.names, self.outbox)
        self.endings = Endings(self.worker_id, self.names, self.publisher, own.tombstone)
        self.context = Context(
            worker_id=self.worker_id,
            names=self.names,
            publisher=self.publisher,
            settler=Settler(self.publisher, self.names.dead, partial(kind_of, names=self.names), AMONG_WORKERS),
            reporter=self.reporter,
            presence=self.presence,
            endings=self.endings,
            configured=_configured(settings),
            bounds=Bounds(
                max_requests=own.max_requests, max_kept=own.max_kept, max_metadata=settings.session.max_metadata
            ),
        )
        self.context.settler.parked = self.context.figures.parked
        self.mcp = MCPManager(_services(settings), starter=ColdStarter(folder=settings.session.sandbox_dir))
        self.sessions: SessionManager[ToolProcess] = SessionManager(
            settings.session, on_event=self._on_session, on_room=self.news.set
        )
        self.asker = Asker(self.publisher)
        self.owner = Owner(self.context, self.sessions, self.mcp.create_client, self.mcp.take_back)
        self.placer = Placer(self.context)
        self.intake = Intake(
            self.context, self.asker, {one.exchange: one.platform for one in own.call_exchanges if one.platform}
        )
        self.queries = Queries(self.context, self.sessions, self.mcp, self.asker)
        self.tasks = Tasks()
        self.gate = Gate(
            self.context.settler,
            self.names,
            self.origins,
            self.presence,
            max_message=own.max_message,
            start=self.tasks.start,
        )

    def reload(self, settings: Settings) -> list[str]:
        """Take other settings on, for calls that start from now on; returns the names of those that need a restart."""
        fixed, given = self.settings.worker, settings.worker
        changes = {name: getattr(given, name) for name in RELOADED}
        worker = fixed.model_copy(update=changes)
        kept = [f"worker.{name}" for name in type(fixed).model_fields if getattr(worker, name) != getattr(given, name)]
        if settings.amqp_url != self.settings.amqp_url:
            kept.append("AMQP_URL")
        if settings.session.sandbox_dir != self.settings.session.sandbox_dir:
            kept.append("session.sandbox_dir")
        self.settings = settings.model_copy(update={"worker": worker, "amqp_url": self.settings.amqp_url})
        new = _configured(self.settings)
        configured = self.context.configured
        configured.services, configured.routes, configured.timings = new.services, new.routes, new.timings
        self.sessions.limits = SessionLimits.from_config(settings.session)
        self.mcp.reconfigure(_services(settings))
        self.news.set()
        return kept

    def _on_session(self, event: SessionCreated[ToolProcess] | SessionEnded[ToolProcess]) -> None:
        self.owner.on_session(event)
        self.news.set()
