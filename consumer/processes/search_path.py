"""The search path for the programs of servers."""

import os
import sys
from pathlib import Path

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path() -> str:
    """Return the PATH of servers: the worker's own, with the directory of its Python first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH") or _DEFAULT_PATH])
