"""The base folder of a worker's sessions, and what tells whether its worker lives: a lock that the kernel lets go of.

A worker that is killed is cleared up after by its warden. Where that was killed as well (a container out of memory, a
cgroup that is ended), the next worker on the same host finds the folder without a living owner and sweeps it up, with
every process that still carries its mark.
"""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from consumer.processes.launch import warden_child
from consumer.processes.launch.environment import MARKER, parent_of_bases

NAME = "mcp-sessions-"
OWNER = ".worker"
"""The file that is locked while the worker lives; says on which host, and what its processes are marked with."""

log = structlog.get_logger(__name__)


class Base:
    """A new base folder below ``parent``; it cannot be listed, so that no server finds the others by looking."""

    def __init__(self, parent: Path, marker: str) -> None:
        parent = parent.absolute()
        parent.mkdir(parents=True, exist_ok=True)
        word = secrets.token_hex(8)
        nascent = parent / f".{NAME}{word}"
        nascent.mkdir(mode=0o311)
        self._lock = os.open(nascent / OWNER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, json.dumps({"host": socket.gethostname(), "marker": marker, "pid": os.getpid()}).encode())
        self.path = parent / f"{NAME}{word}"
        nascent.rename(self.path)  # under its name it is never without its lock

    def forget(self) -> None:
        """Let go of the lock; the folder has been removed."""
        os.close(self._lock)


def sweep(sandbox_dir: Path | None) -> None:
    """Remove what killed workers of this host have left, folders and processes. Blocking: run it in a thread.

    Never raises: what cannot be removed (another user's, say) is left, and told.
    """
    for path in parent_of_bases(sandbox_dir).glob(f"{NAME}*"):
        try:
            with _taken_over(path) as owner:
                if owner is not None:
                    log.warning("sweep.found", folder=str(path), pid=owner.get("pid"))
                    warden_child.clear(set(), f"{MARKER}={owner['marker']}".encode(), path)
        except FileNotFoundError:
            continue  # it only has such a name, or its worker has just removed it
        except OSError as error:
            log.info("sweep.left", folder=str(path), error=str(error))


@contextmanager
def _taken_over(path: Path) -> Iterator[dict[str, Any] | None]:
    """What its owner wrote, with the lock held; None when the owner lives, or is none of this host's."""
    lock = os.open(path / OWNER, os.O_RDWR | os.O_CLOEXEC)
    try:
        owner: Any = None
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(ValueError):
                owner = json.loads(os.read(lock, 4096))
        mine = isinstance(owner, dict) and owner.get("host") == socket.gethostname() and bool(owner.get("marker"))
        yield owner if mine else None
    finally:
        os.close(lock)
