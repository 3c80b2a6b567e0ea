"""A connection to a server, by stdio or streamable HTTP: the two streams, and the process where there is one."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from consumer.processes.launch.launcher import Launcher
from consumer.processes.service import MCPService
from consumer.processes.stdio.lines import DEFAULT_LINE_CAP
from consumer.processes.stdio.process import ServerProcess
from consumer.processes.stdio.transport import Outbox, stdio_transport

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import ReadStream, WriteStream  # only the SDK's typing names them

HTTP_TIMEOUT = httpx2.Timeout(10.0, read=600.0)
"""Connecting, writing and waiting for a free connection; how long a call may take is the call's own business."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What a session is built on; ``process`` and ``outbox`` are those of stdio."""

    read: "ReadStream[SessionMessage | Exception]"
    write: "WriteStream[SessionMessage]"
    process: ServerProcess | None = None
    outbox: Outbox | None = None

    @property
    def probe_was_read(self) -> bool:
        """Whether a stdio server has read anything of what it was sent, while it starts or after it died."""
        return self.process is not None and self.outbox is not None and self.process.has_read(self.outbox.written)


def connect(service: MCPService, launcher: Launcher, line_cap: int) -> AbstractAsyncContextManager[Connection]:
    """Open a connection; when the block is left nothing of it remains."""
    return _over_http(service) if service.url else _over_stdio(service, launcher, line_cap)


@asynccontextmanager
async def _over_stdio(service: MCPService, launcher: Launcher, line_cap: int) -> AsyncIterator[Connection]:
    async with (
        launcher.launch(service) as process,
        stdio_transport(process, line_cap=line_cap) as (inbox, outbox),
    ):
        yield Connection(inbox, outbox, process, outbox)


@asynccontextmanager
async def _over_http(service: MCPService) -> AsyncIterator[Connection]:
    assert service.url is not None
    async with (
        httpx2.AsyncClient(headers=service.headers, timeout=HTTP_TIMEOUT) as http,
        streamable_http_client(service.url, http_client=http, max_sse_event_size=DEFAULT_LINE_CAP) as (read, write),
    ):
        yield Connection(read, write)
