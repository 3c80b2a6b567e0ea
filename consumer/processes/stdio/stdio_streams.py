"""A stdio transport for the SDK's session: two streams over a :class:`ServerProcess`, with limits.

Framing and shutdown are those of MCP 2025-11-25, basic/transports#stdio; the 2026-07-28 revision left them alone. In
place of the SDK's own transport because that one parses a huge line in quadratic time, logs a traceback for every bad
line, and copies each message through two more tasks.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse
from pydantic_core import to_json

from consumer.processes.jsonrpc import UNASKED_CAP, NotJsonRpc, may_be_answer, most_values, parse
from consumer.processes.loop_share import PARSING, TALKS, WAKING, LoopShare, price_of
from consumer.processes.stdio.line_splitter import DEFAULT_LINE_CAP, LineSplitter, LineTooLong
from consumer.processes.stdio.open_requests import OpenRequests
from consumer.processes.stdio.process import ServerProcess
from consumer.processes.stdio.short_way import ShortWay

BAD_OUTPUT_CAP = 1000
"""How many lines that are not JSON-RPC end a server."""

BAD_OUTPUT_LOGGED = 3
BAD_OUTPUT_SIZE = 1024
"""How many bytes of the first such line are kept."""

UNSENT_CAP = 16 * 1024 * 1024
"""How many bytes may wait for a server that does not read its stdin."""

BACKLOG = 256
"""How many messages may wait for the session before reading stops."""

TURN = 0.002
"""How much time (s) the session may spend on one server's messages before the loop serves the others."""

ANSWER = TURN / 16
"""The cost of an answer in this account (s)."""

SHORT = 4_096
"""Up to this many bytes, the cost of reading a piece of output is not measured."""

LINE = 2e-5
"""The highest cost (s) of a line in such a piece."""

FREE = 0.002
"""How much reading time (s) for a piece of output is not charged to the server if the output contains an answer."""

log = structlog.get_logger(__name__)


class InputBlocked(Exception):
    """The server does not read its stdin, and too much is already waiting. This message was not queued."""


class NotSerializable(ValueError):
    """The request cannot be written as JSON in UTF-8, for example because of a lone surrogate."""


class Stream:
    """The common part of both streams: async context managers that close themselves."""

    async def aclose(self) -> None:
        """Receive no more messages, or send no more."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class StdoutStream(Stream):
    """Messages from the server, parsed as they arrive. It ends with the server's stdout."""

    def __init__(
        self, process: ServerProcess, requests: OpenRequests, short_way: ShortWay, line_cap: int, longest: int
    ) -> None:
        self._process = process
        self._requests = requests
        self._short_way = short_way
        self._splitter = LineSplitter(line_cap)
        self._line_cap = line_cap
        self._longest = longest
        self._messages: deque[SessionMessage] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._share = LoopShare()
        self._resting: asyncio.TimerHandle | None = None
        self._turn = 0.0
        self._paused = False
        self._bad_lines = 0
        self._first_bad_output = b""
        self._pipe = process.read_stdout(self._feed, self._end)

    def _feed(self, data: bytes) -> None:
        if self._ended:
            return
        # To ask for the time that this takes costs more than to read a short piece.
        began = time.thread_time() if len(data) > SHORT else None
        try:
            lines = self._splitter.feed(data)
        except LineTooLong:
            self._give_up(f"it wrote a line of more than {self._line_cap} bytes to stdout")
            return
        cost = WAKING
        free = 0.0
        for line in lines:
            if len(line) > UNASKED_CAP and not may_be_answer(line):
                cost += len(line) * PARSING
                fault = NotJsonRpc(f"{len(line)} bytes that are not a response")
                if not self._tolerated(line[:BAD_OUTPUT_SIZE], fault):
                    return
                continue
            try:
                message = self._read(line) if line and not line.isspace() else None
            except NotJsonRpc as fault:
                if not self._tolerated(line, fault):
                    return
                continue
            if message is not None:
                if self._messages or not self._short_way.heard(message):  # behind what the server said before it
                    self._messages.append(SessionMessage(message))
                price = price_of(message)
                cost += price
                free = free if price else FREE + WAKING
        self._wake()
        took = time.thread_time() - began if began is not None else len(lines) * LINE
        self._share.spend(cost + max(0.0, took - free))
        if self._share.is_overdrawn:
            self._give_up(TALKS)
        elif self._share.rest and self._resting is None:
            self._resting = asyncio.get_running_loop().call_later(self._share.rest, self._rested)
        if (len(self._messages) > BACKLOG or self._resting is not None) and not self._paused:
            self._paused = True
            self._pipe.pause()

    def _rested(self) -> None:
        self._resting = None
        if self._share.rest:
            self._resting = asyncio.get_running_loop().call_later(self._share.rest, self._rested)
        elif self._paused and not self._messages:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        self._pipe.resume()

    def _read(self, line: bytes) -> JSONRPCMessage | None:
        message = parse(line, longest=self._longest, most=most_values(line))
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            if len(line) > UNASKED_CAP:
                raise NotJsonRpc(f"{len(line)} bytes that are not a response")
            return message
        if (answer := self._requests.claimed(message)) is None:
            raise NotJsonRpc("a response to no request")
        return answer

    @property
    def bad_output(self) -> bytes:
        """The first line that was not MCP, if there was one."""
        return self._first_bad_output or self._splitter.pending[:BAD_OUTPUT_SIZE].strip()

    def _tolerated(self, line: bytes, fault: NotJsonRpc) -> bool:
        self._bad_lines += 1
        self._first_bad_output = self._first_bad_output or line[:BAD_OUTPUT_SIZE].strip()
        if self._bad_lines <= BAD_OUTPUT_LOGGED:
            log.debug("process.bad_output", pid=self._process.pid, fault=str(fault), line=line[:200])
        if self._bad_lines > BAD_OUTPUT_CAP:
            self._give_up(f"it wrote more than {BAD_OUTPUT_CAP} lines to stdout that are not JSON-RPC")
            return False
        return True

    def _give_up(self, reason: str) -> None:
        self._process.kill_for_fault(reason)
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> SessionMessage:
        """Return the next message for the SDK."""
        while True:
            while not self._messages:
                if self._ended:
                    self._short_way.end()
                    raise anyio.EndOfStream
                if self._paused and self._resting is None:
                    self._resume()
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            message = self._messages.popleft()
            self._turn += price_of(message.message) or ANSWER
            if self._turn >= TURN:
                self._turn = 0.0
                await asyncio.sleep(0)  # others have their turn
            if not self._short_way.heard(message.message):
                return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Deliver no more messages. Further output of the server is read and dropped."""
        self._messages.clear()
        if self._resting is not None:
            self._resting.cancel()
        self._end()
        self._short_way.end()


class StdinStream(Stream):
    """Messages to the server. Sending never waits: messages for a server that does not read are kept, up to a limit."""

    def __init__(self, process: ServerProcess, requests: OpenRequests) -> None:
        self._process = process
        self._requests = requests
        self._closed = False
        self.written = 0

    async def send(self, item: SessionMessage, /) -> None:
        """Queue one message.

        A request raises :class:`InputBlocked` if too much is already waiting, and :class:`NotSerializable` if it is no
        JSON. Any other message is dropped in these cases, because no caller waits for it.
        """
        if self._closed or self._process.returncode is not None:
            raise anyio.BrokenResourceError
        is_request = isinstance(item.message, JSONRPCRequest)
        if self._process.unsent > UNSENT_CAP:
            if is_request:
                raise InputBlocked
            return
        try:
            data = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        except ValueError as cause:
            if is_request:
                raise NotSerializable(str(cause)) from cause
            return
        self._requests.sent(item.message)
        self._write(data)

    def request(self, method: str, params: Mapping[str, Any]) -> int:
        """Queue a request that bypasses the SDK. Return its id. Raises the errors of ``send``."""
        if self._closed or self._process.returncode is not None:
            raise anyio.BrokenResourceError
        if self._process.unsent > UNSENT_CAP:
            raise InputBlocked
        request_id = self._requests.next_of_short_way
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
        if params:
            message["params"] = params
        try:
            data = to_json(message, inf_nan_mode="null")
        except ValueError as cause:
            raise NotSerializable(str(cause)) from cause
        self._requests.opened(request_id)
        self._write(data)
        return request_id

    def cancel(self, request_id: int, reason: str) -> None:
        """Cancel a request of ``request`` at the server. Does nothing if the server does not read."""
        self._requests.given_up(request_id)
        if self._closed or self._process.returncode is not None or self._process.unsent > UNSENT_CAP:
            return
        params = {"requestId": request_id, "reason": reason}
        self._write(to_json({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))

    def _write(self, data: bytes) -> None:
        self.written += len(data) + 1
        self._process.write(data + b"\n")

    async def aclose(self) -> None:
        """Send no more messages. The server's stdin is closed with the process."""
        self._closed = True


@asynccontextmanager
async def stdio_transport(
    process: ServerProcess, *, longest: int, line_cap: int = DEFAULT_LINE_CAP
) -> AsyncIterator[tuple[StdoutStream, StdinStream, ShortWay]]:
    """Return the two streams for the SDK's session, over the pipes of ``process``, and the fast path.

    The launcher ends the process. A line of more than ``longest`` bytes is not parsed, and one of more than
    ``line_cap`` ends the server.
    """
    requests = OpenRequests()
    stdin = StdinStream(process, requests)
    short_way = ShortWay(stdin, requests)
    stdout = StdoutStream(process, requests, short_way, line_cap, longest)
    try:
        yield stdout, stdin, short_way
    finally:
        await stdin.aclose()
        await stdout.aclose()
