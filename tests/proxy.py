"""The way to the broker through a proxy that a test may cut, slow down, or let swallow everything."""

from aiomisc.pytest import TCPProxy
from yarl import URL


def through(url: str, proxy: TCPProxy) -> str:
    """The broker's URL by way of a proxy."""
    return str(URL(url).with_host(proxy.proxy_host).with_port(proxy.proxy_port))
