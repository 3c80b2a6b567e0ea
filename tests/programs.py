"""How tests start programs: those of this project as forks of a process that has imported them, others as they are.

A script of this Python is one of this project's: a test has written it around what it wants to run.

:func:`start` is :func:`asyncio.create_subprocess_exec` for both. A fork is a process of its own in every respect but
these: its parent is the fork server (:mod:`tests.fork_server`), and the kernel shows the fork server's command line
and first environment as its own. ``anew=True`` starts a new interpreter, for tests that depend on one.
"""

import asyncio
import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from tests import fork_server

PROGRAM = Path(sys.executable).with_name("mcp-sessions")
WORKER = (sys.executable, "-m", "consumer")

READ_EARLY = ("PYTHON", "LC_", "LANG", "OTEL_PROPAGATORS", "OTEL_PYTHON", "PROMETHEUS", "TYPER")
"""How variables begin that are read by the interpreter or an import: a fork has those of the fork server."""

TIMEOUT = 60.0
"""Seconds in which the fork server has imported everything, on a busy machine."""

LIMIT = 1 << 16
"""Bytes that a stream holds before its writer has to wait, as asyncio has it."""


class ForkServer:
    """The fork server of this test run."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(TIMEOUT)
        command = [sys.executable, "-P", fork_server.__file__, str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        self._importing = threading.Lock()
        self._has_imported = False

    async def ready(self) -> None:
        """Wait until it has imported everything. From then on it answers at once."""
        if not self._has_imported:  # a wait here would keep the loop from everything else for seconds
            await asyncio.to_thread(self.wait_ready)

    def wait_ready(self) -> None:
        """Wait as ``ready`` does, without a loop."""
        with self._importing:
            if not self._has_imported:
                self._answer()
                self._has_imported = True

    def can_be(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork is what an interpreter with that environment would be."""
        return _early(environment) == _early(self._environment)

    def fork(self, argv: list[str], environment: Mapping[str, str], folder: str, streams: list[int]) -> int:
        """Start a process when it is ready; returns its id."""
        job = {"argv": argv, "env": dict(environment), "cwd": folder, "script": _is_script(argv[0])}
        socket.send_fds(self._connection, [json.dumps(job).encode()], streams)
        return self._answer()["pid"]

    def reap(self, pid: int) -> int:
        """The exit code of a process that has ended, ``-n`` for signal n."""
        self._connection.send(json.dumps({"reap": pid}).encode())
        return self._answer()["status"]

    def _answer(self) -> dict[str, int]:
        data = self._connection.recv(fork_server.MESSAGE_SIZE)
        if not data:
            raise RuntimeError(f"the fork server has ended with {self._process.wait()}")
        told: dict[str, int] = json.loads(data)
        return told

    def close(self) -> None:
        """End it, and with it what is left of its forks."""
        self._connection.close()
        self._process.wait()


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}


@cache
def the_fork_server() -> ForkServer:
    """The one of this test run; it ends with the run."""
    server = ForkServer()
    atexit.register(server.close)
    return server


class ForkedProcess:
    """A fork; stands in for :class:`asyncio.subprocess.Process`."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._server = server
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.returncode = self._server.reap(self.pid)
        self._ended.set()

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, ``-n`` for signal n."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, given: bytes | None = None) -> tuple[bytes, bytes]:
        """Write ``given`` to its standard input, read what it writes, and wait for its end."""
        _, out, err = await asyncio.gather(self._feed(given), _all_of(self.stdout), _all_of(self.stderr))
        await self.wait()
        return out, err

    async def _feed(self, given: bytes | None) -> None:
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended, or closed its input
                self.stdin.write(given or b"")
                await self.stdin.drain()
            self.stdin.close()

    def send_signal(self, number: int) -> None:
        """Send a signal; :class:`ProcessLookupError` after its end."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


Process: TypeAlias = asyncio.subprocess.Process | ForkedProcess


async def start(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    limit: int = LIMIT,
    anew: bool = False,
) -> Process:
    """Start a command; see :func:`asyncio.create_subprocess_exec`."""
    words = [str(word) for word in command]
    environment = os.environ if env is None else env
    arguments = _arguments_of(words)
    if anew or arguments is None or sys.platform != "linux" or not the_fork_server().can_be(environment):
        return await asyncio.create_subprocess_exec(
            *words, env=environment, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, limit=limit
        )
    return await _fork([words[0], *arguments], environment, str(cwd or Path.cwd()), [stdin, stdout, stderr], limit)


async def start_code(code: str, folder: Path, *arguments: str, **more: Any) -> Process:
    """Start a program that is written here, from a script in ``folder``; see :func:`start`."""
    script = folder / "script"
    script.write_text(f"#!{sys.executable}\n{code}")
    script.chmod(0o755)
    return await start(script, *arguments, **more)


async def output_of(process: Process, timeout: float) -> tuple[bytes, bytes]:
    """What a program writes until it ends; it is killed when the time is over.

    Raises:
        TimeoutError: it did not end.
    """
    try:
        async with asyncio.timeout(timeout):
            return await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _arguments_of(command: list[str]) -> list[str] | None:
    """The arguments of the command line that a command comes to, if it is one of this project's."""
    if tuple(command[: len(WORKER)]) == WORKER:
        return ["worker", *command[len(WORKER) :]]
    return command[1:] if command[0] == str(PROGRAM) or _is_script(command[0]) else None


def _is_script(program: str) -> bool:
    """Whether a program is a script of this interpreter that a test has written: it imports what the fork has."""
    with contextlib.suppress(OSError), Path(program).open("rb") as file:
        return program != str(PROGRAM) and file.readline(4096).rstrip() == f"#!{sys.executable}".encode()
    return False


async def _fork(
    argv: list[str], environment: Mapping[str, str], folder: str, wanted: list[int | None], limit: int
) -> ForkedProcess:
    server = the_fork_server()
    await server.ready()
    theirs: list[int] = []
    ours: list[int | None] = []
    with contextlib.ExitStack() as closing:
        for number, what in enumerate(wanted):
            end, other = _ends(number, what, theirs)
            theirs.append(end)
            ours.append(other)
            if what in (PIPE, DEVNULL):
                closing.callback(os.close, end)
        process = ForkedProcess(server, server.fork(argv, environment, folder, theirs))
    writing, *reading = ours
    process.stdin = None if writing is None else await _writer(writing)
    process.stdout, process.stderr = [None if end is None else await _reader(end, limit) for end in reading]
    return process


def _ends(number: int, wanted: int | None, others: list[int]) -> tuple[int, int | None]:
    """A fork's descriptor for a standard stream, and ours if it is a pipe."""
    match wanted:
        case None:
            return number, None
        case asyncio.subprocess.PIPE:
            reading, writing = os.pipe()
            return (reading, writing) if number == 0 else (writing, reading)
        case asyncio.subprocess.DEVNULL:
            return os.open(os.devnull, os.O_RDWR), None
        case asyncio.subprocess.STDOUT:
            return others[1], None
    return wanted, None


async def _reader(descriptor: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit)
    file = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(descriptor, "wb", 0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()
