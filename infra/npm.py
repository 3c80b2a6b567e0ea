"""Tools that only exist for Node.js: ``infra/node`` has their versions, and scripts that run them.

They are installed when they are first needed, into ``node_modules`` beside their versions. Nothing of the product needs
them.
"""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "node"
MCP = FOLDER / "mcp"
"""The folder with MCP clients and the official conformance suite, and with a Node.js that is new enough for it."""

INSTALL_TIMEOUT = 300.0
RUN_TIMEOUT = 60.0


class NpmFailed(Exception):
    """The validators cannot be installed; the message is npm's."""


def available() -> bool:
    """Return whether npm is installed."""
    return shutil.which("npm") is not None and shutil.which("node") is not None


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of ``infra/node`` with Node.js.

    Raises:
        NpmFailed: its packages cannot be installed.
    """
    _install()
    return subprocess.run(
        ["node", str(FOLDER / script), *arguments], capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT
    )


def package_file(name: str, folder: Path = FOLDER) -> Path:
    """Return a file of an installed package, given as ``package/folder/file``.

    Raises:
        NpmFailed: the package cannot be installed.
    """
    _install(folder)
    return folder / "node_modules" / name


def _install(folder: Path = FOLDER) -> None:
    """Install the packages in a folder's lock once, even for concurrent callers."""
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    with (folder / ".npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        done = _ci(folder, "--prefer-offline")
        if done.returncode:  # what npm has kept of the registry may be older than the lock
            done = _ci(folder)
        if done.returncode:
            raise NpmFailed(done.stderr.strip() or done.stdout.strip())
        stamp.write_text(wanted)


def _ci(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Install what a folder's lock lists, and run no script of a package."""
    quick = ["--no-progress", "--no-audit", "--no-fund", "--ignore-scripts"]
    return subprocess.run(
        ["npm", "ci", *quick, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_TIMEOUT,
    )
