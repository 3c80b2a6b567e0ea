"""The folder and the environment variables that a server gets."""

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from consumer.processes.search_path import search_path

MARKER = "MCP_SESSIONS_WORKER"
"""Variable by which what a worker started can be found again when the worker and its keeper were killed: the path of
the worker's base folder, so that nobody can have another worker's processes ended by writing a file of his own."""

PASSED_ON = ("PYTHONPATH", "NODE_PATH", "JAVA_HOME")


def minimal_environment(folder: Path, extra: Mapping[str, str], mark: str) -> dict[str, str]:
    """Return the whole environment of a server. ``extra`` (the service's ``env``) wins, except over the mark."""
    home = str(folder)
    return {
        "PATH": search_path(),
        "HOME": home,
        "TMPDIR": home,
        "TMP": home,
        "TEMP": home,
        "USER": "mcp",
        "LOGNAME": "mcp",
        "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        **extra,
        MARKER: mark,
    }


def make_folder(base: Path, user: int | None = None) -> Path:
    """Make a private folder (0700) of ``user`` below ``base``. Its random name contains no call id."""
    folder = base / secrets.token_hex(12)
    folder.mkdir(mode=0o700)
    if user is not None:
        os.chown(folder, user, user)
    return folder


def parent_of_bases(sandbox_dir: Path | None) -> Path:
    """Return where workers make their base folders: the setting, or the system's folder for temporary files."""
    return (sandbox_dir or Path(tempfile.gettempdir())).absolute()
