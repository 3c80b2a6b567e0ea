"""The fork server itself: imports a Python server once and forks a process of it per session. Standard library only.

Run by the server's own interpreter as ``python fork/child.py <module:function> <folder> <sys.argv> ...``, where
``folder`` is put into ``sys.path`` unless it is empty, with one end of a SOCK_SEQPACKET pair as standard input.
Each message is a JSON object::

    it says    {"ready": pid}                       the import is done
               {"failed": "why"}                    it cannot be; the process ends
               {"id": 1, "pid": 4711}               the fork that was asked for, or
               {"id": 1, "error": "why"}
               {"exit": 4711, "code": 0, "signal": null}
    it hears   {"id": 1, "argv": [], ...} + stdin, stdout, stderr      fork; see ``Job``
               {"reap": 4711}                       whoever wanted to signal that group has done so

The end of its input means that the worker is gone; it ends then, and the kernel ends its forks with it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import random
import resource
import select
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38
MESSAGE_SIZE = 1 << 20

REHEARSAL_PATIENCE = 2
"""Seconds that the rehearsal may take; a server that does not leave when its input ends takes them all."""

_CLIENT = {"name": "mcp-sessions", "version": "0"}
_MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "mcp-sessions", "version": "0"},
}
CONVERSATION: list[tuple[str, dict[str, Any]]] = [
    ("server/discover", {"_meta": _MODERN}),
    ("initialize", _HANDSHAKE),
    ("notifications/initialized", {}),
    ("tools/list", {"_meta": _MODERN}),
]
"""How any session begins, in either era of MCP; what does not fit is answered with an error."""

Job = dict[str, Any]
"""``id argv env cwd limits no_new_privs ignore_term``; ``limits`` maps names as RLIMIT_CORE to both limits."""

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: Any) -> None:
    """Set one thing of this process, as the manual of prctl says; raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


class Helper:
    """The parent: one thread, one selector."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.selector = selectors.DefaultSelector()
        self.selector.register(connection, selectors.EVENT_READ)
        self.pidfds: dict[int, int] = {}

    def say(self, **message: Any) -> None:
        """Send one message."""
        self.connection.send(json.dumps(message).encode())

    def serve(self) -> Job:
        """Fork as told until the worker is gone. Returns only in a fork, with what that has to do."""
        while True:
            for key, _ in self.selector.select():
                if isinstance(key.data, int):
                    self.report(key.data)
                elif (job := self.hear()) is not None:
                    return job

    def hear(self) -> Job | None:
        """Take one message; a job in the fork that is to do it."""
        data, descriptors, _, _ = socket.recv_fds(self.connection, MESSAGE_SIZE, 3)
        if not data:
            os._exit(0)
        message: Job = json.loads(data)
        if "reap" in message:
            os.waitpid(message["reap"], 0)
            return None
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.say(id=message["id"], error=str(error))
            pid = -1
        if pid == 0:
            become(
                message, descriptors, parent, [self.connection.fileno(), self.selector.fileno(), *self.pidfds.values()]
            )
            return message
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self.pidfds[pid] = os.pidfd_open(pid)
            self.selector.register(self.pidfds[pid], selectors.EVENT_READ, pid)
            self.say(id=message["id"], pid=pid)
        return None

    def report(self, pid: int) -> None:
        """A fork has ended: tell, and leave it a zombie until the worker says that its number is not needed."""
        pidfd = self.pidfds.pop(pid)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        by_itself = ended.si_code == os.CLD_EXITED
        self.say(exit=pid, code=ended.si_status if by_itself else None, signal=None if by_itself else ended.si_status)


def become(job: Job, descriptors: list[int], parent: int, not_ours: list[int]) -> None:
    """Turn this fork into the session's process; on failure it says so on its stderr and ends."""
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in (*descriptors, *not_ours):
            os.close(descriptor)
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has died before we asked
            os._exit(1)
        ignored = signal.SIG_IGN if job["ignore_term"] else signal.SIG_DFL
        for number, handler in ((signal.SIGTERM, ignored), (signal.SIGHUP, signal.SIG_DFL)):
            signal.signal(number, handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        for name, value in job["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if job["no_new_privs"]:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
        forget(job)
    except BaseException as error:  # noqa: BLE001 - nothing of the parent's may run here
        os.write(2, f"the forked process cannot be set up: {type(error).__name__}: {error}\n".encode())
        os._exit(70)


def forget(job: Job) -> None:
    """Make anew what a process remembers of its environment or rolls only once."""
    sys.argv = list(job["argv"])
    tempfile.tempdir = None
    time.tzset()
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()  # type: ignore[attr-defined,unused-ignore]
    prctl(PR_SET_NAME, Path(sys.argv[0]).name.encode()[:15])
    gc.enable()


def load(target: str) -> Callable[[], Any]:
    """The function of ``module:function``."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{target} is no function")
    be_alone()
    rehearse(found)
    be_alone()
    return found  # type: ignore[no-any-return]


def be_alone() -> None:
    """Raise RuntimeError when what was imported has started threads, which a fork would lose."""
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - names are all we want
        raise RuntimeError("importing it starts threads, which a fork would lose")


def rehearse(function: Callable[[], Any]) -> None:
    """Import what the function imports only when it runs (a third of a start): a fork tries it on a short session.

    That fork talks to nobody and ends with its input; it has the helper's environment and folder.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _rehearse(function, writing)
    os.close(writing)
    names = b""
    while select.select([reading], [], [], REHEARSAL_PATIENCE + 1)[0] and (more := os.read(reading, 65536)):
        names += more
    os.close(reading)
    for signalled in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            signalled(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for name in names.decode().split():
        with contextlib.suppress(Exception):  # it may only be there under some condition
            importlib.import_module(name)


def _rehearse(function: Callable[[], Any], writing: int) -> NoReturn:
    before = set(sys.modules)
    end = os._exit

    def leave(status: int = 0, *_: object) -> NoReturn:  # noqa: ARG001 - it is called as os._exit and by a signal
        os.write(writing, "\n".join(name for name in list(sys.modules) if name not in before).encode())
        end(0)

    try:
        os._exit = leave  # the way out of servers whose threads still wait for input
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGALRM, leave)
        signal.alarm(REHEARSAL_PATIENCE)
        theirs, ours = os.pipe()
        for number, (method, params) in enumerate(CONVERSATION):
            message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
            if not method.startswith("notifications/"):
                message["id"] = number
            os.write(ours, json.dumps(message).encode() + b"\n")
        os.close(ours)
        os.dup2(theirs, 0)
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        run(function)
    finally:
        leave()


def run(function: Callable[[], Any]) -> Any:
    """Call the function as a console script does, or run it when it is a coroutine function."""
    outcome = function()
    if inspect.iscoroutine(outcome):
        import asyncio  # noqa: PLC0415 - a server that is not asynchronous need not have it

        outcome = asyncio.run(outcome)
    return outcome


def leave(work: Callable[..., Any], *arguments: Any) -> NoReturn:
    """Do the work and end as the interpreter does, but do not take apart what is about to vanish.

    That would copy most of the memory that the fork shares with the helper, and take longer than the start.
    """
    code = 1
    try:
        sys.exit(work(*arguments))
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code = end.code or 0
        else:
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - as at the top of any program
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as multiprocessing does here
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code & 0xFF)


def main() -> None:
    """Import, fork when told, and in the forks run the function as a console script does."""
    target, folder, *sys.argv = sys.argv[1:]
    here = str(Path(__file__).parent)
    sys.path[:] = [*([folder] if folder else []), *(path for path in sys.path if path != here)]
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    helper = Helper(connection)
    try:
        function = load(target)
    except BaseException as error:
        helper.say(failed=f"{type(error).__name__}: {error}")
        raise
    # What is there now is never collected, so that the collector does not copy every page into every fork.
    gc.collect()
    gc.disable()
    gc.freeze()
    sys.stdout.flush()
    sys.stderr.flush()
    helper.say(ready=os.getpid())
    helper.serve()
    leave(run, function)


if __name__ == "__main__":
    main()
