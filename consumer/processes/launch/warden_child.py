"""The warden itself: outlives the worker for a moment and clears up behind it. Standard library only.

Run as ``python -I -S warden_child.py <base folder> <marker>`` in a session of its own. Standard input carries lines
``+<process group>`` and ``-<process group>``; its end means that the worker is gone. Then every group that is left
is killed, then whatever else has the marker in its environment (a child that left its group), and the base folder
with the sessions' files is removed.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 20


def carriers(marker: bytes) -> list[int]:
    """Processes whose environment has ``marker``; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def kill(action: Callable[[int, int], None], number: int) -> None:
    """Send SIGKILL by ``os.kill`` or ``os.killpg``; that there is nobody left is the aim."""
    try:
        action(number, signal.SIGKILL)
    except OSError:
        return


def clear(groups: set[int], marker: bytes, base: Path) -> None:
    """End what is left of the worker's servers and remove their files."""
    for group in groups:
        kill(os.killpg, group)
    for _ in range(ROUNDS):
        left = carriers(marker)
        if not left:
            break
        for pid in left:
            kill(os.kill, pid)
        time.sleep(0.02)
    for _ in range(ROUNDS):
        allow(base)
        for path, names, _files in os.walk(base):
            for name in names:
                if not Path(path, name).is_symlink():
                    allow(Path(path, name))
        shutil.rmtree(base, ignore_errors=True)
        if not base.exists():
            return
        time.sleep(0.02)


def allow(directory: Path) -> None:
    """Make a read-only directory removable."""
    try:
        directory.chmod(0o700)
    except OSError:
        return


def main() -> None:
    """Listen until the worker is gone, then clear up."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    base, marker = Path(sys.argv[1]), sys.argv[2].encode()
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    clear(groups, marker, base)


if __name__ == "__main__":
    main()
