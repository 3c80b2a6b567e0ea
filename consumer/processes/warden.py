"""The worker's end of the warden: who must not outlive us, told to a helper that does.

PR_SET_PDEATHSIG ends a server when its worker is SIGKILLed, but not what the server itself has started. The warden
(:mod:`consumer.processes.warden_child`) is told of every process group and kills what is left of them.
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

import structlog

from consumer.processes import warden_child
from consumer.processes.environment import MARKER

MAX_DEATHS = 5
"""Wardens that may die on us before we go on without; somebody kills them on purpose then."""

END_PATIENCE = 3.0

log = structlog.get_logger(__name__)


class Warden(asyncio.SubprocessProtocol):
    """One helper process for a worker, started with the first process group, restarted when it dies."""

    def __init__(self, base: Path, marker: str) -> None:
        self._argv = [sys.executable, "-I", "-S", warden_child.__file__, str(base), f"{MARKER}={marker}"]
        self._groups: set[int] = set()
        self._transport: asyncio.SubprocessTransport | None = None
        self._pipe: asyncio.WriteTransport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._deaths = 0
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The helper's process id while it runs."""
        return self._transport.get_pid() if self._transport is not None else None

    async def ready(self) -> None:
        """Wait until there is a helper; to be called before a server is started."""
        if self._transport is None and not self._closing:
            if self._starting is None:
                self._starting = asyncio.create_task(self._start(), name="warden-start")
            await asyncio.shield(self._starting)

    def add(self, group: int) -> None:
        """From now on ``group`` dies with the worker."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """``group`` has ended; its number may soon be another's."""
        if group in self._groups:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    async def close(self) -> None:
        """End the helper, which removes the base folder as its last act. Bounded; idempotent."""
        self._closing = True
        if self._starting is not None:
            await asyncio.wait({self._starting}, timeout=END_PATIENCE)
        if self._transport is None or self._ended is None:
            return
        if self._pipe is not None:
            self._pipe.close()
        await asyncio.wait({self._ended}, timeout=END_PATIENCE)
        if self._transport is not None:
            self._transport.close()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: self,
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                start_new_session=True,
            )
        except OSError as cause:
            log.error("warden.not_started", error=str(cause))
            return
        finally:
            self._starting = None
        self._ended = loop.create_future()
        self._transport = transport
        self._pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(0))
        self._tell("".join(f"+{group}\n" for group in sorted(self._groups)))

    def _tell(self, text: str) -> None:
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(text.encode())

    def process_exited(self) -> None:
        """Asyncio: the helper has ended, as we asked or by somebody's hand."""
        if self._transport is not None:
            self._transport.close()
        self._transport = self._pipe = None
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self._closing:
            return
        self._deaths += 1
        log.warning("warden.died", deaths=self._deaths)
        if self._deaths < MAX_DEATHS:
            self._starting = asyncio.get_running_loop().create_task(self._start(), name="warden-restart")
