"""What a server is given of the worker's world: a folder of its own and a handful of variables."""

import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

MARKER = "MCP_SESSIONS_WORKER"
"""Variable by which everything that a worker started can be found again, however far it ran."""

_PASSED_ON = ("PYTHONPATH", "NODE_PATH", "JAVA_HOME")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path() -> str:
    """The PATH of servers: the worker's own, with its interpreter's directory first so that ``python3`` is ours."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH") or _DEFAULT_PATH])


def minimal_environment(folder: Path, extra: Mapping[str, str], marker: str) -> dict[str, str]:
    """The whole environment of a server; ``extra`` (the service's ``env``) wins, except over the marker."""
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
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **extra,
        MARKER: marker,
    }


def make_folder(base: Path) -> Path:
    """A new private folder (0700) below ``base``, under a name that cannot be guessed and tells no call id."""
    folder = base / secrets.token_hex(12)
    folder.mkdir(mode=0o700)
    return folder


def parent_of_bases(sandbox_dir: Path | None) -> Path:
    """Where workers make their base folders: the setting, or the system's folder for temporary files."""
    return (sandbox_dir or Path(tempfile.gettempdir())).absolute()


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all in it, also what was made read-only. Blocking: run it in a thread.

    Whatever cannot be removed (another user's, a mount) is left; nobody waits for it.
    """
    for _ in range(3):  # a process in its last moment may still be writing
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        _allow(folder)  # before the walk: what cannot be listed is not walked
        for path, names, _files in os.walk(folder):
            for name in names:
                directory = Path(path, name)
                if not directory.is_symlink():
                    _allow(directory)


def _allow(directory: Path) -> None:
    try:
        directory.chmod(stat.S_IRWXU)
    except OSError:
        return
