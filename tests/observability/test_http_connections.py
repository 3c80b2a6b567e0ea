"""HTTP connections, as an application behind them sees them."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from consumer.observability.http_connections import ConnectionBounds, Parser, SignalFreeServer, bounded


async def _tell_addresses(
    scope: dict[str, Any], _receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    body = json.dumps({"client": scope["client"], "server": scope["server"]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("parser", ["h11", "httptools"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_application_is_told_the_host_and_port_of_both_ends(host: str, parser: Parser) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        bounds = ConnectionBounds(max_connections=10, head_timeout=10, read_timeout=10)
        server = SignalFreeServer(
            uvicorn.Config(_tell_addresses, http=bounded(bounds, parser), lifespan="off", log_config=None)
        )
        serving = asyncio.create_task(server.serve([listening]))
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            told = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
            assert told["client"] == list(writer.get_extra_info("sockname")[:2])
            assert told["server"] == list(writer.get_extra_info("peername")[:2])
            writer.close()
            server.should_exit = True
            await serving
