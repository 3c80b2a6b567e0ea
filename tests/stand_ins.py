"""Programs that somebody else starts, such as a shell or a conformance suite, run as :func:`tests.programs.start` does.

Whoever runs a stand-in gets the command itself in a fork, on its own streams, with its arguments, environment and
folder, and its exit code; a new interpreter would import for a second each time.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import fork_server, programs

_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
    asked.connect({address!r})
    job = {{"arguments": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}
    socket.send_fds(asked, [json.dumps(job).encode()], [0, 1, 2])
    code = asked.recv(16)
sys.exit(int(code))
"""


@asynccontextmanager
async def stand_in(path: Path, *command: str | Path) -> AsyncIterator[None]:
    """Have a program at ``path`` that is ``command``, for as long as this lasts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        # No path: the kernel takes a hundred characters, and a test's folder may have more.
        address = f"\0mcp-sessions-test-{secrets.token_hex(8)}"
        listening.bind(address)
        listening.listen()
        listening.setblocking(False)
        path.write_text(_PROGRAM.format(python=sys.executable, address=address))
        path.chmod(0o755)
        async with asyncio.TaskGroup() as running:
            taking = running.create_task(_take(listening, command, running), name="stand-in")
            try:
                yield
            finally:
                taking.cancel()


async def _take(listening: socket.socket, command: tuple[str | Path, ...], running: asyncio.TaskGroup) -> None:
    loop = asyncio.get_running_loop()
    while True:
        asked, _ = await loop.sock_accept(listening)
        running.create_task(_run(asked, command), name="stand-in-runs")


async def _run(asked: socket.socket, command: tuple[str | Path, ...]) -> None:
    with asked:
        await _readable(asked)
        data, streams, _, _ = socket.recv_fds(asked, fork_server.MESSAGE_SIZE, 3)
        job = json.loads(data)
        stdin, stdout, stderr = streams
        process = await programs.start(
            *(*command, *job["arguments"]), env=job["env"], cwd=job["cwd"], stdin=stdin, stdout=stdout, stderr=stderr
        )
        for stream in streams:
            os.close(stream)
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        asked.send(str(code if code >= 0 else 128 - code).encode())


async def _readable(connection: socket.socket) -> None:
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, heard.set)
    try:
        await heard.wait()
    finally:
        loop.remove_reader(connection)
