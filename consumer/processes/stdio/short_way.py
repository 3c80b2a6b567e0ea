"""A fast path for requests: written directly to stdin, and answered where stdout is read.

The SDK's dispatcher makes streams, a cancel scope and a span for each request, and its answer takes two more turns of
the loop. Together that is most of the cost of a tool call. A request without interim messages that is not traced needs
none of this. Failures have the same texts as the dispatcher's.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import anyio
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, JSONRPCError, JSONRPCMessage, JSONRPCResponse

from consumer.processes.jsonrpc import Answer
from consumer.processes.stdio.open_requests import OpenRequests


class Writer(Protocol):
    """Writes to the server's stdin."""

    def request(self, method: str, params: Mapping[str, Any]) -> int: ...  # noqa: D102 - see StdinStream
    def cancel(self, request_id: int, reason: str) -> None: ...  # noqa: D102


class ShortWay:
    """The callers that wait on this path for one server. ``requests`` knows the ids of its requests."""

    def __init__(self, writer: Writer, requests: OpenRequests) -> None:
        self._writer = writer
        self._requests = requests
        self._open: dict[int, asyncio.Future[Answer | None]] = {}
        self._ended = False

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, method: str, params: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and return its result unchanged. If it is given up, it is cancelled at the server.

        Raises:
            MCPError: the server's error; or ``REQUEST_TIMEOUT``, ``CONNECTION_CLOSED``.
            InputBlocked, NotSerializable: it was not sent.
        """
        if self._ended:
            raise _closed()
        loop = asyncio.get_running_loop()
        try:
            request_id = self._writer.request(method, params)
        except anyio.BrokenResourceError:
            raise _closed() from None
        waiting = self._open[request_id] = loop.create_future()
        timer = loop.call_later(timeout, _late, waiting)
        try:
            answer = await waiting
        except asyncio.CancelledError:
            self._writer.cancel(request_id, "caller cancelled")
            raise
        finally:
            timer.cancel()
            del self._open[request_id]
        if answer is None:
            if self._ended:
                raise _closed()
            self._writer.cancel(request_id, f"timed out after {timeout}s")
            raise MCPError(code=REQUEST_TIMEOUT, message=f"Request {method!r} timed out")
        if isinstance(answer, JSONRPCError):
            raise MCPError(code=answer.error.code, message=answer.error.message, data=answer.error.data)
        result: dict[str, Any] = answer.result
        return result

    def heard(self, message: JSONRPCMessage) -> bool:
        """Take the answer to a request of this path. Return False for any other message."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id is None:
            return False
        request_id = coerce_request_id(message.id)
        if not self._requests.is_of_short_way(request_id):
            return False
        waiting = self._open.get(int(request_id))
        if waiting is not None and not waiting.done():  # else it is too late: its caller has gone
            waiting.set_result(message)
        return True

    def end(self) -> None:
        """End the open requests with ``CONNECTION_CLOSED``, because no more output will come. Idempotent."""
        self._ended = True
        for waiting in self._open.values():
            _late(waiting)


def _late(waiting: "asyncio.Future[Answer | None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


def _closed() -> MCPError:
    return MCPError(code=CONNECTION_CLOSED, message="Connection closed")
