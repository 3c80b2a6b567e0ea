"""The worker's end of a fork server: a helper that has imported a Python server once, and forks it per session.

What the helper does, and the messages on the socket, are in :mod:`consumer.processes.fork.child`.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from consumer.processes.stdio.pipes import PipeReader
from consumer.processes.stdio.spawn import fork, watch
from consumer.processes.stdio.stderr_tail import Tail

MESSAGE_SIZE = 1 << 16
END_PATIENCE = 1.0
"""Seconds that the helper has to leave when its socket is closed."""

log = structlog.get_logger(__name__)


class CannotFork(Exception):
    """There is no helper, or it did not fork; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a fork becomes; ``limits`` maps names as ``RLIMIT_CORE`` to their value."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    limits: Mapping[str, int] = field(default_factory=dict)
    no_new_privs: bool = True
    ignore_term: bool = False


class ForkedChild:
    """A process that is the helper's child; stands in for a :class:`subprocess.Popen`.

    It stays a zombie until :meth:`wait` is called, so that until then nobody else can have its number.
    """

    def __init__(self, pid: int, reap: Callable[[int], None]) -> None:
        self.pid = pid
        self._reap = reap
        self._status: int | None = None
        self._on_exit: Callable[[], None] = lambda: None

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Have ``on_exit`` called once, in the loop, when it has ended; it has to call :meth:`wait`."""
        self._on_exit = on_exit
        if self._status is not None:
            asyncio.get_running_loop().call_soon(on_exit)

    def wait(self) -> int:
        """The exit code, ``-n`` for signal n; only after its end was told."""
        assert self._status is not None
        self._reap(self.pid)
        return self._status

    def ended(self, status: int) -> None:
        """For the fork server: it has ended."""
        if self._status is None:
            self._status = status
            self._on_exit()


class ForkServer:
    """One helper process. ``on_end`` is called in the loop when it has ended, asked or not; its forks end with it."""

    def __init__(self, on_end: Callable[["ForkServer"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._words = Tail()
        self._stderr: PipeReader | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._asked: dict[int, asyncio.Future[ForkedChild]] = {}
        self._children: dict[int, ForkedChild] = {}
        self.retired = False
        """Whether it ends with its last fork."""
        self._last_id = 0

    @property
    def pid(self) -> int:
        """The helper's process id, which is also its group's."""
        return self._child.pid if self._child is not None else 0

    @property
    def was_ready(self) -> bool:
        """Whether it has ever imported the server."""
        return self._ready.done() and self._ready.exception() is None

    async def start(self, argv: list[str], environment: Mapping[str, str], cwd: str, *, patience: float) -> None:
        """Start the helper and wait until it has imported the server; :class:`CannotFork` if that fails."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        self._connection = ours
        self._stderr = PipeReader(read, self._words.feed, lambda: None)
        try:
            self._child = fork(
                argv, stdin=theirs.fileno(), stdout=write, stderr=write, environment=environment, cwd=cwd
            )
        except OSError as cause:
            self._disconnect("")
            raise CannotFork(str(cause)) from cause
        finally:
            theirs.close()
            os.close(write)
        watch(self._child, self._exited)
        ours.setblocking(False)
        self._loop.add_reader(ours.fileno(), self._readable)
        await asyncio.wait({self._ready}, timeout=patience)
        if not self._ready.done():
            raise CannotFork(f"the import took more than {patience:g} s")
        self._ready.result()

    async def fork(self, job: Job, stdin: int, stdout: int, stderr: int) -> ForkedChild:
        """A process that does ``job`` on these descriptors, which stay the caller's; :class:`CannotFork`.

        When it is cancelled, the process is ended as soon as it is there.
        """
        if self._connection is None:
            raise CannotFork("it has ended")
        self._last_id += 1
        message = {"id": self._last_id, **{name: getattr(job, name) for name in Job.__slots__}}
        asked: asyncio.Future[ForkedChild] = self._loop.create_future()
        self._asked[self._last_id] = asked
        try:
            socket.send_fds(self._connection, [json.dumps(message).encode()], [stdin, stdout, stderr])
        except OSError as cause:
            del self._asked[self._last_id]
            raise CannotFork(f"it cannot be told: {cause}") from cause
        try:
            return await asked
        except asyncio.CancelledError:
            if not asked.cancelled() and asked.exception() is None:
                _drop(asked.result())
            raise

    def retire(self) -> None:
        """Fork no more than was asked for, and end when the last fork has gone; at once, if there is none."""
        self.retired = True
        self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if self.retired and not self._children and not self._asked:
            self._disconnect("its service has been configured anew")

    async def close(self) -> None:
        """End the helper and with it all its forks. Bounded; idempotent."""
        self._disconnect("it was closed")
        if self._child is None:
            return
        if not self.was_ready:  # it is in the middle of an import and does not listen
            self._child.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_PATIENCE):
                await self._ended.wait()
        if not self._ended.is_set():
            self._child.kill()
            await self._ended.wait()

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
            self._take(json.loads(data))

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"ready": _} if not self._ready.done():
                self._ready.set_result(None)
            case {"failed": str(why)}:
                self._disconnect(why)
            case {"id": int(number), "pid": int(pid)}:
                self._forked(self._asked.pop(number), pid)
            case {"id": int(number), "error": str(why)}:
                asked = self._asked.pop(number)
                if not asked.done():
                    asked.set_exception(CannotFork(why))
            case {"exit": int(pid), "code": code, "signal": number}:
                if (child := self._children.pop(pid, None)) is not None:
                    child.ended(code if number is None else -number)
        self._leave_when_idle()

    def _forked(self, asked: "asyncio.Future[ForkedChild]", pid: int) -> None:
        child = self._children[pid] = ForkedChild(pid, self._reap)
        if not asked.done():
            asked.set_result(child)
            return
        _drop(child)

    def _reap(self, pid: int) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # it has ended, and its children are somebody else's now
                self._connection.send(json.dumps({"reap": pid}).encode())

    def _exited(self) -> None:
        assert self._child is not None
        self._child.wait()
        self._disconnect(self._words.last_line() or f"it has ended ({self._child.returncode})")
        self._ended.set()
        self._on_end(self)

    def _disconnect(self, why: str) -> None:
        """Let go of the helper, which ends by that; all that waits for it or depends on it hears ``why``."""
        if self._connection is None:
            return
        self._loop.remove_reader(self._connection.fileno())
        self._connection.close()
        self._connection = None
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


def _forget(child: ForkedChild) -> None:
    child.wait()


def _drop(child: ForkedChild) -> None:
    """End a process whose owner has gone."""
    child.watch(partial(_forget, child))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(child.pid, signal.SIGKILL)
