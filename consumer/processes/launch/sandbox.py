"""How a server is kept apart: the chain of small programs that end in an ``exec`` of its command.

::

    [env --ignore-signal=TERM] setpriv --no-new-privs --pdeathsig KILL -- prlimit --core=0 ... -- [bwrap ... --] command

Nothing runs between ``fork`` and ``exec`` in Python. A tool that the machine lacks is left out, with one warning, as
long as nobody asked for what it does; a kind or a limit that was asked for and cannot be had refuses the service.
"""

import os
import resource
import secrets
from pathlib import Path

from consumer.processes.launch.bubblewrap import bubblewrap_arguments, bubblewrap_refusal
from consumer.processes.launch.host_tools import tools
from consumer.processes.service import MCPService, Sandbox
from schemas.errors import StartFailed

DEFAULT_MEMORY = 2 << 30
"""Bytes of RLIMIT_DATA when a service names none: stops a runaway, lets Node start (measured: 128 MiB do)."""

DEFAULT_FILE_SIZE = 1 << 30
"""Bytes of RLIMIT_FSIZE when a service names none."""


def limits(sandbox: Sandbox) -> dict[str, int]:
    """The limits for ``sandbox``, by the names that prlimit has for them.

    RLIMIT_DATA rather than RLIMIT_AS: Node reserves gigabytes of address space that it never touches.
    """
    if sandbox.kind == "none":
        return {}
    values = {
        "core": (resource.RLIMIT_CORE, 0),
        "data": (resource.RLIMIT_DATA, sandbox.memory or DEFAULT_MEMORY),
        "fsize": (resource.RLIMIT_FSIZE, sandbox.file_size or DEFAULT_FILE_SIZE),
        "cpu": (resource.RLIMIT_CPU, sandbox.cpu_seconds),
        "nproc": (resource.RLIMIT_NPROC, sandbox.processes),
    }
    return {name: _allowed(which, value) for name, (which, value) in values.items() if value is not None}


def limit_arguments(sandbox: Sandbox) -> list[str]:
    """The options of prlimit for ``sandbox``."""
    return [f"--{name}={value}" for name, value in limits(sandbox).items()]


def _allowed(which: int, value: int) -> int:
    """``value``, or the hard limit that we live under ourselves: only root could raise it."""
    _, hard = resource.getrlimit(which)
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def environment_of_limits(sandbox: Sandbox) -> dict[str, str]:
    """Variables that tell a runtime of its limit: Node collects garbage in time instead of running into the wall."""
    if sandbox.memory is None:
        return {}
    return {"NODE_OPTIONS": f"--max-old-space-size={max(16, sandbox.memory * 3 // 4 >> 20)}"}


async def exec_chain(
    service: MCPService, command: list[str], folder: Path, cwd: Path, *, user: int | None, ignore_term: bool
) -> list[str]:
    """The argument vector that starts ``command`` (its program an absolute path) as ``service.sandbox`` says.

    ``user`` is a user id of its own to run under. Raises :class:`StartFailed` for what cannot be had here.
    """
    sandbox, have = service.sandbox, await tools()
    chain: list[str] = []
    if ignore_term and have.env is not None:
        chain += [have.env, "--ignore-signal=TERM"]
    if have.setpriv is not None:
        chain.append(have.setpriv)
        if sandbox.kind == "limits":
            chain.append("--no-new-privs")  # bubblewrap sets it itself, and may have to be setuid until it has
            chain += _as_user(user, can_read=_may_read_all())
        chain += ["--pdeathsig", "KILL", "--"]
    elif user is not None:
        raise StartFailed(f"{service.name}: a limit of processes under root needs setpriv (util-linux)")
    if limits := limit_arguments(sandbox):
        if have.prlimit is not None:
            chain += [have.prlimit, *limits, "--"]
        elif any((sandbox.memory, sandbox.file_size, sandbox.cpu_seconds, sandbox.processes)):
            raise StartFailed(f"{service.name}: its limits need prlimit (util-linux), which is not installed here")
    if sandbox.kind == "bubblewrap":
        if refusal := await bubblewrap_refusal(have.bwrap):
            raise StartFailed(f"{service.name}: sandbox kind bubblewrap cannot be had here: {refusal}")
        assert have.bwrap is not None
        chain += [have.bwrap, *bubblewrap_arguments(sandbox, command, folder, cwd)]
        if user is None or have.setpriv is None or have.env is None:
            chain += ["--chdir", str(cwd), "--"]
        else:  # inside, because bwrap has to be root to begin with; without its powers it cannot enter the folder
            chain += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--"]
            chain += [have.setpriv, *_as_user(user, can_read=False), "--", have.env, f"--chdir={cwd}"]
    return chain + command


def _as_user(user: int | None, *, can_read: bool) -> list[str]:
    """Options of setpriv for running as ``user``, who may read what root can: his program may lie in root's home."""
    if user is None:
        return []
    capabilities = "+dac_read_search" if can_read else "-all"
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [*who, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]


def _may_read_all() -> bool:
    """Whether we have CAP_DAC_READ_SEARCH (2); root in a container often has not."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), "0")
    return bool(int(effective, 16) >> 2 & 1)


def own_user(sandbox: Sandbox) -> int | None:
    """A user id for a server whose number of processes is limited by a worker that is root; otherwise ``None``.

    The kernel counts processes by user and exempts root, so under root the limit bites only another user. The id
    belongs to nobody.
    """
    if sandbox.processes is None or os.geteuid() != 0:
        return None
    return 1_900_000_000 + secrets.randbelow(90_000_000)
