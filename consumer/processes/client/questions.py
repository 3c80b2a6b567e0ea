"""Questions that a server asks back while it works on a call (elicitation), in both eras.

Up to 2025-11-25 a question is a request of the server, ``elicitation/create``, that names no call; from 2026-07-28 on
it is the result of the call itself, ``resultType: input_required``, and the call is sent again with the answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from mcp.client.session import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, ErrorData
from pydantic import ValidationError

from consumer.processes.jsonrpc import quoted
from schemas.errors import McpError

OnQuestion = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Given the parameters of ``elicitation/create``, returns its result: ``{"action": ..., "content"?: {...}}``."""

MAX_OPEN = 8
"""Questions that may be open to one caller at once; more are declined."""

DECLINED: dict[str, Any] = {"action": "decline"}
CANCELLED: dict[str, Any] = {"action": "cancel"}

log = structlog.get_logger(__name__)


class _Offer:
    """A call in flight whose caller can be asked, and the questions that are open to it."""

    def __init__(self, on_question: OnQuestion) -> None:
        self.on_question = on_question
        self.open: set[asyncio.Task[dict[str, Any]]] = set()


class Questions:
    """Who answers the questions of one server: the callers of the calls in flight that offered to."""

    def __init__(self) -> None:
        self._offers: list[_Offer] = []

    @contextmanager
    def offered(self, on_question: OnQuestion | None) -> Iterator[None]:
        """While a call runs, its caller can be asked; a question that is still open when it ends is given up."""
        if on_question is None:
            yield
            return
        offer = _Offer(on_question)
        self._offers.append(offer)
        try:
            yield
        finally:
            self._offers.remove(offer)
            for task in offer.open:
                task.cancel()

    async def asked(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        """The SDK's elicitation callback.

        Such a question does not say which call it belongs to: it goes to the caller who offered last.
        """
        if not self._offers:
            return ElicitResult(action="decline")
        offer = self._offers[-1]
        if len(offer.open) >= MAX_OPEN:
            return ElicitResult(action="decline")
        question = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        task = asyncio.create_task(_ask(offer.on_question, question), name=f"question-{context.request_id}")
        offer.open.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            offer.open.discard(task)
        return ElicitResult.model_validate(CANCELLED if task.cancelled() else task.result())


async def answers(requests: Mapping[str, Any], on_question: OnQuestion | None) -> dict[str, Any]:
    """The ``inputResponses`` to the ``inputRequests`` of an input-required result.

    Raises :class:`McpError` for anything but a question to the caller: sampling and roots are not offered.
    """
    found = {}
    for key, request in requests.items():
        method = request.get("method") if isinstance(request, Mapping) else None
        if method != "elicitation/create":
            raise McpError(f"the server asked for {method}, which is not offered", code=-32600, data=None)
        params = request.get("params")
        if params and not isinstance(params, Mapping):
            raise McpError(f"the server's question is no object: {quoted(params)}", code=-32600, data=None)
        found[key] = await _ask(on_question, dict(params or {})) if on_question is not None else DECLINED
    return found


async def _ask(on_question: OnQuestion, question: dict[str, Any]) -> dict[str, Any]:
    """The caller's answer in the shape that the protocol wants; ``cancel`` when there is no such answer."""
    try:
        answer = ElicitResult.model_validate(await on_question(question))
    except ValidationError as fault:
        log.warning("question.bad_answer", fault=str(fault))
        return CANCELLED
    except Exception:
        log.exception("question.failed")
        return CANCELLED
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True)
