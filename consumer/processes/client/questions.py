"""A server's questions and messages during requests, and the requesters that get them, in both eras.

Up to 2025-11-25 a question is a request of the server (``elicitation/create``, ``sampling/createMessage``,
``roots/list``) that names no call; from 2026-07-28 on it is the result of the call itself,
``resultType: input_required``, and the call is sent again with the answer. Log messages name no call in either.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any

import structlog
from mcp.client.session import ClientRequestContext
from mcp_types import (
    INVALID_REQUEST,
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    ListRootsResult,
    LoggingMessageNotificationParams,
)
from pydantic import BaseModel, ValidationError

from consumer.processes.foreign_text import written_as_json
from consumer.processes.jsonrpc import quoted
from consumer.sessions.dialogue import CAPABILITY_OF, Dialogue
from schemas.base import Json
from schemas.errors import McpError

MAX_OPEN = 8
"""The most open questions to one caller. Further ones are declined."""

MAX_LOG = 64 << 10
"""The most bytes of one log message's data. A longer one is cut."""

MAX_LOGS = 1_000
"""The most log messages for the requester of one request; more are dropped."""

MAX_CHANGES = 1_000
"""The most changes for the requester of one request; more are dropped."""

TELL_TIMEOUT = 5.0
"""How long (s) a result waits until its requester has the messages before it."""

USER_REJECTED = -1
"""The error code of MCP for a question that the user refused."""

DECLINED: Json = {"action": "decline"}
CANCELLED: Json = {"action": "cancel"}

_RESULTS: dict[str, type[BaseModel]] = {
    "elicitation/create": ElicitResult,
    "sampling/createMessage": CreateMessageResultWithTools,
    "roots/list": ListRootsResult,
}

_NOBODY: AbstractAsyncContextManager[None] = nullcontext()

log = structlog.get_logger(__name__)


class _Request:
    """A running request with its requester and the questions that it has not answered."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self.open: set[asyncio.Task[Json | ErrorData]] = set()
        self.logs = 0
        self.changes = 0
        self._telling = 0
        self._all_told = asyncio.Event()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Send the requester interim messages from within this block."""
        self._telling += 1
        self._all_told.clear()
        try:
            yield
        finally:
            self._telling -= 1
            if not self._telling:
                self._all_told.set()

    async def all_told(self) -> None:
        """Wait, up to a limit, until the requester has every message that the server sent before its result."""
        await asyncio.sleep(0)  # what was read before the result is being told from here on
        if self._telling:
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_TIMEOUT):
                    await self._all_told.wait()


class Questions:
    """Passes one server's questions and messages to the requesters of its running requests."""

    def __init__(self) -> None:
        self._requests: list[_Request] = []

    def offered(self, dialogue: Dialogue) -> AbstractAsyncContextManager[None]:
        """Offer the requester to the server while a request runs. A question that is open at its end is dropped.

        The result waits for the server's earlier messages.
        """
        if dialogue.on_question is None and dialogue.on_log is None and dialogue.on_change is None:
            return _NOBODY
        return self._reachable(_Request(dialogue))

    @asynccontextmanager
    async def _reachable(self, request: _Request) -> AsyncIterator[None]:
        self._requests.append(request)
        try:
            yield
            await request.all_told()
        finally:
            self._requests.remove(request)
            for task in request.open:
                task.cancel()

    async def elicit(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        """Handle ``elicitation/create``, as a callback of the SDK. It is declined if no requester can be asked."""
        given = await self._asked(context, "elicitation/create", _written(params))
        if isinstance(given, ErrorData):
            return ElicitResult.model_validate(DECLINED)
        return ElicitResult.model_validate(given)

    async def sample(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResultWithTools | ErrorData:
        """The SDK's callback for ``sampling/createMessage``."""
        given = await self._asked(context, "sampling/createMessage", _written(params))
        return given if isinstance(given, ErrorData) else CreateMessageResultWithTools.model_validate(given)

    async def list_roots(self, context: ClientRequestContext) -> ListRootsResult | ErrorData:
        """The SDK's callback for ``roots/list``."""
        given = await self._asked(context, "roots/list", {})
        return given if isinstance(given, ErrorData) else ListRootsResult.model_validate(given)

    async def _asked(self, context: ClientRequestContext, method: str, params: Json) -> Json | ErrorData:
        """Pass a question to the last requester that offered to answer, because the question names no request."""
        asked = next((one for one in reversed(self._requests) if one.dialogue.offers(method, params)), None)
        if asked is None or len(asked.open) >= MAX_OPEN:
            return ErrorData(code=INVALID_REQUEST, message=f"{method} is not supported")
        task = asyncio.create_task(_answer(asked.dialogue, method, params), name=f"question-{context.request_id}")
        asked.open.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            asked.open.discard(task)
        return _no_answer(method) if task.cancelled() else task.result()

    async def told(self, params: LoggingMessageNotificationParams) -> None:
        """Pass a log message to every request that wants logs: the message does not name its request."""
        data: Any = params.data
        if len(written := written_as_json(data)) > MAX_LOG:
            data = written[:MAX_LOG]
        for request in list(self._requests):
            if request.dialogue.on_log is not None and request.logs < MAX_LOGS:
                request.logs += 1
                with request.telling():
                    await request.dialogue.on_log(params.level, params.logger and params.logger[:255], data)

    async def changed(self, changed_list: str | None, uri: str | None) -> None:
        """Pass a change to every request that wants changes: it does not name its request either."""
        for request in list(self._requests):
            if request.dialogue.on_change is not None and request.changes < MAX_CHANGES:
                request.changes += 1
                with request.telling():
                    await request.dialogue.on_change(changed_list, uri)


async def answers(requests: Mapping[str, Any], dialogue: Dialogue) -> Json:
    """Return the ``inputResponses`` to the ``inputRequests`` of an input-required result.

    Raises :class:`McpError` for a kind of question that is not offered, except an elicitation, which is declined.
    """
    found: Json = {}
    for key, request in requests.items():
        method = request.get("method") if isinstance(request, Mapping) else None
        if method not in CAPABILITY_OF:
            raise McpError(f"the server sent {method}, which is not supported", code=INVALID_REQUEST, data=None)
        params = request.get("params")
        if params and not isinstance(params, Mapping):
            raise McpError(f"the server's question is not an object: {quoted(params)}", code=INVALID_REQUEST, data=None)
        question = dict(params or {})
        if dialogue.offers(method, question):
            given = await _answer(dialogue, method, question)
        elif method == "elicitation/create":
            given = DECLINED
        else:
            raise McpError(f"the server sent {method}, which is not supported", code=INVALID_REQUEST, data=None)
        if isinstance(given, ErrorData):
            raise McpError(f"{method}: {given.message}", code=given.code, data=None)
        found[key] = given
    return found


async def _answer(dialogue: Dialogue, method: str, params: Json) -> Json | ErrorData:
    """Return the requester's answer in the protocol's form; ``cancel`` or an error if there is none."""
    assert dialogue.on_question is not None
    try:
        given = await dialogue.on_question(method, params)
        return _written(_RESULTS[method].model_validate(given))
    except ValidationError as fault:
        log.warning("question.bad_answer", method=method, fault=str(fault)[:1_000])
        return _no_answer(method)
    except Exception:
        log.exception("question.failed", method=method)
        return _no_answer(method)


def _no_answer(method: str) -> Json | ErrorData:
    if method == "elicitation/create":
        return CANCELLED
    return ErrorData(code=USER_REJECTED, message="the requester did not answer")


def _written(model: BaseModel) -> Json:
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)
