"""Whoever reaches the metrics port cannot take the worker's files or its time: neither silent nor slow clients do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import psutil
import pytest

from consumer.observability.web import BOUNDS, Web
from tests.harness import Cluster, config


@asynccontextmanager
async def served(**bounds: float) -> AsyncIterator[int]:
    """A metrics port with these bounds."""
    web = Web("127.0.0.1", 0, lambda: {"ready": True}, replace(BOUNDS, **bounds))  # type: ignore[arg-type]
    await web.open()
    yield web.port
    await web.close()


async def connections(port: int, count: int, first_words: bytes = b"") -> list[asyncio.StreamReader]:
    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first_words)
        return reader, writer

    made = [await connect() for _ in range(count)]
    KEPT.extend(writer for _, writer in made)
    return [reader for reader, _ in made]


KEPT: list[asyncio.StreamWriter] = []


@pytest.fixture(autouse=True)
async def hang_up() -> AsyncIterator[None]:
    yield
    for writer in KEPT:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    KEPT.clear()


async def closed(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 45)
    return True


async def test_three_hundred_silent_connections_leave_the_worker_its_files_and_its_answers(mcp: Cluster):
    worker = await mcp.start(config(worker={"http_port": 0}))
    port = int((await worker.logged("http.listening"))["port"])
    process = psutil.Process(worker.process.pid)
    before = process.num_fds()
    readers = await connections(port, 300)
    async with httpx2.AsyncClient() as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(f"http://127.0.0.1:{port}{path}", timeout=5)).status_code == 200
        await asyncio.gather(*map(closed, readers[: 300 - BOUNDS.max_connections]))  # no later than the next came
        assert process.num_fds() <= before + BOUNDS.max_connections + 5
    await mcp.client.create("c", "echo")
    assert (await mcp.client.call_tool("c", "echo", {"text": "lives"})).text == "lives"


@pytest.mark.parametrize("words", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_who_does_not_ask_is_hung_up_on(words: bytes):
    async with served(head_timeout=0.2) as port:
        (reader,) = await connections(port, 1, words)
        assert await closed(reader)


async def test_a_connection_does_not_last_for_ever_whatever_is_asked_on_it():
    async with served(lifetime=0.5) as port:
        (reader,) = await connections(port, 1, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nX-Slow: ")
        assert (await asyncio.wait_for(reader.readline(), 45)).startswith(b"HTTP/1.1 200")
        assert await closed(reader)


async def test_a_head_that_does_not_end_is_refused():
    async with served() as port:
        (reader,) = await connections(port, 1, b"GET /livez HTTP/1.1\r\nX-Long: " + b"x" * 100_000)
        assert (await asyncio.wait_for(reader.readline(), 45)).startswith(b"HTTP/1.1 4")
