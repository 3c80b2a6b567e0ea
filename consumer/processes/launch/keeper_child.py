"""The keeper: the parent of a worker's servers, which ends whatever they started. Standard library only.

Run as ``python -I -S keeper_child.py <base folder> <mark> [again]`` with one end of a SOCK_SEQPACKET pair as standard
input. Each message is a JSON object::

    it says    {"ready": pid}
               {"id": 1, "pid": 4711}               the process that was asked for, or
               {"id": 1, "error": "why", "errno": 11}
               {"exit": 4711, "code": 0, "signal": null}
    it hears   {"id": 1, "argv": [], ...} + stdin, stdout, stderr      start; see ``Job``
               {"reap": 4711}                       whoever wanted to signal that group has done so

No process can leave it. It is a subreaper (PR_SET_CHILD_SUBREAPER), and so is each server: a process whose parent has
ended becomes a child of its own server while that lives, and of the keeper afterwards, whatever it did to its session,
its group, its parents or its environment. So a child that the keeper did not start belongs to a session that has ended,
and is killed. A server's own user, where it has one, is swept as well.

The end of its input means that the worker is gone. Then it kills everything below it, removes the base folder, and
ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from consumer.processes.launch.removal import remove_tree
else:  # run as a program, in any interpreter, which may not have our package
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from removal import remove_tree

    sys.path.pop(0)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
MESSAGE_SIZE = 1 << 20

LOOK_AGAIN = 0.02
"""Seconds between two checks for strays while there are some."""

LOOK = 1.0
"""Seconds between two checks otherwise, because a server may have given up being a subreaper."""

END_TIMEOUT = 2.0
"""Seconds within which all its children must be gone after the worker's end."""

Job = dict[str, Any]
"""``id argv env cwd limits no_new_privs ignore_term user as_user``: ``limits`` maps names to both limits, ``user`` is
the id of a user that belongs to this process alone, and ``as_user`` whether it is started as that user."""

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: Any) -> None:
    """Set an attribute of this process, as the manual of prctl says. Raises OSError."""
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


class Parent:
    """A process that forks on request, with one thread and one selector. In a fork, ``serve`` returns the job."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.selector = selectors.DefaultSelector()
        self.selector.register(connection, selectors.EVENT_READ)
        self.pidfds: dict[int, int] = {}
        self.users: dict[int, int] = {}
        self.children = set(children_of(os.getpid()))
        """The ids of its forks that are not reaped yet."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)

    def say(self, **message: Any) -> None:
        """Send one message. A lost reader is noticed when reading."""
        with contextlib.suppress(OSError):
            self.connection.send(json.dumps(message).encode())

    def serve(self, gone: Callable[[], NoReturn]) -> Job:
        """Fork on request until the worker is ``gone``. It returns only in a fork, with the fork's job."""
        looked = 0.0
        wait = LOOK
        while True:
            for key, _ in self.selector.select(wait):
                if isinstance(key.data, int):
                    self.report(key.data)
                elif (job := self.hear(gone)) is not None:
                    return job
            if (now := time.monotonic()) - looked >= min(wait, LOOK) - 0.001:
                wait, looked = LOOK_AGAIN if self.end_strays() else LOOK, now

    def hear(self, gone: Callable[[], NoReturn]) -> Job | None:
        """Take one message. In a fork, return the job that it has to do."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.connection, MESSAGE_SIZE, 3)
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            gone()
        message: Job = json.loads(data)
        if "reap" in message:
            self.reap(message["reap"])
            return None
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self.say(id=message["id"], error=error.strerror or str(error), errno=error.errno or 0)
            pid = -1
        if pid == 0:
            become(
                message, descriptors, parent, [self.connection.fileno(), self.selector.fileno(), *self.pidfds.values()]
            )
            return message
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self.children.add(pid)
            if message["user"] is not None:
                self.users[pid] = message["user"]
            self.pidfds[pid] = os.pidfd_open(pid)
            self.selector.register(self.pidfds[pid], selectors.EVENT_READ, pid)
            self.say(id=message["id"], pid=pid)
        return None

    def report(self, pid: int) -> None:
        """End what a child left, and report its end. It stays a zombie until its process id is not needed."""
        pidfd = self.pidfds.pop(pid)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        signalled(os.killpg, pid)
        if (user := self.users.pop(pid, None)) is not None:
            end_user(user)
        for _ in range(10):  # the child of a stray is a stray once its parent is gone; the next look ends the rest
            if not self.end_strays():
                break
            time.sleep(0.001)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        by_itself = ended.si_code == os.CLD_EXITED
        self.say(exit=pid, code=ended.si_status if by_itself else None, signal=None if by_itself else ended.si_status)

    def reap(self, pid: int) -> None:
        """Reap an ended child, so that its process id becomes free."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        self.children.discard(pid)

    def end_strays(self) -> bool:
        """Kill and reap children that it did not fork: an ended session left them. Return whether there were any."""
        strays = [pid for pid in children_of(os.getpid()) if pid not in self.children]
        for pid in strays:
            signalled(os.kill, pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return bool(strays)

    def end_all(self) -> None:
        """Kill every process below the keeper, within a bounded time."""
        deadline = time.monotonic() + END_TIMEOUT
        for pid in self.pidfds:
            signalled(os.killpg, pid)
            signalled(os.kill, pid)
        for user in self.users.values():
            end_user(user)
        while (left := children_of(os.getpid())) and time.monotonic() < deadline:
            for pid in left:
                signalled(os.kill, pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)


def become(job: Job, descriptors: list[int], parent: int, not_ours: list[int]) -> None:
    """Turn this fork into the process that ``job`` describes; on failure it says so on its stderr and ends."""
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        for descriptor in (*descriptors, *not_ours):
            os.close(descriptor)
        os.setsid()
        os.chdir(job["cwd"])
        for name, value in job["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if job["as_user"]:
            os.setgroups([])
            os.setresgid(job["user"], job["user"], job["user"])
            os.setresuid(job["user"], job["user"], job["user"])
        # After the change of user, which takes it away.
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has died before we asked
            os._exit(1)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        ignored = signal.SIG_IGN if job["ignore_term"] else signal.SIG_DFL
        for number, handler in (
            (signal.SIGTERM, ignored),
            (signal.SIGHUP, signal.SIG_DFL),
            (signal.SIGINT, signal.SIG_DFL),
        ):
            signal.signal(number, handler)
        if job["no_new_privs"]:
            prctl(PR_SET_NO_NEW_PRIVS, 1)
    except BaseException as error:  # noqa: BLE001 - nothing of the parent's may run here
        os.write(2, f"the process cannot be set up: {type(error).__name__}: {error}\n".encode())
        os._exit(70)


def start_program(job: Job) -> NoReturn:
    """Become the program of ``job``."""
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execve(job["argv"][0], job["argv"], job["env"])  # noqa: S606 - the command is the operator's
    except OSError as error:
        os.write(2, f"{job['argv'][0]} cannot be started: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def children_of(pid: int) -> list[int]:
    """Return the children of a process, from the kernel's own list if it has one."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        return [child for child, parent in parents().items() if parent == pid]


def parents() -> dict[int, int]:
    """Return each process with its parent."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[int(stat.parent.name)] = int(stat.read_bytes().rpartition(b")")[2].split()[1])
    return found


def signalled(action: Callable[[int, int], None], number: int) -> None:
    """Send SIGKILL by ``os.kill`` or ``os.killpg``. It is no error if no process is left."""
    with contextlib.suppress(OSError):
        action(number, signal.SIGKILL)


def end_user(user: int) -> None:
    """Kill every process of ``user``, with one kernel call that no fork can escape."""
    try:
        pid = os.fork()
    except OSError:
        return
    if pid == 0:
        try:
            os.setresuid(user, user, user)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def carriers(mark: bytes) -> list[int]:
    """Return the processes whose environment has ``mark``; none if there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def end_carriers(mark: bytes) -> None:
    """Kill every process that carries ``mark``, for those that have no keeper any more. Bounded."""
    for _ in range(20):
        if not (left := carriers(mark)):
            return
        for pid in left:
            signalled(os.kill, pid)
        time.sleep(0.02)


def main() -> None:
    """Start servers on request. When the worker is gone, end them all and remove their files."""
    base, mark = Path(sys.argv[1]), sys.argv[2].encode()
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    prctl(PR_SET_DUMPABLE, 0)
    connection = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    if sys.argv[3:]:  # the one before was killed, and what its servers had started may have outlived it
        end_carriers(mark)
    parent = Parent(connection)

    def gone() -> NoReturn:
        parent.end_all()
        end_carriers(mark)
        remove_tree(base)
        os._exit(0)

    parent.say(ready=os.getpid())
    start_program(parent.serve(gone))


if __name__ == "__main__":
    main()
