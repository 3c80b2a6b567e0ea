"""Isolates a server: chooses its kind of sandbox, its user and its resource limits.

Limits, death signal and new user are set by the keeper between fork and exec
(:mod:`consumer.processes.launch.keeper_child`). Only bubblewrap is a program that comes before the server's own::

    [bwrap ... -- [setpriv ... --] [env ... --]] command

If the configuration requires an isolation that this host does not support, the service is refused. If it does not, the
isolation is left out, and the worker logs this once at its start.
"""

import itertools
import os
import resource
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from consumer.processes.launch.bubblewrap import bubblewrap_arguments, bubblewrap_refusal, needed_paths
from consumer.processes.launch.host_tools import tools
from consumer.processes.service import MCPService, Sandbox
from schemas.errors import StartFailed

DEFAULT_MEMORY = 2 << 30
"""Bytes of RLIMIT_DATA when a service names none: stops a runaway, lets Node start (measured: 128 MiB do)."""

DEFAULT_FILE_SIZE = 1 << 30
"""Bytes of RLIMIT_FSIZE when a service names none."""


_USERS = range(1_900_000_000, 1_990_000_000)
"""Ids of users that no account has."""

_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""The capabilities for starting a server as another user, ending it, and removing its files."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """The isolation of one server: the kind of its sandbox, and the id of the user that only it runs as."""

    kind: Literal["bubblewrap", "limits", "none"]
    user: int | None = None


async def confinement_of(service: MCPService, *, forks: bool = False) -> Confinement:
    """Return the isolation of a new server. Raises :class:`StartFailed` if a required one is not available.

    ``forks`` is for the helper of a fork server, whose forks share what it has. It has no process namespace, because
    its forks are known by their numbers, and so a bubble has a use for it only where the user changes.
    """
    sandbox = service.sandbox
    user = own_user(sandbox)
    match sandbox.kind:
        case "none":
            return Confinement("none")
        case "limits":
            return Confinement("limits", user)
        case "bubblewrap":
            if refusal := await no_bubblewrap():
                raise StartFailed(f"{service.name}: sandbox kind bubblewrap does not work here: {refusal}")
            return Confinement("bubblewrap", user)
        case "auto":
            wanted = user is not None or not forks
            return Confinement("bubblewrap" if wanted and not await no_bubblewrap() else "limits", user)


async def no_bubblewrap() -> str:
    """Return the reason why bubblewrap does not work on this machine, as a sentence; empty if it works."""
    have = await tools()
    if refusal := await bubblewrap_refusal(have.bwrap):
        return refusal
    if os.geteuid() == 0 and (have.setpriv is None or have.env is None):
        return "under root it needs setpriv (util-linux) and env (coreutils) as well"
    return ""


def own_user(sandbox: Sandbox) -> int | None:
    """Return the id of an unused user for a server, if the worker is root and not told otherwise.

    With one, the kernel keeps servers from each other's files, memory and signals, and counts their processes.
    """
    if sandbox.user == "worker" or sandbox.kind == "none" or cannot_change_users():
        return None
    return _USERS.start + next(_numbers()) % len(_USERS)


@cache
def _numbers() -> Iterator[int]:
    """Count from a random start, which is drawn at the first use and not at the import.

    No two live servers of one host may have the same number, because ending one would end the other. Workers may be
    forks of one process.
    """
    return itertools.count(secrets.randbelow(len(_USERS)))


@cache
def cannot_change_users() -> str:
    """Return why servers cannot run as users of their own, as a sentence; empty if they can."""
    if sys.platform != "linux":
        return "it works only on Linux"
    if os.geteuid() != 0:
        return "the worker is not root"
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = int(next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), "0"), 16)
    if missing := [name for name, number in _CAPABILITIES.items() if not effective >> number & 1]:
        return f"root does not have the necessary capabilities here ({', '.join(missing)})"
    mapped = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if not any(first <= _USERS.start and first + count >= _USERS.stop for first, _, count in mapped):
        return "root is in a user namespace with too few users"
    return ""


def limits(sandbox: Sandbox) -> dict[str, int]:
    """Return the limits for ``sandbox``, by their names in the module :mod:`resource`.

    RLIMIT_DATA rather than RLIMIT_AS: Node reserves gigabytes of address space that it never touches.
    """
    if sandbox.kind == "none":
        return {}
    values = {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": sandbox.memory or DEFAULT_MEMORY,
        "RLIMIT_FSIZE": sandbox.file_size or DEFAULT_FILE_SIZE,
        "RLIMIT_CPU": sandbox.cpu_seconds,
        "RLIMIT_NPROC": sandbox.processes,
    }
    return {name: _allowed(getattr(resource, name), value) for name, value in values.items() if value is not None}


def _allowed(which: int, value: int) -> int:
    """Return ``value``, or our own hard limit if that is lower, because only root could raise it."""
    _, hard = resource.getrlimit(which)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def environment_of_limits(sandbox: Sandbox) -> dict[str, str]:
    """Return variables that tell a runtime its limit, so that Node collects garbage before it runs into the limit."""
    if sandbox.memory is None:
        return {}
    return {"NODE_OPTIONS": f"--max-old-space-size={max(16, sandbox.memory * 3 // 4 >> 20)}"}


async def wrapped(
    service: MCPService,
    command: list[str],
    folder: Path,
    cwd: Path,
    *,
    confinement: Confinement,
    needs: Sequence[Path] = (),
    ignore_term: bool = False,
    forks: bool = False,
) -> list[str]:
    """Return the arguments that start ``command`` (its program an absolute path) in its bubble, if it has one.

    It can write to ``folder`` and read what it ``needs`` beside what its command does.

    Raises :class:`StartFailed` when the server's own user could not reach what it needs.
    """
    if confinement.kind != "bubblewrap":
        if confinement.user is not None:
            _check_reach(service, [*needed_paths(command), *needs, folder])
        return command
    have = await tools()
    assert have.bwrap is not None
    own = confinement.user is not None
    paths = [*needed_paths(command), *needs]
    chain = [have.bwrap, *bubblewrap_arguments(service, paths, folder, cwd, own_processes=not forks)]
    if own:  # inside, because bwrap has to be root to begin with
        chain += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    if have.env is None:
        return [*chain, "--chdir", str(cwd), "--", *command]
    chain.append("--")
    if own:
        assert have.setpriv is not None
        chain += [have.setpriv, f"--reuid={confinement.user}", f"--regid={confinement.user}", "--clear-groups"]
        chain += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"]
    # bwrap itself is started with SIGTERM ignored, for it would not wait for the server to obey.
    obey = [] if ignore_term else ["--default-signal=TERM"]
    return [*chain, have.env, *obey, f"--chdir={cwd}", *command]


def _check_reach(service: MCPService, paths: list[Path]) -> None:
    for path in paths:
        for seen in (path.absolute(), path.resolve()):
            closed = next((above for above in reversed(seen.parents) if not _may_others_enter(above)), None)
            if closed is not None:
                raise StartFailed(
                    f"{service.name}: the worker is root, so this server runs as a user without privileges. That user "
                    f"cannot reach {seen}, because other users may not enter {closed}. Install bubblewrap, move the "
                    'program, or set user = "worker" in the service\'s sandbox'
                )


def _may_others_enter(directory: Path) -> bool:
    try:
        return bool(directory.stat().st_mode & 1)
    except OSError:
        return True
