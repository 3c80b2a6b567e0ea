"""How a session gets its client: the interface that a warm pool can implement.

:class:`ColdStarter` starts one when it is asked for. The warm pool (:mod:`consumer.processes.warm.pool`) lies
above it; a fork server is another :class:`~consumer.processes.launch.launcher.Launcher` below it.
"""

import asyncio
import os
from pathlib import Path
from typing import Protocol

import structlog

from consumer.processes.client.era import Era
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.fork.fork_launcher import ForkLauncher
from consumer.processes.launch.launcher import Launcher
from consumer.processes.service import MCPService
from consumer.processes.warm.slots import Slots
from schemas.errors import ShuttingDown

log = structlog.get_logger(__name__)

CPU_BOUND = 5.0
"""Seconds after which a start no longer counts as busy, so that one that hangs does not block others."""


class Starter(Protocol):
    """Starts clients."""

    def prepare(self, service: MCPService) -> None:
        """Begin the work that would make the first start of ``service`` slow. Returns at once."""

    def retire(self, service: MCPService) -> None:
        """Stop starting ``service``. Its clients live on."""

    async def start(self, service: MCPService, *, ahead: bool = False) -> MCPClient:
        """Start a client of ``service`` for one session: ``ahead`` of its call, or while the call waits."""

    async def close(self) -> None:
        """End every client, waiting or in use. Idempotent, bounded, never raises."""


class ColdStarter:
    """Starts a process for each session, as many at once as the processors allow.

    Those are twice their number for calls, and their number for clients that are started ahead of calls. ``folder`` is
    the parent of this worker's base folder, unless a launcher is given. The caller closes a given launcher.
    """

    def __init__(
        self, launcher: Launcher | None = None, *, most_at_once: int | None = None, folder: Path | None = None
    ) -> None:
        self._own_launcher = ForkLauncher(parent=folder) if launcher is None else None
        self._launcher: Launcher = launcher or self._own_launcher or ForkLauncher(parent=folder)
        processors = os.cpu_count() or 1
        self._slots = Slots(most_at_once or 2 * processors, processors)
        self._eras: dict[tuple[str, ...], Era] = {}
        self._clients: set[MCPClient] = set()
        self._closed = False

    @property
    def clients(self) -> frozenset[MCPClient]:
        """The clients that are starting, serving or stopping."""
        return frozenset(self._clients)

    def prepare(self, service: MCPService) -> None:
        """Let the launcher prepare the service. If that fails, the next start tries again and reports it."""
        try:
            self._launcher.prepare(service)
        except OSError as error:
            log.warning("starter.not_prepared", service=service.name, error=str(error))

    def retire(self, service: MCPService) -> None:
        """Let the launcher release what only this service needs."""
        self._launcher.retire(service)

    async def start(self, service: MCPService, *, ahead: bool = False) -> MCPClient:
        """Start a client. Waiting for a slot does not count towards ``start_timeout``."""
        key = (service.name, *(service.command or [service.url or ""]))
        async with self._slots.taken(ahead=ahead, timeout=CPU_BOUND):
            if self._closed:
                raise ShuttingDown("the worker is shutting down")
            # Old servers are not asked again which era they speak: a silent one takes seconds to say nothing.
            known = Era.HANDSHAKE if self._eras.get(key) is Era.HANDSHAKE else None
            client = MCPClient(service, launcher=self._launcher, known_era=known)
            self._clients.add(client)
            try:
                await client.start()
            finally:
                client.add_done_callback(self._clients.discard)
        if client.process is not None and client.process.forked:
            client.start_kind = "forked"
        assert client.era is not None
        self._eras[key] = client.era
        return client

    async def close(self) -> None:
        """Stop all clients at once, then let the launcher clean up."""
        self._closed = True
        await asyncio.gather(*(client.stop() for client in self._clients))
        if self._own_launcher is not None:
            await self._own_launcher.close()
