"""One server process: its pipes, its exit, and its end.

The process leads its own session and process group, so that its children can be ended with it. It is made by a launcher
(see :mod:`consumer.processes.launch.launcher`); this module knows nothing of MCP.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import structlog

from consumer.processes.stdio.pipes import PipeReader, PipeWriter
from consumer.processes.stdio.stderr_log import StderrLog
from consumer.processes.stdio.stderr_tail import StderrTail
from consumer.sessions.session import ProcessExit

EOF_TIMEOUT = 1.5
"""Seconds that a server has to exit after its stdin was closed (MCP 2025-11-25, basic/lifecycle, shutdown)."""

TERM_TIMEOUT = 1.0
"""Seconds that it then has after SIGTERM."""

KILL_TIMEOUT = 2.0
"""Seconds in which a process must be gone after SIGKILL. Only one that hangs in the kernel takes longer."""

LAST_WORDS = 0.25
"""Seconds after the exit during which a pipe is still read that a process outside the group holds open."""

log = structlog.get_logger(__name__)


class Child(Protocol):
    """A process whose end is reported, and whose pid is not reused before ``wait``."""

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""

    def wait(self) -> int:
        """Return the exit code after the end; ``-n`` for signal n."""


class Pipes(NamedTuple):
    """The descriptors of our ends of a server's three pipes."""

    stdin: int
    stdout: int
    stderr: int


class ServerProcess:
    """A server that runs: ``pid``, ``returncode`` and ``poll()`` are those of :class:`subprocess.Popen`.

    ``child`` has the other ends of ``pipes``, which it takes over. ``watch`` takes a function to call once when the
    child has ended. ``is_there`` says whether its process id is still its own, if another process may reap it.

    ``obeys_term`` is false when it is started with SIGTERM ignored; ``forked`` when it is the fork of a process that
    had imported the server; ``in_shell`` when a program around it reports a signal like a shell, with an exit code of
    128 plus the signal's number; ``hurry`` makes its end a short one; ``fault`` says why we ended it ourselves. Its
    stderr is logged under ``service``. Everything runs in the event loop.
    """

    def __init__(
        self,
        service: str,
        child: Child,
        pipes: Pipes,
        *,
        watch: Callable[[Callable[[], None]], None],
        is_there: Callable[[], bool],
        obeys_term: bool,
        forked: bool,
        in_shell: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.pid = child.pid
        self.returncode: int | None = None
        self.fault: str | None = None
        self.stderr = StderrTail()
        self._stderr_log = StderrLog(service)
        self.hurry = False
        self.forked = forked
        self._ending = False
        self._closed_a_pipe = False
        self._obeys_term = obeys_term
        self._in_shell = in_shell
        self._child = child
        self._is_there = is_there
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[ProcessExit] = self._loop.create_future()
        self._open_pipes = {1, 2}
        self._stdin = PipeWriter(pipes.stdin, partial(self._given_up, "stdin"))
        self._unread_stdout = pipes.stdout
        self._stdout: PipeReader | None = None
        self._stderr = PipeReader(pipes.stderr, self._stderr_data, partial(self._pipe_ended, 2))
        # Our own end is closed as soon as the server is gone; see has_read.
        self._stdin_duplicate = os.dup(pipes.stdin)
        watch(self._exit_noticed)

    # What the pipes and the kernel tell.

    def _stderr_data(self, data: bytes) -> None:
        self.stderr.feed(data)
        self._stderr_log.feed(data, self.pid)

    def _pipe_ended(self, number: int) -> None:
        self._open_pipes.discard(number)
        if self.returncode is not None and not self._open_pipes:
            self._settle()

    def _stdout_ended(self, on_end: Callable[[], None]) -> None:
        on_end()
        self._given_up("stdout")
        self._pipe_ended(1)

    def _given_up(self, pipe: str) -> None:
        """Handle a pipe that the server has closed. It gets no more requests, and has a moment to exit."""
        self._closed_a_pipe = True
        if self.returncode is None and not self._ending:
            self._loop.call_later(LAST_WORDS, self.kill_for_fault, f"it closed its {pipe}")

    def _exit_noticed(self) -> None:
        # Before it is reaped, while the number of the group is certainly its own: whatever it started.
        self.kill_group()
        code = self._child.wait()
        self.returncode = 128 - code if self._in_shell and 128 < code <= 128 + signal.SIGRTMAX else code
        self._exited.set_result(None)
        if self._open_pipes:
            self._resume_stdout()
            self._loop.call_later(LAST_WORDS, self._settle)
        else:
            self._settle()

    def _settle(self) -> None:
        if self._gone.done():
            return
        code = self.returncode if self.returncode is not None else -signal.SIGKILL
        text = self.stderr.text()
        self._gone.set_result(
            ProcessExit(exit_code=code, signal=None, stderr=text)
            if code >= 0
            else ProcessExit(exit_code=None, signal=-code, stderr=text)
        )
        self._stdin.close()
        if self._stdout is not None:
            self._stdout.finish()
        self._stderr.close()

    # What its owner does with it.

    @property
    def exit(self) -> ProcessExit | None:
        """How it ended; ``None`` while it runs."""
        return self._gone.result() if self._gone.done() else None

    @property
    def is_ending(self) -> bool:
        """Whether it has ended or is about to, so that no more output will come."""
        return self.returncode is not None or self.fault is not None or self._closed_a_pipe

    def poll(self) -> int | None:
        """The exit code, ``-n`` for signal n, ``None`` while it runs."""
        return self.returncode

    def read_stdout(self, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> PipeReader:
        """Begin to read the server's stdout, from its first byte; once, before :meth:`end`.

        ``on_end`` is called once, in the loop, when no more will come.
        """
        self._stdout = PipeReader(self._unread_stdout, on_data, partial(self._stdout_ended, on_end))
        self._unread_stdout = -1
        return self._stdout

    def add_done_callback(self, callback: Callable[[ProcessExit], None]) -> None:
        """Call ``callback`` in the loop when the process has ended and its last output is read."""
        self._gone.add_done_callback(lambda gone: callback(gone.result()))

    async def wait_gone(self, timeout: float) -> ProcessExit | None:
        """Wait at most ``timeout`` seconds for the end. Return how it ended, or ``None`` if it has not."""
        await asyncio.wait({self._gone}, timeout=timeout)
        return self.exit

    def has_read(self, written: int) -> bool:
        """Return whether any of the first ``written`` bytes on its stdin was read, during a start or after death."""
        if self._stdin_duplicate < 0:
            return True
        try:
            (unread,) = struct.unpack("i", fcntl.ioctl(self._stdin_duplicate, termios.FIONREAD, b"\0" * 4))
        except OSError:
            return True
        return bool(unread < written)

    def forget_stdin_duplicate(self) -> None:
        """Close the duplicate for :meth:`has_read`. While it is open, the server cannot see the end of its stdin."""
        if self._stdin_duplicate >= 0:
            os.close(self._stdin_duplicate)
            self._stdin_duplicate = -1

    def write(self, data: bytes) -> None:
        """Queue ``data`` for its stdin; never waits. Once the pipe is broken, data is dropped."""
        self._stdin.write(data)

    @property
    def unsent(self) -> int:
        """The number of bytes that wait because the server does not read its stdin."""
        return self._stdin.unsent

    def _resume_stdout(self) -> None:
        if self._stdout is not None:
            self._stdout.resume()

    def kill_for_fault(self, reason: str) -> None:
        """Kill the process now. ``reason`` is added to its ``stderr``."""
        if self.returncode is None and self.fault is None and not self._ending:
            self.fault = reason
            self.stderr.note(f"the server was ended because {reason}")
            log.warning("process.killed_for_fault", pid=self.pid, reason=reason)
            self.kill_group()

    def kill_group(self) -> None:
        """Send SIGKILL to the process and its group. Harmless if no process is left."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self.returncode is None and self._is_there():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _close_stdin(self) -> None:
        """Close the server's input. Data that it has not received yet is lost."""
        self.forget_stdin_duplicate()
        self._stdin.close()

    async def end(self) -> None:
        """End the process: close stdin, then TERM, then KILL, each wait bounded. Nothing of its group remains.

        With ``hurry`` set it begins with KILL. If it is cancelled, it kills the group and returns.
        """
        self._ending = True
        try:
            self._close_stdin()
            self._resume_stdout()
            if not self.hurry and not await self._left_within(EOF_TIMEOUT) and self._obeys_term:
                self._signal_group(signal.SIGTERM)
                await self._left_within(TERM_TIMEOUT)
            if not self._exited.done():
                self.kill_group()
                if not await self._left_within(KILL_TIMEOUT):
                    log.error("process.unkillable", pid=self.pid)
            await asyncio.wait({self._gone}, timeout=2 * LAST_WORDS)
        finally:
            self.kill_group()
            self._settle()
            if self._unread_stdout >= 0:
                os.close(self._unread_stdout)
                self._unread_stdout = -1

    async def _left_within(self, seconds: float) -> bool:
        await asyncio.wait({self._exited}, timeout=seconds)
        return self._exited.done()
