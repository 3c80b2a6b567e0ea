"""Reads the responses of MCP servers over HTTP before the SDK does, and makes each one usable.

The SDK's transport drops the status and the text of a refusal, and reports an unreadable answer in its validator's
words. Here every answer to a request becomes a JSON-RPC message with the id of that request. The protocol is that of
MCP 2025-11-25 and 2026-07-28, basic/transports#streamable-http.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCResponse,
)
from pydantic_core import from_json

from consumer.processes.jsonrpc import (
    UNASKED_CAP,
    Answer,
    NotJsonRpc,
    answer_to,
    failure,
    may_be_answer,
    most_values,
    parse,
    quoted,
    too_large,
)
from consumer.processes.loop_share import EVENT, PARSING, LoopShare
from consumer.processes.stdio.line_splitter import DEFAULT_LINE_CAP

SESSION_ID = "mcp-session-id"
FORGOTTEN = "the server no longer knows the session"
UNANSWERED = "the connection was lost before the response came"

REACHED = 5.0
"""Seconds within which the server has to answer at all after a connection to it broke."""

BROKEN = (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
"""The errors with which an established connection ends."""

_BEGINNINGS = {"initialize", "server/discover"}
_OF_THE_BODY = {"content-length", "content-type", "transfer-encoding"}

_JSON = {"content-type": "application/json"}
_IDENTITY = "identity"
_UNCOMPRESSED = {"accept-encoding": _IDENTITY}
"""The header that asks for uncompressed answers, because a small compressed one may be very large."""

_STREAM = "text/event-stream"
_UNKNOWN_SESSION = re.compile(
    r"(no valid|invalid|unknown|expired).*session|session.*(not found|invalid|unknown|expired|terminated)"
    r"|not initialized",
    re.IGNORECASE,
)
"""Texts with which servers report an unknown session with status 400, instead of the 404 that MCP requires."""


def _is_stream(response: httpx2.Response) -> bool:
    return response.is_success and response.headers.get("content-type", "").lower().startswith(_STREAM)


def status_line(status: int) -> str:
    """Return a status with its standard name: ``502 Bad Gateway``."""
    return f"{status} {httpx2.codes.get_reason_phrase(status)}".rstrip()


class _ChunkedBody(httpx2.AsyncByteStream):
    def __init__(self, chunks: AsyncIterator[bytes], response: httpx2.Response) -> None:
        self._chunks, self._response = chunks, response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


class AnsweringClient(httpx2.AsyncClient):
    """An HTTP client whose responses the SDK can read.

    ``forgotten`` is called with the reason when the server no longer knows the session, and ``talks`` when the server
    sends without end.
    """

    def __init__(
        self,
        *,
        forgotten: Callable[[str], None],
        talks: Callable[[], None],
        share: LoopShare,
        headers: Mapping[str, str],
        cap: int,
        **settings: Any,
    ) -> None:
        super().__init__(headers={**_UNCOMPRESSED, **headers}, **settings)
        self._share = share
        self._forgotten = forgotten
        self._talks = talks
        self._cap = cap
        self._listened = False
        self.refused: int | None = None
        """The status of the last answer, if it was 400 or more."""

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send a request for the SDK's transport."""
        try:
            response = await super().send(request, stream=stream, auth=auth, follow_redirects=follow_redirects)
        except BROKEN as fault:
            return await self._unanswered(request, fault)
        if request.method == "GET" and SESSION_ID in request.headers:
            if response.status_code == httpx2.codes.NOT_FOUND and self._listened:
                self._forgotten(status_line(response.status_code))
            self._listened |= response.is_success
            if _is_stream(response) and response.headers.get("content-encoding", _IDENTITY) == _IDENTITY:
                return _like(response, stream=_ChunkedBody(self._events(None, response), response))
        if request.method == "DELETE" and response.status_code == httpx2.codes.NOT_FOUND:
            return _like(response, status=httpx2.codes.NO_CONTENT)  # the SDK warns of it; the session is over, as asked
        if request.method != "POST" or response.next_request is not None:
            if response.headers.get("content-encoding", _IDENTITY) == _IDENTITY:
                return response
            await response.aclose()
            return _like(response, status=httpx2.codes.METHOD_NOT_ALLOWED, content=b"")
        try:
            return await self._answered(request, response)
        except BROKEN as fault:
            await response.aclose()
            return await self._unanswered(request, fault)
        except BaseException:
            await response.aclose()
            raise

    async def _answered(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        request_id = _request_id(request)
        encoding = response.headers.get("content-encoding", _IDENTITY)
        if encoding != _IDENTITY and request_id is not None:
            await response.aclose()
            refusal = failure(
                request_id, f"the server compressed its response ({encoding}), but no compression was requested"
            )
            return _like(response, content=_json_of(refusal), status=200, headers=_JSON)
        if response.is_success and (request_id is None or response.status_code == httpx2.codes.ACCEPTED):
            return response
        if request_id is not None:
            self.refused = None if response.is_success else response.status_code
        if _is_stream(response):
            return _like(response, stream=_ChunkedBody(self._events(request_id, response), response))
        data = await self._read(response)
        why = _forgets(request, response, data)
        if why is not None:
            self._forgotten(why)
        if request_id is None:
            return _like(response, content=data)
        if why is not None:
            answer = failure(request_id, FORGOTTEN, code=INVALID_REQUEST)
        elif len(data) > self._cap:
            told = f"it has more bytes than {self._cap}, which are read at most (max_result)"
            answer = too_large(request_id, told, size=len(data), limit=self._cap)
        elif response.is_success:
            answer = answer_to(request_id, data)
        else:
            answer = _refusal(request_id, response.status_code, data)
        return _like(response, content=_json_of(answer), status=200, headers=_JSON)

    async def _unanswered(self, request: httpx2.Request, fault: httpx2.TransportError) -> httpx2.Response:
        """Return an error in place of the answer to a request whose connection broke, if the server is still reachable.

        The session does not end with a connection, which a proxy or the server may close at any time. The request is
        not repeated, because it may have been executed.

        Raises:
            httpx2.TransportError: the server is out of reach.
        """
        asked = from_json(request.content) if request.method == "POST" else {}
        if not asked or asked.get("method") in _BEGINNINGS:
            raise fault
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_BODY}
        ping = self.build_request(
            "POST", request.url, headers=headers, json={"jsonrpc": "2.0", "id": "again", "method": "ping"}
        )
        try:
            async with asyncio.timeout(REACHED):
                response = await super().send(ping, stream=True)
                why = _forgets(ping, response, await self._read(response))
        except (httpx2.HTTPError, TimeoutError):
            raise fault from None
        if why is not None:
            self._forgotten(why)
        if "method" not in asked or "id" not in asked:
            return httpx2.Response(httpx2.codes.ACCEPTED, request=request)
        return httpx2.Response(200, headers=_JSON, request=request, content=_json_of(failure(asked["id"], UNANSWERED)))

    async def _read(self, response: httpx2.Response) -> bytes:
        """Return the body. It is empty if it cannot be decoded, and cut just beyond the limit if it is too long."""
        read = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                read += chunk
                if len(read) > self._cap:
                    break
        except httpx2.DecodingError:
            read.clear()
        await response.aclose()
        return bytes(read)

    def _message(self, request_id: int | str | None, data: bytes) -> JSONRPCMessage | None:
        """Return one event's message; ``None`` if no code uses it.

        Without a request it is a notification or a question.
        """
        if request_id is None and len(data) > UNASKED_CAP and not may_be_answer(data):
            return None
        try:
            return _unasked(parse(data, longest=self._cap, most=most_values(data)), len(data))
        except NotJsonRpc as fault:
            if request_id is None:
                return None
            return failure(request_id, f"the server's response is not JSON-RPC ({fault}): {quoted(data)}")

    async def _events(self, request_id: int | str | None, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield the server-sent events of a response, each message in a readable form."""
        async for event in httpx2.EventSource(response, max_event_size=DEFAULT_LINE_CAP):
            data = event.data.encode("utf-8", "replace")
            message = self._message(request_id, data) if event.event == "message" and data else None
            is_answer = isinstance(message, JSONRPCResponse | JSONRPCError)
            self._share.spend(len(data) * PARSING + (0 if is_answer else EVENT))
            if self._share.is_overdrawn:
                self._talks()
            if self._share.rest:
                await asyncio.sleep(self._share.rest)
            lines = [f"id: {event.id}"] if event.id else []
            if event.retry is not None:
                lines.append(f"retry: {event.retry}")
            lines.append("data:" if message is None else f"data: {_json_of(message).decode()}")
            yield ("\n".join(lines) + "\n\n").encode()


def _unasked(message: JSONRPCMessage | None, size: int) -> JSONRPCMessage | None:
    """Return the message, unless it is no answer and too large for a message that was not requested."""
    is_answer = isinstance(message, JSONRPCResponse | JSONRPCError)
    return message if is_answer or size <= UNASKED_CAP else None


def _json_of(answer: JSONRPCMessage) -> bytes:
    return answer.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _like(
    response: httpx2.Response, *, status: int | None = None, headers: dict[str, str] | None = None, **body: Any
) -> httpx2.Response:
    """Return a response with another body, uncompressed and of unknown length."""
    kept = {SESSION_ID: response.headers[SESSION_ID]} if SESSION_ID in response.headers else {}
    kept["content-type"] = response.headers.get("content-type", "")
    return httpx2.Response(
        response.status_code if status is None else status,
        headers=kept | (headers or {}),
        request=response.request,
        **body,
    )


def _request_id(request: httpx2.Request) -> int | str | None:
    """Return the id of the request in the body; ``None`` for a notification or a response."""
    message = from_json(request.content)
    request_id: int | str | None = message.get("id") if "method" in message else None
    return request_id


def _refusal(request_id: int | str, status: int, data: bytes) -> Answer:
    """The error for a status of 400 and more: the server's own JSON-RPC error if there is one, with the status."""
    try:
        answer = parse(data)
    except NotJsonRpc:
        answer = None
    if isinstance(answer, JSONRPCError):
        error = answer.error
        return failure(request_id, error.message, code=error.code, data=error.data)
    words = f": {quoted(data)}" if data.strip() else ""
    code = METHOD_NOT_FOUND if status == httpx2.codes.NOT_FOUND else INTERNAL_ERROR
    return failure(
        request_id, f"the server answered HTTP {status_line(status)}{words}", code=code, data={"status": status}
    )


def _forgets(request: httpx2.Request, response: httpx2.Response, data: bytes) -> str | None:
    """Return the server's text if it no longer knows the session; ``None`` if it does, or without a session."""
    if SESSION_ID not in request.headers or response.status_code not in {400, 404, 410}:
        return None
    try:
        answer = parse(data)
    except NotJsonRpc:
        answer = None
    error = answer.error if isinstance(answer, JSONRPCError) else None
    words = error.message if error is not None else data[:1000].decode("utf-8", "replace")
    forgets = error is None or error.code not in {METHOD_NOT_FOUND, INVALID_PARAMS}  # which are said so, too
    if response.status_code == httpx2.codes.BAD_REQUEST:
        forgets = forgets and _UNKNOWN_SESSION.search(words) is not None
    return f"HTTP {status_line(response.status_code)}: {quoted(words)}" if forgets else None
