"""Virtual environments for packages of others, apart from ours. Each is made once, even for concurrent callers."""

import fcntl
import hashlib
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

INSTALL_TIMEOUT = 600.0


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of an environment in ``folder`` that has ``packages``; install them if needed.

    Raises:
        subprocess.CalledProcessError: pip could not install them.
        subprocess.TimeoutExpired: pip took longer than ``INSTALL_TIMEOUT`` seconds.
    """
    python, stamp = folder / "bin" / "python", folder / ".installed"
    # To import them would say more, and costs seconds each time.
    wanted = hashlib.sha256("\0".join([str(folder), sys.version, sys.base_prefix, *packages]).encode()).hexdigest()
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
            print(f"installing {', '.join(packages)} into {folder.name}", file=sys.stderr)
            venv.create(folder, clear=True, with_pip=False, symlinks=True)
            # What is never imported need not be compiled, which is a third of the work.
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
            subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True, timeout=INSTALL_TIMEOUT)
            stamp.write_text(wanted)
    return python
