"""A connection to a server process that the worker started."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from consumer.processes.client.connection import Connection
from consumer.processes.client.start_retries import Again, Setback, ended_while_starting, refused, too_slow
from consumer.processes.jsonrpc import quoted
from consumer.processes.launch.launcher import Launcher, missing_files
from consumer.processes.service import MCPService
from consumer.processes.stdio.process import ServerProcess
from consumer.processes.stdio.short_way import ShortWay
from consumer.processes.stdio.stdio_streams import StdinStream, StdoutStream, stdio_transport
from consumer.sessions.session import ProcessExit
from schemas.errors import StartTimeout


class StdioConnection(Connection):
    """The pipes of a process, and its state."""

    process: ServerProcess

    def __init__(
        self, service: MCPService, process: ServerProcess, stdout: StdoutStream, stdin: StdinStream, short_way: ShortWay
    ) -> None:
        self.read, self.write = stdout, stdin
        self.short_way = short_way
        self.process = process
        self._service = service
        self._stdout, self._stdin = stdout, stdin

    @property
    def is_alive(self) -> bool:
        """Whether the process runs and reads its input."""
        return not self.process.is_ending

    @property
    def last_words(self) -> str:
        """The last lines of its stderr."""
        return self.process.stderr.text()

    @property
    def _clue(self) -> str:
        """Return what the server wrote instead of MCP, as the end of a message."""
        bad_output = self._stdout.bad_output
        return f"; the first line on its stdout that is not MCP: {quoted(bad_output)}" if bad_output else ""

    async def setback(self, fault: Exception, *, probed: bool) -> Setback:
        """Return whether the server refused or ended, and how."""
        process = self.process
        ending = await process.wait_gone(1.0) if process.is_ending else None
        if ending is None:
            self.hurry()
            return Setback(refused(self._service, fault, self.last_words, clue=self._clue))
        clue = self._clue + _not_there(self._service)
        error = ended_while_starting(self._service, ending, process.stderr.last_line(), clue)
        if process.fault is not None:
            return Setback(error)
        if probed and ending.signal is None and process.has_read(self._stdin.written):
            return Setback(error, Again.AS_OLD)
        return Setback(error, Again.ONCE if ending.signal is not None else Again.NO)

    def too_slow(self) -> StartTimeout:
        """Return the error for a handshake that took too long, with what the server wrote instead."""
        return too_slow(self._service, self.last_words, self._clue)

    def hurry(self) -> None:
        """End the process with SIGKILL first."""
        self.process.hurry = True

    def begin(self, gone: Callable[[ProcessExit], None]) -> None:
        """Call ``gone`` when the process exits."""
        self.process.forget_stdin_duplicate()
        self.process.add_done_callback(gone)

    def break_off(self, cause: BaseException) -> None:
        """Do nothing: the exit of the process is reported anyway."""

    async def wait_gone(self, timeout: float) -> ProcessExit | None:
        """Wait until the process has exited; returns its exit with the last lines of stderr."""
        return await self.process.wait_gone(timeout)

    def kill(self) -> None:
        """Send SIGKILL to its process group."""
        self.process.kill_group()


@asynccontextmanager
async def over_stdio(service: MCPService, launcher: Launcher, line_cap: int) -> AsyncIterator[StdioConnection]:
    """Start a process and connect to it for the block. Nothing of it remains afterwards."""
    async with (
        launcher.launch(service) as process,
        stdio_transport(process, line_cap=line_cap, longest=service.longest_answer) as (stdout, stdin, short_way),
    ):
        yield StdioConnection(service, process, stdout, stdin, short_way)


def _not_there(service: MCPService) -> str:
    """Return the missing scripts of the service's command, as the end of a message."""
    names = ", ".join(repr(name) for name in missing_files(service))
    return f"; its command names {names}, which is not in {Path.cwd()}, the folder of this process" if names else ""
