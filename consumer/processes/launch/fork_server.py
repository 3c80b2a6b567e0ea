"""The worker's end of a fork server: a process that forks on request, and reports when its forks end.

There are two: the keeper, which forks and starts programs, and the helpers that have imported a Python server. What
they do, and the messages on the socket, are in :mod:`consumer.processes.launch.keeper_child`.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from consumer.processes.stdio.pipes import PipeReader
from consumer.processes.stdio.stderr_tail import StderrTail

MESSAGE_SIZE = 1 << 16
END_TIMEOUT = 1.0
"""Seconds that the helper has to exit after its socket is closed."""

log = structlog.get_logger(__name__)


class CannotFork(Exception):
    """There is no helper, or it could not fork. The message says why; ``errno`` is the system's, or 0."""

    def __init__(self, why: str, errno: int = 0) -> None:
        super().__init__(why)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class Job:
    """The description of a forked process. ``limits`` maps names such as ``RLIMIT_CORE`` to their value.

    ``user`` is the id of a user that this process has for itself: whatever runs as that user ends with it. With
    ``as_user`` the process is that user from the start; without, its program changes to it.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    limits: Mapping[str, int] = field(default_factory=dict)
    no_new_privs: bool = True
    ignore_term: bool = False
    user: int | None = None
    as_user: bool = False


class Process(Protocol):
    """A process that another process has started. Its id is not reused before ``wait``."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def wait(self) -> int:
        """Return the exit code after the end; ``-n`` for signal n."""


Watch = Callable[[Callable[[], None]], None]
"""Takes a function to call once, in the loop, when the process has ended."""

Spawn = Callable[[int, int], Awaitable[tuple[Process, Watch]]]
"""Starts a process with these descriptors as its standard input and its standard error (and output)."""


class ForkedChild:
    """A process that was forked for us; stands in for a :class:`subprocess.Popen`.

    It stays a zombie until :meth:`wait` is called, so that its process id is not reused before.
    """

    def __init__(self, pid: int, reap: Callable[[int], None], pidfd: int = -1) -> None:
        self.pid = pid
        self._reap = reap
        self._pidfd = pidfd
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call ``on_exit`` once, in the loop, when it has ended. ``on_exit`` has to call :meth:`wait`."""
        self._status.add_done_callback(lambda _status: on_exit())

    def wait(self) -> int:
        """Return the exit code, ``-n`` for signal n. Call it only after the end was reported."""
        status = self._status.result()
        self._reap(self.pid)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return status

    def is_there(self) -> bool:
        """Return whether its id is still its own, even if a compromised helper has reaped it too early."""
        if self._pidfd < 0:
            return True
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except OSError:
            return False
        return True

    def ended(self, status: int) -> None:
        """Note that the process has ended. Called by the fork server."""
        if not self._status.done():
            self._status.set_result(status)


class ForkServer:
    """One process that forks. ``on_end`` is called in the loop when it has ended; its forks end with it.

    A helper with its own ``user`` has fewer rights than the worker, and one of its forks may have compromised it. So a
    process that it reports as its fork must have the same user. Otherwise the worker might signal a foreign process.
    """

    def __init__(self, on_end: Callable[["ForkServer"], None], *, user: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._user = user
        self._child: Process | None = None
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._connection: socket.socket | None = None
        self._words = StderrTail()
        self._stderr: PipeReader | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._asked: dict[int, asyncio.Future[ForkedChild]] = {}
        self._children: dict[int, ForkedChild] = {}
        """Its forks, each until it is reaped."""
        self.retired = False
        """Whether it ends with its last fork."""
        self._last_id = 0

    @property
    def pid(self) -> int:
        """The helper's process id, which is also its group's."""
        return self._child.pid if self._child is not None else 0

    @property
    def was_ready(self) -> bool:
        """Whether the fork server has ever imported the server."""
        return self._ready.done() and self._ready.exception() is None

    async def start(self, spawn: Spawn, *, timeout: float) -> None:
        """Start the process and wait until it is ready. Raises :class:`CannotFork` if it does not get ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        self._connection = ours
        self._stderr = PipeReader(read, self._words.feed, lambda: None)
        try:
            self._child, watch = await spawn(theirs.fileno(), write)
        except OSError as cause:
            self._disconnect("")
            raise CannotFork(cause.strerror or str(cause), cause.errno or 0) from cause
        finally:
            theirs.close()
            os.close(write)
        watch(self._exited)
        if self._connection is None:  # closed meanwhile
            raise CannotFork("it was closed")
        ours.setblocking(False)
        self._loop.add_reader(ours.fileno(), self._readable)
        await asyncio.wait({self._ready}, timeout=timeout)
        if not self._ready.done():
            raise CannotFork(f"it was not ready within {timeout:g} s")
        self._ready.result()

    async def fork(self, job: Job, stdin: int, stdout: int, stderr: int) -> ForkedChild:
        """Fork a process for ``job`` with these descriptors, which stay the caller's. Raises :class:`CannotFork`.

        If this is cancelled, the process is ended as soon as it exists.
        """
        if self._connection is None:
            raise CannotFork("it has ended")
        self._last_id += 1
        message = {"id": self._last_id, **{name: getattr(job, name) for name in Job.__slots__}}
        asked: asyncio.Future[ForkedChild] = self._loop.create_future()
        self._asked[self._last_id] = asked
        number = self._last_id
        descriptors = [os.dup(stdin), os.dup(stdout), os.dup(stderr)]
        try:
            self._send(json.dumps(message).encode(), descriptors)
        except OSError as cause:
            self._asked.pop(number, None)
            raise CannotFork(f"it cannot be reached: {cause}") from cause
        try:
            return await asked
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled() and asked.exception() is None:
                _drop(asked.result())
            raise

    def _send(self, data: bytes, descriptors: list[int]) -> None:
        """Send a message with descriptors, now or as soon as there is room, and close the descriptors."""
        assert self._connection is not None
        self._unsent.append((data, descriptors))
        if len(self._unsent) == 1:
            self._send_unsent()
            if self._unsent:
                self._loop.add_writer(self._connection.fileno(), self._writable)

    def _send_unsent(self) -> None:
        while self._unsent and self._connection is not None:
            data, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._connection, [data], descriptors)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._unsent.popleft()
                _close(descriptors)
                raise
            self._unsent.popleft()
            _close(descriptors)

    def _writable(self) -> None:
        with contextlib.suppress(OSError):  # it has ended; reading tells
            self._send_unsent()
        if not self._unsent and self._connection is not None:
            self._loop.remove_writer(self._connection.fileno())

    def retire(self) -> None:
        """Fork only what was already requested, and end after the last fork; at once if there is none."""
        self.retired = True
        self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if self.retired and not self._children and not self._asked:
            self._disconnect("its service's configuration has changed")

    async def close(self, timeout: float = END_TIMEOUT) -> None:
        """End the process and with it all its forks, by force after ``timeout`` seconds. Idempotent."""
        self._disconnect("it was closed")
        if self._child is None:
            return
        if not self.was_ready:  # it is in the middle of an import and does not listen
            self._kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        if not self._ended.is_set():
            self._kill()
            await self._ended.wait()

    def _kill(self) -> None:
        if self._child is not None and not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._child.pid, signal.SIGKILL)

    # What the helper tells.

    def _readable(self) -> None:
        while self._connection is not None:
            try:
                data = self._connection.recv(MESSAGE_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._disconnect(self._words.last_line() or "it has ended")
                return
            try:
                self._take(json.loads(data))
            except (ValueError, KeyError, TypeError) as error:
                self._disconnect(f"it broke the protocol: {error}")
                return

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"ready": _} if not self._ready.done():
                self._ready.set_result(None)
            case {"failed": str(why)}:
                self._disconnect(why)
            case {"id": int(number), "pid": int(pid)}:
                self._forked(self._asked.pop(number), pid)
            case {"id": int(number), "error": str(why), "errno": int(errno)}:
                asked = self._asked.pop(number)
                if not asked.done():
                    asked.set_exception(CannotFork(why, errno))
            case {"exit": int(pid), "code": code, "signal": number}:
                if (child := self._children.get(pid)) is not None:
                    child.ended(code if number is None else -number)
        self._leave_when_idle()

    def _forked(self, asked: "asyncio.Future[ForkedChild]", pid: int) -> None:
        pidfd = -1
        if self._user is not None:
            try:
                pidfd = os.pidfd_open(pid)
                if Path(f"/proc/{pid}").stat().st_uid != self._user:
                    raise PermissionError(f"process {pid} is not its child")
            except OSError as error:
                if pidfd >= 0:
                    os.close(pidfd)
                if not asked.done():
                    asked.set_exception(CannotFork(str(error)))
                self._disconnect(str(error))
                return
        child = self._children[pid] = ForkedChild(pid, self._reap, pidfd)
        if not asked.done():
            asked.set_result(child)
            return
        _drop(child)

    def _reap(self, pid: int) -> None:
        self._children.pop(pid, None)
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it has ended, and its children are somebody else's now
                self._send(json.dumps({"reap": pid}).encode(), [])
        self._leave_when_idle()

    def _exited(self) -> None:
        assert self._child is not None
        code = self._child.wait()
        self._disconnect(self._words.last_line() or f"it has ended ({code})")
        self._ended.set()
        self._on_end(self)

    def _disconnect(self, why: str) -> None:
        """Close the socket of the helper, which ends it. All waiting and dependent tasks get the reason."""
        if self._connection is None:
            return
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        self._connection = None
        while self._unsent:
            _close(self._unsent.popleft()[1])
        if self._stderr is not None:
            self._stderr.close()
        if not self._ready.done():
            self._ready.set_exception(CannotFork(why))
            self._ready.exception()  # nobody has to want to know
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(CannotFork(why))
        self._asked.clear()
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.ended(-signal.SIGKILL)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _forget(child: ForkedChild) -> None:
    child.wait()


def _drop(child: ForkedChild) -> None:
    """End a process whose owner has ended."""
    child.watch(partial(_forget, child))
    if not child.is_there():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(child.pid, signal.SIGKILL)
