"""What a worker is made of: every part made once, and given what it needs of the others."""

import asyncio
import os
import secrets
import socket
from datetime import UTC, datetime

import structlog

from consumer.broker.asking import Asker
from consumer.broker.outbox import Outbox
from consumer.broker.publisher import Publisher
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.context import Context, Timings, ToolProcess
from consumer.calls.endings import Endings
from consumer.calls.intake import Intake
from consumer.calls.owner import Owner
from consumer.calls.placer import Placer
from consumer.calls.presence import Presence
from consumer.calls.queries import Queries
from consumer.calls.reporting import Reporter
from consumer.processes.manager import MCPManager
from consumer.processes.starter import ColdStarter
from consumer.sessions import SessionCreated, SessionEnded, SessionManager
from consumer.settings import Settings
from schemas.ids import WorkerId
from schemas.sessions import WorkerState

log = structlog.get_logger(__name__)


def new_worker_id() -> WorkerId:
    """An id that no other worker has ever had, and that is a valid part of a queue name."""
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())[:40]
    return WorkerId(f"{host}-{os.getpid()}-{secrets.token_hex(3)}")


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
        self.publisher = Publisher()
        self.outbox = Outbox(self.publisher)
        self.presence = Presence(own.grace)
        self.reporter = Reporter(self.worker_id, self.names, self.outbox)
        self.endings = Endings(self.worker_id, self.names, self.publisher, own.tombstone)
        self.context = Context(
            worker_id=self.worker_id,
            names=self.names,
            publisher=self.publisher,
            settler=Settler(self.publisher, self.names.dead),
            reporter=self.reporter,
            presence=self.presence,
            endings=self.endings,
            services=settings.services,
            routes=settings.routes,
            timings=Timings(tombstone=own.tombstone, admission_wait=own.admission_wait, ring_timeout=own.ring_timeout),
        )
        self.mcp = MCPManager(
            {str(name): service for name, service in settings.services.items()},
            starter=ColdStarter(folder=settings.session.sandbox_dir),
        )
        self.sessions: SessionManager[ToolProcess] = SessionManager(settings.session, on_event=self._on_session)
        self.asker = Asker(self.publisher)
        self.owner = Owner(self.context, self.sessions, self.mcp.create_client, self.mcp.take_back)
        self.placer = Placer(self.context)
        self.intake = Intake(self.context, self.asker, self._ignored)
        self.queries = Queries(self.context, self.sessions, self.mcp.get_service_tools, self.asker)

    def _on_session(self, event: SessionCreated[ToolProcess] | SessionEnded[ToolProcess]) -> None:
        self.owner.on_session(event)
        self.news.set()

    def _ignored(self, source: str, what: str) -> None:
        log.debug("call_event.ignored", source=source, what=what)
