"""Hides a process from others of its user: its memory, and the secrets in its environment.

Under ``limits`` a server of an ordinary user's worker runs as the same user. That user may read the environment and the
memory of its processes, unless they are not dumpable.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

KEPT = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TERM", "TZ", "TMPDIR", "TEMP", "TMP", "DYNO"),
        *("NODE_PATH", "JAVA_HOME", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("NO_COLOR", "COLUMNS", "NO_PROXY", "no_proxy", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "NOTIFY_SOCKET"),
    }
)
"""Variables that we or a library read later, and that contain no secret."""

KEPT_PREFIXES = ("LC_", "LANG", "PYTHON")

PROXIES = frozenset(name for word in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (word, word.lower()))
"""Variables that are read when a service with a URL is connected to. They are kept if they contain no password."""

_PR_SET_DUMPABLE = 4


def become_private() -> dict[str, str]:
    """Hide memory and environment of this process for good. Return the former environment, to read settings from.

    From then on only root may trace it, or read its memory or its ``/proc/<pid>/environ``, and it leaves no core dump.
    Its environment keeps only a short list of variables. The original environment is overwritten, so that not even root
    can read it.
    """
    environment = dict(os.environ)
    if sys.platform == "linux":
        _overwrite_environment(environment)
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return environment


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of an environment that a process keeps."""
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT or name.startswith(KEPT_PREFIXES) or (name in PROXIES and "@" not in value)
    }


def _overwrite_environment(environment: Mapping[str, str]) -> None:
    """Copy the variables that are kept, and overwrite the block that the kernel shows as ``environ``."""
    for name in environment:
        del os.environ[name]
    os.environ.update(kept(environment))
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[47]), int(fields[48])  # env_start and env_end, fields 50 and 51 of proc(5)
        if 0 < start < end:
            ctypes.memset(start, 0, end - start)
