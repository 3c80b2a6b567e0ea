"""The fork server itself: imports a Python server once and forks a process of it per session. Standard library only.

Run by the server's own interpreter as ``python forkserver_child.py <module:function> <folder for sys.path or "">``,
with one end of a SOCK_SEQPACKET pair as standard input. Each message is a JSON object::

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

import ctypes
import gc
import importlib
import inspect
import json
import os
import random
import resource
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38
MESSAGE_SIZE = 1 << 20

Job = dict[str, Any]
"""``id argv env cwd limits no_new_privs ignore_term``; ``limits`` maps names as RLIMIT_CORE to both limits."""

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: Any) -> None:
    """prctl(2); raises OSError."""
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
        message = json.loads(data)
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
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are all we want
    if threads > 1 or threading.active_count() > 1:
        raise RuntimeError(f"importing {module} starts threads, which a fork would lose")
    return found  # type: ignore[no-any-return]


def main() -> None:
    """Import, fork when told, and in the forks run the function as a console script does."""
    target, folder = sys.argv[1:]
    here = str(Path(__file__).parent)
    sys.path[:] = [*([folder] if folder else []), *(path for path in sys.path if path != here)]
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    helper = Helper(connection)
    sys.argv = [target]
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
    outcome = function()
    if inspect.iscoroutine(outcome):
        import asyncio  # noqa: PLC0415 - a server that is not asynchronous need not have it

        outcome = asyncio.run(outcome)
    sys.exit(outcome)


if __name__ == "__main__":
    main()
