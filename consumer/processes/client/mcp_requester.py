"""Sends requests to a started server, and turns failures into our errors."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import INTERNAL_ERROR, REQUEST_TIMEOUT

from consumer.observability import tracing
from consumer.processes.client.connection import Connection
from consumer.processes.client.era import Era
from consumer.processes.client.http_answers import FORGOTTEN, UNANSWERED
from consumer.processes.client.protocol_versions import Envelope, answer_lost, connection_lost
from consumer.processes.client.questions import Questions, answers
from consumer.processes.foreign_text import without_secrets
from consumer.processes.jsonrpc import TOO_LARGE, quoted
from consumer.processes.stdio.stdio_streams import InputBlocked, NotSerializable
from consumer.sessions.dialogue import SILENT, Dialogue, OnProgress
from consumer.sessions.session import ProcessExit
from schemas.errors import InvalidMessage, McpError, OutcomeUnknown, SessionDied, SessionsError, ToolTimeout
from schemas.text import in_seconds

MAX_ROUNDS = 10
"""The most questions in a row that a modern server may ask before it has to answer."""

_IDLE_ROUND = 0.05
"""The first pause (s) before a call is sent again to a server that only asked for time. It doubles up to 0.25 s."""


class McpRequester:
    """Sends requests over one session's dispatcher, from any task, any number at once.

    ``await_exit`` waits a moment for the server's end and returns how it ended. ``connection`` is the one below the
    dispatcher.
    """

    def __init__(
        self,
        dispatcher: JSONRPCDispatcher[Any],
        envelope: Envelope,
        questions: Questions,
        connection: Connection,
        await_exit: Callable[[], Awaitable[ProcessExit | None]],
    ) -> None:
        self._dispatcher = dispatcher
        self._questions = questions
        self._connection = connection
        self._await_exit = await_exit
        self.envelope = envelope

    async def send(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float | None,
        dialogue: Dialogue = SILENT,
    ) -> dict[str, Any]:
        """Send one request and return the server's result unchanged. ``timeout`` covers all its rounds.

        If it times out or its task is cancelled, the server is notified (``notifications/cancelled``, or over HTTP from
        2026-07-28 on the end of the request's own stream).
        """
        try:
            async with self._questions.offered(dialogue):
                if self.envelope.era is Era.HANDSHAKE:
                    return await self._round(method, params, timeout, dialogue)
                given = {"inputResponses": dialogue.input_responses, "requestState": dialogue.request_state}
                params = {**params, **{name: value for name, value in given.items() if value is not None}}
                if dialogue.returned:
                    return await self._round(method, params, timeout, dialogue)
                return await self._rounds(method, params, timeout, dialogue)
        except MCPError as fault:
            raise without_secrets(await self._translated(fault, method, params, timeout)) from fault
        except NotSerializable as fault:
            raise InvalidMessage(f"the parameters of {method} cannot be written as JSON: {fault}") from fault
        except (InputBlocked, TimeoutError) as fault:
            raise _timed_out(_named(method, params), timeout, "the server does not read its input") from fault

    async def _round(
        self, method: str, params: Mapping[str, Any], timeout: float | None, dialogue: Dialogue
    ) -> dict[str, Any]:
        opts: CallOptions = {}
        if timeout is not None:
            opts["timeout"] = timeout
        if dialogue.on_progress is not None:
            opts["on_progress"] = _told(dialogue.on_progress)
        sealed = self.envelope.seal(method, params, opts, dialogue.capabilities)
        short_way = self._connection.short_way
        if short_way is not None and timeout is not None and not dialogue.is_heard and not tracing.traced():
            return await short_way.ask(method, sealed, timeout)
        return await self._dispatcher.send_raw_request(method, sealed, opts)

    async def _rounds(
        self, method: str, params: Mapping[str, Any], timeout: float | None, dialogue: Dialogue
    ) -> dict[str, Any]:
        """Send a multi round-trip request (revision 2026-07-28) again with the answers until there is a result."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _IDLE_ROUND
        result = await self._round(method, params, timeout, dialogue)
        for _ in range(MAX_ROUNDS):
            if result.get("resultType") != "input_required":
                return result
            try:
                async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                    asked = result.get("inputRequests") or {}
                    if not isinstance(asked, dict):
                        raise McpError(
                            f"the server's questions are not an object: {quoted(asked)}", code=INTERNAL_ERROR, data=None
                        )
                    given = await answers(asked, dialogue)
                    if not asked:
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, 0.25)
            except TimeoutError as fault:
                raise _timed_out(_named(method, params), timeout, "its question was not answered") from fault
            again = {name: value for name, value in params.items() if name not in ("inputResponses", "requestState")}
            if given:
                again["inputResponses"] = given
            if "requestState" in result:
                again["requestState"] = result["requestState"]
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            result = await self._round(method, again, left, dialogue)
        if result.get("resultType") != "input_required":
            return result
        raise McpError(
            f"{_named(method, params)}: the server asked for input {MAX_ROUNDS} times, which is the limit",
            code=-32600,
            data=None,
        )

    async def _translated(
        self, fault: MCPError, method: str, params: Mapping[str, Any], timeout: float | None
    ) -> SessionsError:
        named = _named(method, params)
        if fault.code == REQUEST_TIMEOUT and fault.message == f"Request {method!r} timed out":
            return _timed_out(named, timeout, "it was cancelled at the server")
        if self._connection.forgotten and fault.message == FORGOTTEN:
            words = self._connection.last_words
            return SessionDied(f"{named}: {words}", exit_code=None, signal=None, stderr=words)
        ending = await self._await_exit() if connection_lost(fault) else None
        if ending is not None:
            return OutcomeUnknown(
                f"{named}: the server ended before it answered; it is unknown whether the call was executed",
                **ending.details,
            )
        if fault.message == UNANSWERED or answer_lost(fault):
            return OutcomeUnknown(
                f"{named}: {fault.message}; it is unknown whether the call was executed",
                exit_code=None,
                signal=None,
                stderr="",
            )
        if fault.message.startswith(TOO_LARGE) and isinstance(fault.data, dict):
            return McpError(f"{named}: {fault.message}", **fault.data)
        said = fault.message  # ours, as ``http_answers`` words it, tells who said what
        told = said if said.startswith("the server") else f"the MCP server answered {named}: {said}"
        return McpError(told, code=fault.code, message=said, data=fault.data)


def _told(on_progress: OnProgress) -> ProgressFnT:
    async def told(progress: float, total: float | None, message: str | None) -> None:
        await on_progress(progress, total, message)

    return told


def _named(method: str, params: Mapping[str, Any]) -> str:
    name = params.get("name") or params.get("uri")
    return f"{method} {name}" if isinstance(name, str) else method


def _timed_out(named: str, timeout: float | None, why: str) -> ToolTimeout:
    return ToolTimeout(f"{named} did not finish within {in_seconds(timeout or 0)}; {why}", timeout=timeout)
