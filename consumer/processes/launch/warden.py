"""The worker's end of the warden: who must not outlive us, told to a helper that does.

PR_SET_PDEATHSIG ends a server when its worker is SIGKILLed, but not what the server itself has started. The warden
(:mod:`consumer.processes.launch.warden_child`) is told of every process group and kills what is left of them.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import structlog

from consumer.processes.launch import warden_child
from consumer.processes.launch.environment import MARKER
from consumer.processes.stdio.pipes import PipeWriter
from consumer.processes.stdio.spawn import fork, watch

MAX_DEATHS = 5
"""Wardens that may die on us before we go on without; somebody kills them on purpose then."""

END_PATIENCE = 3.0

log = structlog.get_logger(__name__)


class Warden:
    """One helper process for a worker, started before the first server, replaced when it dies."""

    def __init__(self, base: Path, marker: str) -> None:
        self._argv = [sys.executable, "-I", "-S", warden_child.__file__, str(base), f"{MARKER}={marker}"]
        self._groups: set[int] = set()
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: PipeWriter | None = None
        self._ended = asyncio.Event()
        self._deaths = 0
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The helper's process id while it runs."""
        return self._child.pid if self._child is not None else None

    def ensure(self) -> None:
        """See to it that there is a helper; to be called before a server is started."""
        if self._child is None and not self._closing and self._deaths < MAX_DEATHS:
            self._start()

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
        """End the helper, which sweeps up and removes the base folder as its last act. Bounded; idempotent."""
        self._closing = True
        if self._pipe is not None:
            self._pipe.close()
        for end in (None, signal.SIGKILL):
            if self._child is not None:
                if end is not None:
                    log.warning("warden.overdue", pid=self.pid)
                    self._child.send_signal(end)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_PATIENCE):
                        await self._ended.wait()

    def _start(self) -> None:
        theirs, ours = os.pipe()
        self._pipe = PipeWriter(ours)
        null = subprocess.DEVNULL
        try:
            self._child = fork(self._argv, stdin=theirs, stdout=null, stderr=null, environment={})
        except OSError as cause:
            self._pipe.close()
            log.error("warden.not_started", error=str(cause))
            return
        finally:
            os.close(theirs)
        self._ended.clear()
        watch(self._child, self._exited)
        self._tell("".join(f"+{group}\n" for group in sorted(self._groups)))

    def _tell(self, text: str) -> None:
        if self._pipe is not None:
            self._pipe.write(text.encode())

    def _exited(self) -> None:
        assert self._child is not None
        self._child.wait()
        self._child = None
        self._ended.set()
        if self._pipe is not None:
            self._pipe.close()
        if not self._closing:
            self._deaths += 1
            log.warning("warden.died", deaths=self._deaths)
            self.ensure()
