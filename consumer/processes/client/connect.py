"""Opens the connection that a service needs."""

from contextlib import AbstractAsyncContextManager

from consumer.processes.client.connection import Connection
from consumer.processes.client.http_connection import over_http
from consumer.processes.client.stdio_connection import over_stdio
from consumer.processes.launch.launcher import Launcher
from consumer.processes.service import MCPService


def connect(service: MCPService, launcher: Launcher, line_cap: int) -> AbstractAsyncContextManager[Connection]:
    """Open a connection for the block. Nothing of it remains afterwards."""
    return over_http(service) if service.url else over_stdio(service, launcher, line_cap)
