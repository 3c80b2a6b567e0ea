"""Starts server processes with folder, environment, sandbox and keeper, and removes what they leave.

:class:`LocalLauncher` starts a process from the service's command;
:class:`~consumer.processes.fork.fork_launcher.ForkLauncher` knows a quicker way for some.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import structlog

from consumer.processes.launch.fork_server import ForkedChild, Job, Process, Watch
from consumer.processes.launch.host_tools import names_file
from consumer.processes.launch.keeper import Keeper
from consumer.processes.launch.minimal_environment import make_folder, minimal_environment, parent_of_bases
from consumer.processes.launch.removal import remove_tree
from consumer.processes.launch.sandbox import Confinement, confinement_of, environment_of_limits, limits, wrapped
from consumer.processes.launch.session_root import SessionRoot
from consumer.processes.service import SCRIPTS, MCPService
from consumer.processes.stdio.process import Pipes, ServerProcess
from consumer.processes.stdio.spawn import fork, watch
from schemas.errors import StartFailed

log = structlog.get_logger(__name__)


class Launcher(Protocol):
    """Gives a service's client a process. On leaving the block, the process and everything it owns is gone."""

    def prepare(self, service: MCPService) -> None:
        """Begin the work that would make the first launch of ``service`` slow. Returns at once."""

    def retire(self, service: MCPService) -> None:
        """Release what was prepared for ``service``, which will not be launched again, if nothing else needs it."""

    def launch(self, service: MCPService) -> AbstractAsyncContextManager[ServerProcess]:
        """Start a process whose pipes speak MCP for ``service``."""


class LocalLauncher:
    """Starts servers from their commands, below one base folder, as children of one keeper.

    ``ignore_term`` starts servers with SIGTERM ignored, for platforms that send it to every process and not only to the
    worker. The default is true on Heroku, which sets ``DYNO``.
    """

    def __init__(self, *, parent: Path | None = None, ignore_term: bool | None = None) -> None:
        self._parent = parent
        self.ignore_term = "DYNO" in os.environ if ignore_term is None else ignore_term
        self._base: SessionRoot | None = None
        self._keeper: Keeper | None = None

    @property
    def base(self) -> Path | None:
        """The folder that contains the sessions' folders, if it exists."""
        return self._base.path if self._base is not None else None

    @property
    def keeper_pid(self) -> int | None:
        """The process id of the keeper, while it runs."""
        return self._keeper.pid if self._keeper is not None else None

    def prepare(self, service: MCPService) -> None:
        """Begin to start the keeper."""
        if service.command is not None:
            self.ground()[1].begin()

    def retire(self, service: MCPService) -> None:
        """Do nothing: nothing was prepared for this service alone."""

    @asynccontextmanager
    async def launch(self, service: MCPService) -> AsyncIterator[ServerProcess]:
        """Start ``service``'s command. On leaving, end it and everything it has started, and remove its folder.

        Raises :class:`StartFailed` for a command that can never be started, and :class:`OSError` if another try may
        help.
        """
        command = resolve_command(service)
        base, _ = self.ground()
        folder = make_folder(base.path)
        try:
            process = await self.spawn(service, command, folder)
            try:
                yield process
            finally:
                await process.end()
        finally:
            await asyncio.to_thread(remove_tree, folder)

    def ground(self) -> tuple[SessionRoot, Keeper]:
        """Return the base folder and its keeper."""
        if self._base is None or self._keeper is None:
            self._base = SessionRoot(parent_of_bases(self._parent))
            self._keeper = Keeper(self._base.path, self._base.mark)
        return self._base, self._keeper

    async def spawn(self, service: MCPService, command: list[str], folder: Path) -> ServerProcess:
        """Start a process for ``service`` with the resolved ``command``, in ``folder``. The caller ends it."""
        confinement = await confinement_of(service)
        bubble = confinement.kind == "bubblewrap"
        if confinement.user is not None:
            os.chown(folder, confinement.user, confinement.user)
        cwd = working_directory(service, folder)
        argv = await wrapped(service, command, folder, cwd, confinement=confinement, ignore_term=self.ignore_term)
        job = self.job(service, confinement, argv, folder, cwd, ignore_term=self.ignore_term or bubble)
        return await self.connected(service, partial(self.start, job), in_shell=bubble)

    def job(
        self,
        service: MCPService,
        confinement: Confinement,
        argv: Sequence[str],
        folder: Path,
        cwd: Path,
        *,
        ignore_term: bool,
    ) -> Job:
        """Return the job for the keeper to start ``service``."""
        extra = {**environment_of_limits(service.sandbox), **service.env}
        return Job(
            argv=argv,
            env=minimal_environment(folder, extra, self.ground()[0].mark),
            cwd=str(cwd),
            limits=limits(service.sandbox),
            no_new_privs=confinement.kind == "limits",  # bubblewrap sets it itself, and may be setuid until it has
            ignore_term=ignore_term,
            user=confinement.user,
            as_user=confinement.user is not None and confinement.kind == "limits",
        )

    async def start(self, job: Job, stdin: int, stdout: int, stderr: int) -> tuple[Process, Watch]:
        """Let the keeper start ``job``. Without Linux, start it as a child of this process."""
        if sys.platform != "linux":
            plain = fork(list(job.argv), stdin=stdin, stdout=stdout, stderr=stderr, environment=job.env, cwd=job.cwd)
            return plain, partial(watch, plain)
        child = await self.ground()[1].start(job, stdin, stdout, stderr)
        return child, child.watch

    async def connected(
        self,
        service: MCPService,
        start: Callable[[int, int, int], Awaitable[tuple[Process, Watch]]],
        *,
        forked: bool = False,
        in_shell: bool = False,
    ) -> ServerProcess:
        """Start a process for ``service`` with three new pipes."""
        (stdin, our_stdin), (our_stdout, stdout), (our_stderr, stderr) = pipes(3)
        try:
            child, watch_it = await start(stdin, stdout, stderr)
        except BaseException:
            for descriptor in (our_stdin, our_stdout, our_stderr):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        return ServerProcess(
            service.name,
            child,
            Pipes(our_stdin, our_stdout, our_stderr),
            watch=watch_it,
            is_there=child.is_there if isinstance(child, ForkedChild) else lambda: True,
            obeys_term=not self.ignore_term,
            forked=forked,
            in_shell=in_shell,
        )

    async def close(self) -> None:
        """End the keeper, which ends what is left, and remove the base folder. Call when all launches are over."""
        if self._keeper is not None:
            await self._keeper.close()
        if self._base is not None:
            await asyncio.to_thread(remove_tree, self._base.path)
            self._base.forget()
        self._keeper = self._base = None


def working_directory(service: MCPService, folder: Path) -> Path:
    """Return the server's working directory: its private ``folder``, or ``working_dir`` of its sandbox."""
    if service.sandbox.working_dir is None:
        return folder
    cwd = Path(service.sandbox.working_dir).expanduser().absolute()
    if not cwd.is_dir():
        raise StartFailed(f"{service.name}: its working_dir {cwd} is not a folder; create it or correct the setting")
    return cwd


def resolve_command(service: MCPService) -> list[str]:
    """Return the service's command with an absolute path of the program. Raises :class:`StartFailed` if it is missing.

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


def missing_files(service: MCPService) -> list[str]:
    """Return the missing scripts that a service's command names relative to the worker's folder."""
    if service.command is None or service.sandbox.working_dir is not None:
        return []
    scripts = (word for word in service.command[1:] if Path(word).suffix in SCRIPTS and not word.startswith("-"))
    return [word for word in scripts if not Path(word).is_absolute() and not names_file(word)]


Program = tuple[tuple[str, int, int], ...]
"""Path, modification time (ns) and size of each file that a command names."""


def program_of(service: MCPService) -> Program:
    """The current state of the files in the service's command; empty for a service at a URL."""
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
    return ("/" in word or Path(word).suffix in SCRIPTS) and names_file(word)


def pipes(count: int) -> list[tuple[int, int]]:
    """Open this many pipes, or none if the descriptors run out."""
    made: list[tuple[int, int]] = []
    try:
        made += (os.pipe() for _ in range(count))
    except OSError:
        for descriptor in chain.from_iterable(made):
            os.close(descriptor)
        raise
    return made
