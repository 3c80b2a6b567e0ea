"""The way to the broker through a proxy that a test may cut, slow down, or let swallow everything."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
