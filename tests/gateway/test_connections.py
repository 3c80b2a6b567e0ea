"""Connections to a gateway that are slow, silent or too many, with both parsers."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from consumer.gateway.server import HttpServer, bounds_of
from consumer.observability.http_connections import Parser
from consumer.settings.gateway_settings import GatewaySettings

SETTINGS = GatewaySettings(port=0)
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

pytestmark = pytest.mark.parametrize("parser", ["h11", "httptools"])


class Stage:
    """A server whose answers wait for ``go``, and connections to it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.asked = asyncio.Semaphore(0)
        self.port = 0
        self.size = 2
        self._made: list[asyncio.StreamWriter] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        self.asked.release()
        await self.go.wait()
        await PlainTextResponse("o" * self.size)(scope, receive, send)

    async def connect(self, words: bytes = b"") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._made.append(writer)
        writer.write(words)
        return reader, writer

    def hang_up(self) -> None:
        for writer in self._made:
            writer.transport.abort()


@asynccontextmanager
async def stage(parser: Parser, **bounds: float) -> AsyncIterator[Stage]:
    made = Stage()
    changed = replace(bounds_of(SETTINGS), **bounds)  # type: ignore[arg-type]
    server = HttpServer(made.app, SETTINGS, bounds=changed, parser=parser)
    made.port = await server.open()
    try:
        yield made
    finally:
        made.go.set()
        made.hang_up()
        await server.close()


@pytest.mark.parametrize("asks", [1, 2])
async def test_an_idle_client_over_tls_does_not_delay_the_end(
    parser: Parser, asks: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issuer, cert = trustme.CA(), tmp_path / "cert.pem"
    issuer.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(cert)
    trusting = ssl.create_default_context()
    issuer.configure_trust(trusting)
    made = Stage()
    server = HttpServer(made.app, GatewaySettings(port=0, tls_cert=cert), parser=parser)
    port = await server.open()

    def connect() -> ssl.SSLSocket:
        return trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")

    # A blocking socket that is not read says no goodbye, unlike a stream of asyncio.
    with await asyncio.to_thread(connect) as idle:
        for number in range(1, asks + 1):
            if number == 2:
                made.go.clear()  # this one is answered while the server closes
            await asyncio.to_thread(idle.sendall, ASK)
            await made.asked.acquire()
            if number == 1:
                assert b" 200 " in await asyncio.to_thread(idle.recv, 1000)
        closing = asyncio.create_task(server.close())
        await asyncio.sleep(0.2)
        made.go.set()
        await closing
        assert caplog.messages == []
        if asks == 2:
            assert b" 200 " in await asyncio.to_thread(idle.recv, 1000)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server hangs up."""
    async with asyncio.timeout(45):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("words", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_request_that_does_not_come_is_hung_up_on(parser: Parser, words: bytes) -> None:
    async with stage(parser, head_timeout=0.2) as server:
        reader, _ = await server.connect(words)
        assert await rest(reader) == b""


async def test_a_second_request_that_comes_letter_by_letter_is_hung_up_on(parser: Parser) -> None:
    async with stage(parser, head_timeout=0.5) as server:
        reader, writer = await server.connect(ASK)
        await reader.readuntil(b"oo")
        ended = asyncio.create_task(rest(reader))
        while not ended.done():
            writer.write(b"G")
            await asyncio.wait({ended}, timeout=0.05)
        assert b" 200 " not in ended.result()


async def test_a_head_without_an_end_is_refused(parser: Parser) -> None:
    async with stage(parser) as server:
        reader, writer = await server.connect(b"GET / HTTP/1.1\r\n")
        ended = asyncio.create_task(rest(reader))
        while not ended.done():
            writer.write(b"X-Long: " + b"x" * 5000 + b"\r\n")
            await asyncio.wait({ended}, timeout=0.01)
        assert ended.result()[:10] in (b"HTTP/1.1 4", b"")  # the answer may be lost to who still writes


async def test_who_does_not_read_is_hung_up_on(parser: Parser) -> None:
    async with stage(parser, read_timeout=0.3) as server:
        server.size = 32 << 20
        reader, _ = await server.connect(ASK)
        await server.asked.acquire()
        await asyncio.sleep(1)  # reads nothing for longer than it may
        assert len(await rest(reader)) < server.size


async def test_one_connection_too_many_takes_the_place_of_an_idle_one(parser: Parser) -> None:
    async with stage(parser, max_connections=2) as server:
        idle, _ = await server.connect(ASK)
        await idle.readuntil(b"oo")
        silent, _ = await server.connect()
        for _ in range(3):
            reader, _ = await server.connect(ASK)
            await reader.readuntil(b"oo")
        assert await rest(silent) == b""  # before the one that has asked


async def test_one_connection_too_many_is_told_so_when_all_are_busy(parser: Parser) -> None:
    async with stage(parser, max_connections=2) as server:
        server.go.clear()
        busy = [await server.connect(ASK) for _ in range(2)]
        for _ in busy:
            await server.asked.acquire()
        reader, _ = await server.connect(ASK)
        told = await rest(reader)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in told
        assert b'"retryable":true' in told
        server.go.set()
        for reader, _ in busy:
            assert b" 200 " in await reader.readuntil(b"oo")
