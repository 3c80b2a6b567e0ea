"""Finds out which tools of the machine work, by using each once."""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

PROBE_TIMEOUT = 5.0


def names_file(word: str) -> bool:
    """Return whether a word of a command is a file's path. It may also be a long program text, as after ``-c``."""
    try:
        return Path(word).is_file()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class HostTools:
    """The paths of the small programs that bubbles need; ``None`` for those that the machine lacks.

    It is not enough that they exist: the setpriv and env of Busybox have fewer options.
    """

    setpriv: str | None
    env: str | None
    bwrap: str | None


_USES = {
    "setpriv": ["--no-new-privs", "--inh-caps=-all", "--", "true"],
    "env": ["--default-signal=TERM", "--chdir=/", "true"],
}
_found: list[HostTools] = []


async def tools() -> HostTools:
    """Return the tools that this machine has and that work. Looked up once."""
    if not _found:
        setpriv, env = await asyncio.gather(*(_usable(name, use) for name, use in _USES.items()))
        _found.append(HostTools(setpriv, env, shutil.which("bwrap")))
    return _found[0]


async def _usable(name: str, use: list[str]) -> str | None:
    path = shutil.which(name)
    return path if path is not None and not await failure_of(path, *use) else None


async def failure_of(*argv: str) -> str:
    """Run a command that should succeed at once. Return what went wrong, or an empty text."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, stderr = await asyncio.wait_for(process.communicate(), PROBE_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"{argv[0]} does not respond"
    if process.returncode == 0:
        return ""
    return stderr.decode("utf-8", "replace").strip() or f"{argv[0]} ended with {process.returncode}"
