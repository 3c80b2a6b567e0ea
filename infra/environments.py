"""Virtual environments for packages of others, apart from ours. Each is made once, even for concurrent callers."""

import fcntl
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

INSTALL_TIMEOUT = 600.0


def environment(folder: Path, modules: Sequence[str], packages: Sequence[str]) -> Path:
    """Return the Python of an environment in ``folder`` that can import ``modules``; install ``packages`` if needed.

    Raises:
        subprocess.CalledProcessError: pip could not install them.
        subprocess.TimeoutExpired: pip took longer than ``INSTALL_TIMEOUT`` seconds.
    """
    python = folder / "bin" / "python"
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _imports(python, modules):
            print(f"installing {', '.join(packages)} into {folder.name}", file=sys.stderr)
            venv.create(folder, clear=True, with_pip=False, symlinks=True)
            # What is never imported need not be compiled, which is a third of the work.
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
            subprocess.run([*pip, "--disable-pip-version-check", *packages], check=True, timeout=INSTALL_TIMEOUT)
    return python


def _imports(python: Path, modules: Sequence[str]) -> bool:
    command = [str(python), "-W", "ignore", "-c", f"import {', '.join(modules)}"]
    return python.exists() and not subprocess.run(command, check=False, capture_output=True).returncode
