"""The way to the broker through a proxy that a test may cut, slow down, or let swallow everything."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiomisc.pytest import TCPProxy
from yarl import URL


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[TCPProxy]:
    """A proxy before the broker of this URL."""
    broker = URL(url)
    async with TCPProxy(str(broker.host), int(broker.port or 5672)) as made:
        yield made


def through(url: str, proxy: TCPProxy) -> str:
    """The broker's URL by way of a proxy."""
    return str(URL(url).with_host(proxy.proxy_host).with_port(proxy.proxy_port))


@contextmanager
def standing_still(proxy: TCPProxy) -> Iterator[None]:
    """Nothing passes and nothing is closed, as with a stopped broker; what was on its way arrives afterwards."""
    over = asyncio.Event()

    async def hold(chunk: bytes) -> bytes:
        await over.wait()
        return chunk

    _process(proxy, hold)
    try:
        yield
    finally:
        _process(proxy, None)
        over.set()


def _process(proxy: TCPProxy, processor: Callable[[bytes], Awaitable[bytes]] | None) -> None:
    proxy.read_processor = proxy.write_processor = processor
    for client in proxy.clients:
        client.read_processor = client.write_processor = processor
