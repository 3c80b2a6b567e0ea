"""Servers at a URL: a real uvicorn with a real server of the SDK in a process of its own."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator

import pytest
from aiomisc.pytest import TCPProxy

from consumer.processes.client.era import Era
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
from consumer.sessions.dialogue import Dialogue
from schemas.errors import OutcomeUnknown, SessionDied, StartFailed, StartTimeout, ToolTimeout

from .helpers import Exits, command, structured, text


class Remote:
    """The server's process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


async def serve() -> Remote:
    process = await asyncio.create_subprocess_exec(*command("http_server"), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = await asyncio.wait_for(process.stdout.readline(), 45)
    return Remote(process, int(port))


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    made = await serve()
    yield made
    await made.kill()


def client_of(url: str, **settings: object) -> MCPClient:
    return MCPClient(MCPService.model_validate({"name": "remote", "url": url, **settings}))


async def test_a_server_at_a_url_is_called_like_any_other(remote: Remote) -> None:
    client = client_of(remote.url, headers={"authorization": "Bearer secret"})
    await client.start()
    assert client.is_alive
    assert client.process is None
    assert client.era is Era.MODERN
    assert {"add", "counter"} <= {tool["name"] for tool in client.tools}
    assert structured(await client.call_tool("add", {"a": 1, "b": 2})) == {"result": 3}
    seen = structured(await client.call_tool("headers"))
    assert seen["authorization"] == "Bearer secret"
    assert seen["mcp-name"] == "headers"
    await client.stop()
    assert not client.is_alive
    assert client.exit is None


async def test_an_old_client_era_works_over_http_as_well(remote: Remote) -> None:
    service = MCPService(url=remote.url)
    client = MCPClient(service, known_era=Era.HANDSHAKE)
    await client.start()
    assert client.session.protocol_version == "2025-11-25"
    assert structured(await client.call_tool("counter")) == {"result": 1}
    assert structured(await client.call_tool("counter")) == {"result": 2}
    await client.stop()


@pytest.mark.parametrize("era", [None, Era.HANDSHAKE])
async def test_deadlines_and_progress_over_http(remote: Remote, era: Era | None) -> None:
    client = MCPClient(MCPService(url=remote.url), known_era=era)
    await client.start()
    seen = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))

    assert text(await client.call_tool("progress", dialogue=Dialogue(on_progress=on_progress))) == "done"
    assert seen == [(1, "step 1"), (2, "step 2"), (3, "step 3")]
    with pytest.raises(ToolTimeout):
        await client.call_tool("sleep", {"seconds": 30}, timeout=0.2)
    assert structured(await client.call_tool("add", {"a": 1, "b": 2})) == {"result": 3}
    await client.stop()


async def test_a_lost_connection_is_an_exit_without_a_code(remote: Remote) -> None:
    client = client_of(remote.url)
    await client.start()
    exits = Exits()
    client.on_exit(exits)
    call = asyncio.create_task(client.call_tool("sleep", {"seconds": 30}))
    await client.call_tool("add", {"a": 1, "b": 2})
    await remote.kill()
    with pytest.raises(OutcomeUnknown):
        await call
    seen = await exits.first()
    assert (seen.exit_code, seen.signal) == (None, None)
    assert "connection lost" in seen.stderr
    assert not client.is_alive
    with pytest.raises(SessionDied, match="connection was lost"):
        await client.call_tool("add", {"a": 1, "b": 2})
    await client.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


async def test_nobody_at_the_url_is_said_after_some_tries() -> None:
    started = time.monotonic()
    with pytest.raises(StartFailed, match="cannot reach http://127"):
        await client_of(f"http://127.0.0.1:{free_port()}/mcp").start()
    assert time.monotonic() - started > 0.3


async def test_a_server_that_comes_up_meanwhile_is_reached(remote: Remote) -> None:
    proxy = TCPProxy("127.0.0.1", remote.port)  # so that it comes up at once, however busy the machine is
    client = client_of(f"http://127.0.0.1:{proxy.proxy_port}/mcp")
    starting = asyncio.create_task(client.start())
    await asyncio.sleep(0.1)
    assert not starting.done()
    async with proxy:
        await starting
        assert structured(await client.call_tool("add", {"a": 1, "b": 2})) == {"result": 3}
        await client.stop()


async def test_a_port_that_accepts_and_is_silent_is_given_up() -> None:
    accepted: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(lambda _reader, writer: accepted.append(writer), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises(StartTimeout, match="handshake"):
        await client_of(f"http://127.0.0.1:{port}/mcp", start_timeout=0.5).start()
    for writer in accepted:
        writer.close()
    listening.close()
    await listening.wait_closed()


async def test_what_is_no_mcp_server_is_refused(remote: Remote) -> None:
    with pytest.raises(StartFailed, match="handshake"):
        await client_of(remote.url.replace("/mcp", "/elsewhere")).start()
