"""Running Python as root or as a user without rights, whatever this machine lets a user read.

As root, the interpreter and this repository are shown to that user in a mount namespace of their own, because they may
lie where only root may look.
"""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65_534


def why_not(whom: str) -> str:
    """Why this cannot be run as ``whom``; empty when it can."""
    if whom == "root" and os.geteuid() != 0:
        return "left out: what a worker of root's holds is tried as root"
    if os.geteuid() == 0 and not (shutil.which("unshare") and shutil.which("setpriv")):
        return "left out: as root it takes unshare and setpriv (util-linux)"
    return ""


def command_as(whom: str, *arguments: str) -> list[str]:
    """The command that runs ``python arguments`` as ``whom``: root, or user."""
    if os.geteuid() != 0:
        return [sys.executable, *arguments]
    needed = [str(path) for path in (Path(sys.base_prefix), ROOT, Path(sysconfig.get_path("purelib")))]
    closed = {str(first) for path in needed if (first := first_closed(Path(path))) is not None}
    script = "set -e; mount -t tmpfs -o mode=755 tmpfs /mnt\n"
    for number, path in enumerate(needed):
        script += f"mkdir /mnt/{number}; mount --bind {shlex.quote(path)} /mnt/{number}\n"
    for path in sorted(closed):
        script += f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(path)}\n"
    for number, path in enumerate(needed):
        if any(Path(path).is_relative_to(one) for one in closed):
            script += f"mkdir -p {shlex.quote(path)}; mount --bind /mnt/{number} {shlex.quote(path)}\n"
    become = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all" if whom == "user" else ""
    python = shlex.join([sys.executable, *arguments])
    script += f"cd {shlex.quote(str(ROOT))}; PYTHONDONTWRITEBYTECODE=1 exec {become} {python}"
    return ["unshare", "--mount", "/bin/sh", "-c", script]


def first_closed(path: Path) -> Path | None:
    """The topmost folder above ``path`` that a user without rights may not enter."""
    return next((above for above in reversed(path.parents) if not above.stat().st_mode & 1), None)
