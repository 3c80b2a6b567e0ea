"""The worker's end of the keeper, which is the parent of its servers and ends whatever they leave.

:mod:`consumer.processes.launch.keeper_child` describes it. Only Linux has a keeper. Elsewhere a server is the worker's
own child, and is ended with its process group.
"""

import asyncio
import subprocess
import sys
from functools import partial
from pathlib import Path

import structlog

from consumer.processes.launch import keeper_child
from consumer.processes.launch.fork_server import CannotFork, ForkedChild, ForkServer, Job, Process, Watch
from consumer.processes.launch.minimal_environment import MARKER
from consumer.processes.stdio.spawn import fork, watch

MAX_DEATHS = 5
"""How many keepers may die. After that no server is started any more, because it looks like sabotage."""

START_TIMEOUT = 10.0
END_TIMEOUT = 6.0
"""Seconds in addition to the keeper's own, for ending its children and removing the base folder."""

log = structlog.get_logger(__name__)


class Keeper:
    """One helper process of a worker, started with the first server, and replaced when it dies.

    If it is killed, the kernel ends its servers, as it does if the worker is killed.
    """

    def __init__(self, base: Path, mark: str) -> None:
        self._argv = [sys.executable, "-I", "-S", keeper_child.__file__, str(base), f"{MARKER}={mark}"]
        self._starting: asyncio.Task[ForkServer] | None = None
        self._deaths = 0
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The keeper's process id while it runs."""
        server = self._server()
        return server.pid if server is not None else None

    def _server(self) -> ForkServer | None:
        starting = self._starting
        if starting is None or not starting.done() or starting.cancelled() or starting.exception() is not None:
            return None
        return starting.result()

    def begin(self) -> None:
        """Begin to start the keeper, so that the first server need not wait for it; returns at once."""
        if self._starting is None and not self._closing and self._deaths < MAX_DEATHS:
            self._starting = asyncio.create_task(self._start(), name="keeper-start")
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def start(self, job: Job, stdin: int, stdout: int, stderr: int) -> ForkedChild:
        """Start a process for ``job`` with these descriptors, which stay the caller's. Raises :class:`OSError`."""
        self.begin()
        if self._starting is None:
            raise OSError("the keeper of the servers is not running: it was killed repeatedly, or is closed")
        try:
            server = await asyncio.shield(self._starting)
            return await server.fork(job, stdin, stdout, stderr)
        except CannotFork as cause:
            raise OSError(cause.errno, str(cause)) from cause

    async def _start(self) -> ForkServer:
        server = ForkServer(self._ended)
        try:
            await server.start(self._spawn, timeout=START_TIMEOUT)
        except BaseException as error:
            self._starting = None
            await server.close()
            log.error("keeper.not_started", error=str(error))
            raise
        return server

    async def _spawn(self, stdin: int, stderr: int) -> tuple[Process, Watch]:
        again = ["again"] if self._deaths else []
        child = fork([*self._argv, *again], stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr, environment={})
        return child, partial(watch, child)

    def _ended(self, _server: ForkServer) -> None:
        self._starting = None
        if not self._closing:
            self._deaths += 1
            log.error("keeper.died", deaths=self._deaths, hint="its servers ended with it")
            self.begin()

    async def close(self) -> None:
        """End the keeper. It ends every process below it and removes the base folder. Bounded; idempotent."""
        self._closing = True
        if self._starting is not None:
            done, _ = await asyncio.wait({self._starting}, timeout=END_TIMEOUT)
            if done and (server := self._server()) is not None:
                await server.close(timeout=END_TIMEOUT)
            self._starting = None
