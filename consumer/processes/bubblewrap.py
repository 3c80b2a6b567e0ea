"""A private file tree for a server, by bubblewrap (bwrap(1)).

Inside, a server sees the system's directories read-only, its own folder, and what its command cannot do without: the
directory of the program or script, and the virtualenv or ``node_modules`` around it. It has its own process
namespace, so nothing that it starts survives it, wherever it hides.
"""

import asyncio
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import consumer
from consumer.processes.service import Sandbox

PROBE_TIMEOUT = 5.0

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")
_ETC = (
    "alternatives",
    "ca-certificates",
    "gai.conf",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
)
_TOO_WIDE = {Path("/"), Path("/home"), Path("/root"), Path("/tmp"), Path("/var"), Path("/work"), Path("/etc")}  # noqa: S108

_probes: dict[str, asyncio.Task[str]] = {}


async def bubblewrap_refusal(bwrap: str | None) -> str:
    """Why bubblewrap does not work here, as a sentence; empty when it does. Found out once."""
    if bwrap is None:
        return "bwrap is not installed"
    if bwrap not in _probes or _probes[bwrap].cancelled():
        _probes[bwrap] = asyncio.create_task(_probe(bwrap), name="bubblewrap-probe")
    return await asyncio.shield(_probes[bwrap])


async def _probe(bwrap: str) -> str:
    process = await asyncio.create_subprocess_exec(
        bwrap,
        *_tree(),
        *_namespaces(network=False),
        "--",
        "true",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, stderr = await asyncio.wait_for(process.communicate(), PROBE_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        return "bwrap does not answer"
    if process.returncode == 0:
        return ""
    said = stderr.decode("utf-8", "replace").strip() or f"bwrap ended with {process.returncode}"
    return f"{said} (are user namespaces allowed?)"


def bubblewrap_arguments(sandbox: Sandbox, command: list[str], folder: Path, cwd: Path) -> list[str]:
    """The options of bwrap for ``command``; ``folder`` and ``allowed_paths`` are writable, all else is read-only."""
    arguments = [*_tree(), *_namespaces(network=sandbox.network)]
    for path in dict.fromkeys(needed_paths(command)):
        arguments += ["--ro-bind", str(path), str(path)]
    if sandbox.working_dir is not None:
        arguments += ["--ro-bind-try", str(cwd), str(cwd)]
    for allowed in sandbox.allowed_paths:
        writable = str(Path(allowed).expanduser().absolute())
        arguments += ["--bind-try", writable, writable]
    return [*arguments, "--bind", str(folder), str(folder), "--chdir", str(cwd)]


def _tree() -> list[str]:
    system = [f"--ro-bind-try {path} {path}" for path in _SYSTEM]
    etc = [f"--ro-bind-try /etc/{name} /etc/{name}" for name in _ETC]
    mounts = [*system, *etc, "--proc /proc", "--dev /dev", "--tmpfs /tmp", "--tmpfs /var/tmp", "--tmpfs /run"]
    return " ".join(mounts).split()


def _namespaces(*, network: bool) -> list[str]:
    apart = ["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    return [*apart, *([] if network else ["--unshare-net"]), "--cap-drop", "ALL"]


def needed_paths(command: list[str]) -> Iterator[Path]:
    """What of the file tree outside the system's directories ``command`` cannot start without.

    Looked at are the program, the script that it is given, and for Python servers the environments around them.
    """
    program = Path(command[0])
    script = next((Path(word) for word in command[1:] if not word.startswith("-") and Path(word).is_file()), None)
    for start in (program, script):
        if start is None:
            continue
        for path in dict.fromkeys((start, start.resolve())):
            yield from _outside_system(_home_of(path))
    if program.absolute().parent == Path(sys.executable).parent or program.resolve() == Path(sys.executable).resolve():
        for prefix in (sys.prefix, sys.base_prefix, sysconfig.get_path("purelib")):
            yield from _outside_system(Path(prefix))
        if any(word.startswith("consumer.") for word in command[1:]):
            yield from _outside_system(Path(consumer.__file__).parent)


def _home_of(path: Path) -> Path:
    """The smallest directory that a program needs: its ``node_modules``, its virtualenv, or the one it lies in."""
    for parent in path.parents:
        if parent.name == "node_modules" or (parent / "pyvenv.cfg").is_file():
            return parent
    parent = path.parent
    return path if parent in _TOO_WIDE or parent == Path.home() or parent == Path.cwd() else parent


def _outside_system(path: Path) -> Iterator[Path]:
    absolute = path.absolute()
    if absolute.exists() and not any(absolute.is_relative_to(system) for system in _SYSTEM):
        yield absolute
