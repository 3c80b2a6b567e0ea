"""A launcher that forks Python servers from helpers that have imported them. It starts all others normally."""

import asyncio
import os
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from consumer.processes.fork import child
from consumer.processes.launch import keeper_child
from consumer.processes.launch.bubblewrap import needed_paths
from consumer.processes.launch.fork_server import CannotFork, ForkServer, Process, Watch
from consumer.processes.launch.launcher import LocalLauncher, resolve_command, working_directory
from consumer.processes.launch.minimal_environment import make_folder
from consumer.processes.launch.sandbox import Confinement, confinement_of, wrapped
from consumer.processes.service import MCPService
from consumer.processes.stdio.process import ServerProcess
from schemas.errors import SessionsError

REST = 60.0
"""For how many seconds servers are started from their commands after a helper failed or died."""

_OPTIONS_WITH_VALUE = {"-W", "-X", "--check-hash-based-pycs"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PythonCommand:
    """A Python command: the interpreter with its options, ``sys.argv``, and the folder of a script."""

    interpreter: tuple[str, ...]
    argv: tuple[str, ...]
    folder: str = ""

    @classmethod
    def read(cls, command: list[str]) -> "PythonCommand | None":
        """Return the module or script that ``command`` runs, or ``None`` if it is not clearly Python.

        It is ``python script.py ...``, ``python -m module ...``, or a script that says so in its first line.
        """
        program, *words = command
        if not Path(program).name.startswith("python"):
            interpreter = _shebang(Path(program))
            return cls(interpreter, tuple(command), str(Path(program).parent)) if interpreter else None
        options: list[str] = []
        while words:
            word = words.pop(0)
            if word in {"-m", "-c"} and words:
                return cls((program, *options), ("-c" if word == "-c" else words[0], *words[1:]))
            if not word.startswith("-"):
                return cls((program, *options), (word, *words), str(Path(word).absolute().parent))
            options.append(word)
            if word in _OPTIONS_WITH_VALUE and words:
                options.append(words.pop(0))
        return None


def _shebang(script: Path) -> tuple[str, ...]:
    try:
        with script.open("rb") as file:
            first = file.readline(1024).decode("utf-8", "replace")
    except OSError:
        return ()
    words = shlex.split(first[2:]) if first.startswith("#!") else []
    if words and Path(words[0]).name == "env":
        words = [shutil.which(words[1]) or "", *words[2:]] if len(words) > 1 else []
    return tuple(words) if words and Path(words[0]).name.startswith("python") else ()


def _started(starting: asyncio.Task[ForkServer]) -> ForkServer | None:
    """Return the helper, if its start has succeeded."""
    failed = not starting.done() or starting.cancelled() or starting.exception() is not None
    return None if failed else starting.result()


class ForkLauncher(LocalLauncher):
    """A :class:`LocalLauncher` with one helper for each service with a ``fork_server``, started when needed."""

    def __init__(self, *, parent: Path | None = None, ignore_term: bool | None = None) -> None:
        super().__init__(parent=parent, ignore_term=ignore_term)
        self._helpers: dict[str, asyncio.Task[ForkServer]] = {}
        self._resting: dict[str, float] = {}
        self._retired: set[str] = set()
        """Retired services. If one is still started, its command is used."""
        self._leaving: set[asyncio.Task[ForkServer]] = set()
        self._users: dict[ForkServer, int | None] = {}
        """The user that a helper and its forks run as, if they have their own."""
        self._closing = False

    def prepare(self, service: MCPService) -> None:
        """Start the keeper and the fork server in the background, so that the first session need not wait."""
        super().prepare(service)
        if service.fork_server is not None and sys.platform == "linux":
            self._retired.discard(service.source)
            self._helper(service)

    def retire(self, service: MCPService) -> None:
        """End the fork server when the last of its forks has ended."""
        self._resting.pop(service.source, None)
        self._retired.add(service.source)
        if (starting := self._helpers.pop(service.source, None)) is not None:
            self._leaving.add(starting)
            starting.add_done_callback(self._retire)

    def _retire(self, starting: asyncio.Task[ForkServer]) -> None:
        if (helper := _started(starting)) is not None:
            helper.retire()
        else:
            self._leaving.discard(starting)

    async def spawn(self, service: MCPService, command: list[str], folder: Path) -> ServerProcess:
        """Fork a process if possible, or start it from ``command``."""
        if service.fork_server is not None and not self._rests(service) and service.source not in self._retired:
            try:
                return await self._fork(service, command, folder)
            except CannotFork as why:
                if service.source not in self._retired:
                    self._rest(service, str(why))
        return await super().spawn(service, command, folder)

    def _rests(self, service: MCPService) -> bool:
        return self._resting.get(service.source, 0.0) > asyncio.get_running_loop().time()

    def _rest(self, service: MCPService, why: str) -> None:
        if not self._rests(service):
            log.warning(
                "forkserver.unusable",
                service=service.name,
                why=why,
                hint="each call starts its server from the command",
            )
        self._resting[service.source] = asyncio.get_running_loop().time() + REST
        self._helpers.pop(service.source, None)

    def _helper(self, service: MCPService) -> asyncio.Task[ForkServer]:
        if (starting := self._helpers.get(service.source)) is None:
            starting = asyncio.create_task(self._start_helper(service), name=f"fork-server-start-{service.name}")
            starting.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._helpers[service.source] = starting
        return starting

    async def _start_helper(self, service: MCPService) -> ForkServer:
        if sys.platform != "linux":
            raise CannotFork("it works only on Linux")
        try:
            python = PythonCommand.read(resolve_command(service))
        except SessionsError as error:
            raise CannotFork(str(error)) from error
        if python is None:
            raise CannotFork("its command is neither python nor a script whose first line names python")
        try:
            confinement = await confinement_of(service, forks=True)
        except SessionsError as error:
            raise CannotFork(str(error)) from error
        base, _ = self.ground()
        folder = make_folder(base.path, confinement.user)
        assert service.fork_server is not None
        argv = [*python.interpreter, child.__file__, service.fork_server, python.folder, *python.argv]
        helper = ForkServer(partial(self._ended, service), user=confinement.user)
        self._users[helper] = confinement.user
        try:
            # The start has its own deadline, and what is left of it must do for starting without us.
            await helper.start(
                partial(self._spawn_helper, service, confinement, argv, folder), timeout=service.start_timeout / 2
            )
        except BaseException:
            await helper.close()
            raise
        log.info("forkserver.ready", service=service.name, pid=helper.pid)
        return helper

    async def _spawn_helper(
        self, service: MCPService, confinement: Confinement, argv: list[str], folder: Path, stdin: int, stderr: int
    ) -> tuple[Process, Watch]:
        """Start a helper. It can see and enter the folders of its forks."""
        needs = [Path(keeper_child.__file__).parent, Path(child.__file__).parent]
        needs += needed_paths(resolve_command(service))
        try:
            argv = await wrapped(
                service, argv, folder.parent, folder, confinement=confinement, needs=needs, ignore_term=True, forks=True
            )
        except SessionsError as error:
            raise CannotFork(str(error)) from error
        job = self.job(service, confinement, argv, folder, folder, ignore_term=True)
        return await self.start(replace(job, limits={}, no_new_privs=False), stdin, stderr, stderr)

    def _ended(self, service: MCPService, helper: ForkServer) -> None:
        self._users.pop(helper, None)
        self._leaving = {one for one in self._leaving if _started(one) is not helper}
        if not self._closing and not helper.retired and helper.was_ready:
            self._rest(service, "its fork server died, and so did all sessions that were forked from it")

    async def _fork(self, service: MCPService, command: list[str], folder: Path) -> ServerProcess:
        helper = await asyncio.shield(self._helper(service))
        user = self._users.get(helper)
        if user is not None:
            os.chown(folder, user, user)
        python = PythonCommand.read(command)
        assert python is not None
        cwd = working_directory(service, folder)
        confinement = Confinement("none" if service.sandbox.kind == "none" else "limits")
        job = self.job(service, confinement, python.argv, folder, cwd, ignore_term=self.ignore_term)

        async def fork(stdin: int, stdout: int, stderr: int) -> tuple[Process, Watch]:
            forked = await helper.fork(job, stdin, stdout, stderr)
            return forked, forked.watch

        return await self.connected(service, fork, forked=True)

    async def close(self) -> None:
        """End the fork servers, then everything of :class:`LocalLauncher`."""
        self._closing = True
        helpers, self._helpers = [*self._helpers.values(), *self._leaving], {}
        for starting in helpers:
            starting.cancel()
        for result in await asyncio.gather(*helpers, return_exceptions=True):
            if isinstance(result, ForkServer):
                await result.close()
        await super().close()
