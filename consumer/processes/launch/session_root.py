"""The base folder of a worker's sessions, with a lock that shows whether the worker is alive.

If a worker is killed, its keeper cleans up. If the keeper was killed too (a container out of memory, a cgroup that
ended), the next worker on the same host finds the folder without a live owner. It removes the folder, and every process
that still carries its mark. Other users may write into the parent folder. So only plain files of our own user are
trusted, no link is followed, and no open can block.
"""

import fcntl
import json
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from consumer.processes.launch import keeper_child
from consumer.processes.launch.minimal_environment import MARKER, parent_of_bases
from consumer.processes.launch.removal import remove_tree

NAME = "mcp-sessions-"
OWNER = ".worker"
"""The file that is locked while the worker lives. It contains the host's name."""

log = structlog.get_logger(__name__)


class NotOurs(OSError):
    """A file or folder with a name of ours was made by another user, or is of another kind."""


class SessionRoot:
    """A new base folder below ``parent``. It cannot be listed, so that servers cannot find each other's folders."""

    def __init__(self, parent: Path) -> None:
        parent = parent.absolute()
        parent.mkdir(parents=True, exist_ok=True)
        word = secrets.token_hex(8)
        nascent = parent / f".{NAME}{word}"
        nascent.mkdir(mode=0o311)
        nascent.chmod(0o311)  # whatever the umask is: a server may be another user
        self._lock = os.open(nascent / OWNER, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        self.path = parent / f"{NAME}{word}"
        nascent.rename(self.path)  # under its name it is never without its lock

    @property
    def mark(self) -> str:
        """The mark in the environment of its processes."""
        return str(self.path)

    def forget(self) -> None:
        """Release the lock after the folder was removed."""
        os.close(self._lock)


def sweep(sandbox_dir: Path | None) -> None:
    """Remove the folders and processes that killed workers of this host left. Blocking: run it in a thread.

    It never raises, and always ends. What cannot be removed, or is not ours, is left and logged.
    """
    try:
        found = sorted(parent_of_bases(sandbox_dir).glob(f"{NAME}*"))
    except OSError as error:
        log.info("sweep.left", folder=str(parent_of_bases(sandbox_dir)), error=str(error))
        return
    for path in found:
        try:
            with _taken_over(path) as owner:
                if owner is not None:
                    log.warning("sweep.found", folder=str(path), pid=owner.get("pid"))
                    keeper_child.end_carriers(f"{MARKER}={path}".encode())
                    if not remove_tree(path):
                        log.info("sweep.left", folder=str(path), error="it could not be removed")
        except FileNotFoundError:
            continue  # it only has such a name, or its worker has just removed it
        except OSError as error:
            log.info("sweep.left", folder=str(path), error=str(error))


@contextmanager
def _taken_over(path: Path) -> Iterator[dict[str, Any] | None]:
    """Lock the folder and return what its owner wrote; None if the owner is alive or runs on another host."""
    with _opened(path) as lock:
        owner: Any = None
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(ValueError):
                owner = json.loads(os.read(lock, 4096))
        mine = isinstance(owner, dict) and owner.get("host") == socket.gethostname()
        yield owner if mine else None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open the lock file of a base folder after checking both. Raises :class:`NotOurs`."""
    folder = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(folder), stat.S_ISDIR, "folder")
        # Looked at before it is opened, because opening a device may do something; and after, because it may change.
        _check(os.stat(OWNER, dir_fd=folder, follow_symlinks=False), stat.S_ISREG, "file")
        lock = os.open(OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            _check(os.fstat(lock), stat.S_ISREG, "file")
            yield lock
        finally:
            os.close(lock)
    finally:
        os.close(folder)


def _check(seen: os.stat_result, is_kind: Any, kind: str) -> None:
    if not is_kind(seen.st_mode):
        raise NotOurs(f"expected a {kind}, found something else")
    if seen.st_uid != os.geteuid():
        raise NotOurs(f"its {kind} belongs to another user ({seen.st_uid})")
    if stat.S_ISREG(seen.st_mode) and seen.st_nlink != 1:
        raise NotOurs("its lock file has a second hard link")
    if seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotOurs(f"other users can write to its {kind}")
