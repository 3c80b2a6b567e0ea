"""A private file tree for a server, by bubblewrap (bwrap(1)).

Inside, a server sees the system's directories read-only, its own folder, and what its command cannot do without: the
directory of the program or script, and the virtualenv or ``node_modules`` around it. It has its own process
namespace, so nothing that it starts survives it, wherever it hides.
"""

from collections.abc import Iterator
from pathlib import Path

import consumer
from consumer.processes.launch.host_tools import failure_of
from consumer.processes.service import Sandbox

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
_TOO_WIDE = {Path("/"), Path("/home"), Path("/root"), Path("/tmp"), Path("/var"), Path("/etc")}  # noqa: S108

_refusals: dict[str, str] = {}


async def bubblewrap_refusal(bwrap: str | None) -> str:
    """Why bubblewrap does not work here, as a sentence; empty when it does. Found out once."""
    if bwrap is None:
        return "bwrap is not installed"
    if bwrap not in _refusals:
        failure = await failure_of(bwrap, *_tree(), *_namespaces(network=False), "--", "true")
        _refusals[bwrap] = f"{failure} (are user namespaces allowed?)" if failure else ""
    return _refusals[bwrap]


def bubblewrap_arguments(sandbox: Sandbox, command: list[str], folder: Path, cwd: Path) -> list[str]:
    """The options of bwrap for ``command``; ``folder`` and ``allowed_paths`` are writable, all else is read-only."""
    arguments = [*_tree(), *_namespaces(network=sandbox.network)]
    for path in dict.fromkeys(needed_paths(command)):
        arguments += _bound("--ro-bind", path)
    if sandbox.working_dir is not None:
        arguments += _bound("--ro-bind", cwd)
    for allowed in sandbox.allowed_paths:
        arguments += _bound("--bind-try", Path(allowed).expanduser().absolute())
    return [*arguments, *_bound("--bind", folder), "--remount-ro", "/"]


def _bound(how: str, path: Path) -> list[str]:
    # Left to itself, bwrap lets only root enter the directories that it makes above ``path``.
    return ["--dir", str(path.parent), how, str(path), str(path)]


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

    Looked at are the program and the script that it is given, through symbolic links: what they were installed with
    (a virtualenv and its base, a ``node_modules``, the prefix above a ``bin``), or else the directory they lie in.
    """
    script = next((word for word in command[1:] if not word.startswith("-") and Path(word).is_file()), None)
    for word in (command[0], *([script] if script is not None else [])):
        for path in (Path(word).absolute(), Path(word).resolve()):
            for home in _homes(path):
                yield from _outside_system(home)
    if any(word.startswith("consumer.") for word in command[1:]):
        yield from _outside_system(Path(consumer.__file__).parent)


def _homes(path: Path) -> Iterator[Path]:
    for parent in path.parents:
        if parent.name == "node_modules":
            yield parent
            return
        if (parent / "pyvenv.cfg").is_file():
            yield parent
            yield from _homes(_interpreter_of(parent / "pyvenv.cfg"))
            return
    directory = path.parent
    prefix = directory.parent if directory.name in {"bin", "sbin"} else directory
    yield next((home for home in (prefix, directory) if not _too_wide(home)), path)


def _interpreter_of(configuration: Path) -> Path:
    lines = (line.partition("=") for line in configuration.read_text("utf-8", "replace").splitlines())
    homes = [Path(value.strip()) for key, _, value in lines if key.strip() == "home"]
    return (homes[0] if homes else Path("/usr/bin")) / "python"


def _too_wide(directory: Path) -> bool:
    return directory in _TOO_WIDE or directory in {Path.home(), Path.cwd()}


def _outside_system(path: Path) -> Iterator[Path]:
    absolute = path.absolute()
    if absolute.exists() and not any(absolute.is_relative_to(system) for system in _SYSTEM):
        yield absolute
