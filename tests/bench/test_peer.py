"""The gateway is not made to wait for what none of its users waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from scripts.benchmarks.peer import Gateway


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    """Answers, and keeps the connection until its client closes it."""

    gone = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listening:
        yield int(listening.sockets[0].getsockname()[1])
        await gone.wait()


async def test_an_answer_counts_when_its_last_byte_is_there():
    async with server(b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\nConnection: close\r\n\r\n{"a": 1}') as port:
        async with asyncio.timeout(10):
            assert await Gateway(port, "x").request("GET", "/") == {"a": 1}


async def test_an_answer_that_is_none_is_told():
    async with server(b"HTTP/1.1 429 TOO MANY\r\nContent-Length: 4\r\n\r\nslow") as port, asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="429 TOO MANY"):
            await Gateway(port, "x").request("GET", "/")
