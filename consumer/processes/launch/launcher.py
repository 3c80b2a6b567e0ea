"""Starting and clearing away server processes: folder, environment, exec chain, warden.

:class:`LocalLauncher` starts a process from the service's command;
:class:`~consumer.processes.fork.launcher.ForkLauncher` knows a quicker way for some.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import structlog

from consumer.processes.launch.environment import (
    make_folder,
    minimal_environment,
    parent_of_bases,
    remove_tree,
)
from consumer.processes.launch.sandbox import environment_of_limits, exec_chain, own_user
from consumer.processes.launch.session_root import Base
from consumer.processes.launch.warden import Warden
from consumer.processes.service import MCPService
from consumer.processes.stdio.process import ServerProcess
from consumer.processes.stdio.spawn import fork, watch
from schemas.errors import StartFailed

log = structlog.get_logger(__name__)


class Launcher(Protocol):
    """Gives a service's client a process; when the block is left, the process and all that is its own are gone."""

    def prepare(self, service: MCPService) -> None:
        """Begin what would make the first launch of ``service`` slower than the others; returns at once."""

    def retire(self, service: MCPService) -> None:
        """Nothing of ``service`` will be launched any more: let go of what was prepared, when it is not needed."""

    def launch(self, service: MCPService) -> AbstractAsyncContextManager[ServerProcess]:
        """Start a process whose pipes speak MCP for ``service``."""


class LocalLauncher:
    """Starts servers from their commands, below one base folder, watched by one warden.

    Use it from the main thread only: the death signal of the children follows the thread that forked them.
    ``ignore_term`` starts servers with SIGTERM ignored, for platforms that send it to every process and not only to
    the worker; by default that is done where ``DYNO`` tells that this is Heroku.
    """

    def __init__(self, *, parent: Path | None = None, ignore_term: bool | None = None) -> None:
        self.marker = secrets.token_hex(8)
        self._parent = parent
        self.ignore_term = "DYNO" in os.environ if ignore_term is None else ignore_term
        self._base: Base | None = None
        self._warden: Warden | None = None

    @property
    def base(self) -> Path | None:
        """The folder that holds the sessions' folders, once there was one."""
        return self._base.path if self._base is not None else None

    @property
    def warden_pid(self) -> int | None:
        """The process that clears up when the worker is killed, while it runs."""
        return self._warden.pid if self._warden is not None else None

    def prepare(self, service: MCPService) -> None:
        """Nothing has to be prepared to start a command."""

    def retire(self, service: MCPService) -> None:
        """Nothing was prepared."""

    @asynccontextmanager
    async def launch(self, service: MCPService) -> AsyncIterator[ServerProcess]:
        """Start ``service``'s command; on leaving, end its process group and remove its folder.

        Raises :class:`StartFailed` for a command that cannot be started whatever one tries, :class:`OSError` where
        another try may help.
        """
        command = resolve_command(service)
        base, warden = self.ground()
        folder = make_folder(base)
        try:
            process = await self.spawn(service, command, folder)
            warden.add(process.pid)
            try:
                yield process
            finally:
                await process.end()
                if process.returncode is not None:
                    warden.remove(process.pid)
        finally:
            await asyncio.to_thread(remove_tree, folder)

    def ground(self) -> tuple[Path, Warden]:
        """The base folder, and a warden that runs."""
        if self._base is None or self._warden is None:
            self._base = Base(parent_of_bases(self._parent), self.marker)
            self._warden = Warden(self._base.path, self.marker)
        self._warden.ensure()
        return self._base.path, self._warden

    async def spawn(self, service: MCPService, command: list[str], folder: Path) -> ServerProcess:
        """A process for ``service``, which resolves to ``command``, in ``folder``; nobody has to end it yet."""
        cwd = working_directory(service, folder)
        user = own_user(service.sandbox)
        if user is not None:
            os.chown(folder, user, user)
        extra = {**environment_of_limits(service.sandbox), **service.env}
        environment = minimal_environment(folder, extra, self.marker)
        argv = await exec_chain(service, command, folder, cwd, user=user, ignore_term=self.ignore_term)
        process = ServerProcess(obeys_term=not self.ignore_term)
        (stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr) = pipes(3)
        try:
            process.connect(our_stdin, our_stdout, our_stderr)
            child = fork(argv, stdin=stdin, stdout=stdout, stderr=stderr, environment=environment, cwd=str(cwd))
        except BaseException:
            process.disconnect()
            raise
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        process.adopt(child, partial(watch, child))
        return process

    async def close(self) -> None:
        """End the warden, which sweeps up what is left, and remove the base folder. Call when all launches are over."""
        if self._warden is not None:
            await self._warden.close()
        if self._base is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(remove_tree, self._base.path)
            self._base.forget()
        self._warden = self._base = None


def working_directory(service: MCPService, folder: Path) -> Path:
    """Where the server runs: its private ``folder``, or what its ``working_dir`` says."""
    if service.sandbox.working_dir is None:
        return folder
    cwd = Path(service.sandbox.working_dir).expanduser().absolute()
    if not cwd.is_dir():
        raise StartFailed(f"{service.name}: its working_dir {cwd} is no folder; create it or correct the setting")
    return cwd


def resolve_command(service: MCPService) -> list[str]:
    """The service's command with the program as an absolute path; :class:`StartFailed` when there is no such program.

    A server runs in a folder of its own, so words that name a file relative to the worker's folder (SignalWire's
    ``["python3", "./todo_mcp.py"]``) are made absolute as well.
    """
    assert service.command is not None
    program, *words = service.command
    path = service.search_path
    found = shutil.which(program, path=path)
    if found is None:
        raise StartFailed(
            f"{service.name}: there is no program {program!r}. Install it, or give its full path in the service's "
            f"command (searched: {path})",
            exit_code=None,
            signal=None,
            stderr="",
        )
    if service.sandbox.working_dir is None:
        words = [str(Path(word).absolute()) if _names_file(word) else word for word in words]
    return [str(Path(found).absolute()), *words]


Program = tuple[tuple[str, int, int], ...]
"""Path, modification time (ns) and size of each file that a command names."""


def program_of(service: MCPService) -> Program:
    """The files of the service's command as they are now; nothing where there is none, be it for a URL."""
    if service.command is None:
        return ()
    try:
        command = resolve_command(service)
    except StartFailed:
        return ()
    found = []
    for word in command:
        if word.startswith("/"):
            with contextlib.suppress(OSError):
                seen = Path(word).stat()
                found.append((word, seen.st_mtime_ns, seen.st_size))
    return tuple(found)


def _names_file(word: str) -> bool:
    if word.startswith("-") or Path(word).is_absolute():
        return False
    return ("/" in word or Path(word).suffix in {".py", ".js", ".mjs", ".cjs"}) and Path(word).is_file()


def pipes(count: int) -> list[tuple[int, int]]:
    """That many pipes, or none: running out of descriptors must not cost those that were left."""
    made: list[tuple[int, int]] = []
    try:
        made += (os.pipe() for _ in range(count))
    except OSError:
        for descriptor in chain.from_iterable(made):
            os.close(descriptor)
        raise
    return made
