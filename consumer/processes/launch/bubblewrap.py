"""A private file tree for a server, made by bubblewrap (bwrap(1)).

Inside, a server sees the system's directories read-only, its own folder, and what its command cannot do without: the
directory of the program or script, the virtualenv or ``node_modules`` around it, and the files that its command and
its environment name. It has its own process namespace, so nothing that it starts survives it, wherever it hides.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path

import consumer
from consumer.processes.launch.host_tools import failure_of, names_file
from consumer.processes.launch.minimal_environment import PASSED_ON
from consumer.processes.service import MCPService

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

_MADE = {"proc", "dev", "sys"}
"""The directories that a bubble has of its own."""

_refusals: dict[str, str] = {}


async def bubblewrap_refusal(bwrap: str | None) -> str:
    """Return why bubblewrap does not work on this machine, as a sentence; empty if it works. Tested once."""
    if bwrap is None:
        return "bwrap is not installed"
    if bwrap not in _refusals:
        failure = await failure_of(bwrap, *_tree(), *_namespaces(network=False), "--", "true")
        _refusals[bwrap] = f"{failure} (are user namespaces allowed?)" if failure else ""
    return _refusals[bwrap]


def bubblewrap_arguments(
    service: MCPService, needed: Iterable[Path], folder: Path, cwd: Path, *, own_processes: bool = True
) -> list[str]:
    """Return the options of bwrap. ``folder`` and ``allowed_paths`` are writable, other paths read-only."""
    sandbox = service.sandbox
    arguments = [*_tree(), *_namespaces(network=sandbox.network, own_processes=own_processes)]
    wanted = dict.fromkeys([*needed, *named_paths(service)])
    for path in wanted:
        if not any(above in wanted for above in path.parents):  # a mount takes a tenth of a millisecond
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
    folders = ["--dir /etc", "--dir /var"]  # see _bound
    own = ["--proc /proc", "--dev /dev", "--tmpfs /tmp", "--tmpfs /var/tmp", "--tmpfs /run"]
    return " ".join([*folders, *system, *etc, *own]).split()


def _namespaces(*, network: bool, own_processes: bool = True) -> list[str]:
    apart = ["--die-with-parent", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    apart += ["--unshare-pid"] if own_processes else []
    return [*apart, *([] if network else ["--unshare-net"]), "--cap-drop", "ALL"]


def needed_paths(command: list[str]) -> Iterator[Path]:
    """Return the paths outside the system's directories that ``command`` needs to start.

    It follows symbolic links of the program and its script. For each it returns the installation (a virtualenv and its
    base, a ``node_modules``, the prefix above a ``bin``), or else its directory and the paths that Node.js searches in
    the directories above.
    """
    script = next((word for word in command[1:] if not word.startswith("-") and names_file(word)), None)
    for word in (command[0], *([script] if script is not None else [])):
        for path in (Path(word).absolute(), Path(word).resolve()):
            for home in _homes(path):
                yield from _outside_system(home)
    if any(word.startswith("consumer.") for word in command[1:]):
        yield from _outside_system(Path(consumer.__file__).parent)


def _homes(path: Path) -> Iterator[Path]:
    if installed := list(_installed(path)):
        yield from installed
        return
    directory = path.parent
    prefix = directory.parent if directory.name in {"bin", "sbin", "shims"} else directory
    yield next((home for home in (prefix, directory) if not _too_wide(home)), path)
    yield from _nodes(path)


def _nodes(path: Path) -> Iterator[Path]:
    """Return what Node.js looks for above a script: each ``node_modules``, and the nearest package.json."""
    yield from (parent / "node_modules" for parent in path.parents if (parent / "node_modules").is_dir())
    described = (parent / "package.json" for parent in path.parents if (parent / "package.json").is_file())
    yield from islice(described, 1)


def _installed(path: Path) -> Iterator[Path]:
    """Return the virtualenv or ``node_modules`` that contains ``path``, and what that needs."""
    for parent in path.parents:
        if parent.name == "node_modules":
            yield parent
            return
        if (parent / "pyvenv.cfg").is_file():
            yield parent
            yield from _homes(_interpreter_of(parent / "pyvenv.cfg"))
            yield from _editable(parent)
            return


def _interpreter_of(configuration: Path) -> Path:
    lines = (line.partition("=") for line in configuration.read_text("utf-8", "replace").splitlines())
    homes = [Path(value.strip()) for key, _, value in lines if key.strip() == "home"]
    return (homes[0] if homes else Path("/usr/bin")) / "python"


def _editable(environment: Path) -> Iterator[Path]:
    """Return the sources of editable installations in a virtualenv, from path files or setuptools' finders."""
    for packages in environment.glob("lib/python*/site-packages"):
        yield from _named_in(packages, packages.stat().st_mtime_ns)


@lru_cache(64)
def _named_in(packages: Path, _changed: int) -> tuple[Path, ...]:
    found = []
    for file in packages.glob("*.pth"):
        found += [Path(line) for line in _text(file).splitlines() if line.startswith("/")]
    for file in packages.glob("__editable__*finder.py"):
        found += [Path(path) for path in re.findall(r"""['"](/[^'"\n]+)['"]""", _text(file))]
    return tuple(found)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""


def named_paths(service: MCPService) -> Iterator[Path]:
    """Return the files and folders that the command or the environment of the server names."""
    words: Iterable[str] = [
        *(service.command or [])[1:],
        *service.env.values(),
        *(os.environ.get(name, "") for name in PASSED_ON),
    ]
    for word in words:
        for part in (word, *word.partition("=")[2:], *word.split(os.pathsep)):
            if part.startswith("/") and not _too_wide(Path(part)) and Path(part).parts[1] not in _MADE:
                with suppress(OSError, ValueError):
                    for path in (Path(part), *_installed(Path(part))):
                        yield from _outside_system(path)


def _too_wide(directory: Path) -> bool:
    return directory in _TOO_WIDE or directory in {Path.home(), Path.cwd()}


def _outside_system(path: Path) -> Iterator[Path]:
    absolute = path.absolute()
    if absolute.exists() and not any(absolute.is_relative_to(system) for system in _SYSTEM):
        yield absolute
