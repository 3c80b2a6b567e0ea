"""Sends typed requests through a requester, and returns the results as models."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, TypedDict, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from consumer.client.arguments import check_seconds, check_text, encoded, kind_of, naming_arguments
from consumer.client.requester import OnInterim, Outgoing, Requester
from schemas.base import Json
from schemas.errors import InvalidArgument, InvalidReply, NoReply
from schemas.ids import CallId, call_id_of
from schemas.requests import (
    CallRequest,
    ClusterRequest,
    ServicesList,
    SessionsList,
    WorkersFigures,
    WorkersList,
)

REPLY_TIMEOUT = 30.0
"""How long (s) to wait for a reply, unless the caller says otherwise."""

REPEATED = frozenset({ServicesList, SessionsList, WorkersFigures, WorkersList})
"""Requests to the cluster that may be repeated: they change nothing, and are answered within a second or two."""

REPEAT_AFTER = 5.0
"""After how long (s) without a reply such a request is sent again."""

Result = TypeVar("Result", bound=BaseModel)


class Page(Protocol):
    """Part of a list. ``next_cursor`` leads to the next part; ``None`` means that this is the last one."""

    @property
    def next_cursor(self) -> str | None: ...  # noqa: D102 - said above


AnyPage = TypeVar("AnyPage", bound=Page)


async def pages(fetch: Callable[[str | None], Awaitable[AnyPage]]) -> AsyncIterator[AnyPage]:
    """Iterate over a list page after page. ``fetch`` returns the page at a cursor, the first one at ``None``."""
    cursor = None
    while True:
        page = await fetch(cursor)
        yield page
        if (cursor := page.next_cursor) is None:
            return


Open = Literal["beside", "alone", "never"]


class OpeningOptions(TypedDict, total=False):
    """Selects a session: the call's session on a service, and whether it is opened if there is none."""

    service_name: str | None
    open: Open | None


class QuestionOptions(OpeningOptions, total=False):
    """How questions of the server are returned, and the answers to them, as ``call_tool`` explains."""

    return_questions: bool
    input_responses: Json | None
    request_state: str | None
    client_capabilities: Json | None


@naming_arguments
class TypedRequests:
    """Sends typed requests through a ``Requester``. Code above it does not depend on a broker."""

    _encode = staticmethod(encoded)

    def __init__(self, requester: Requester) -> None:
        self._requester = requester

    async def request(
        self,
        message_type: str,
        body: Json,
        *,
        call_id: str | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
        on_interim: OnInterim | None = None,
    ) -> Json:
        """Send any request, and return its result as it is on the wire.

        Args:
            message_type: as the wire reference names it, for example ``tools.call``.
            body: the fields of the message; those that are None are left out. The worker checks the others.
            call_id: the call that it is addressed to; without one any worker answers.
            reply_timeout: how long (s) to wait for the reply.
            on_interim: is awaited for each message before the reply.

        Raises:
            SessionsError: the worker's error, as the class of its code, or a ``ClientError``.
        """
        check_text("message_type", message_type)
        if not isinstance(body, Mapping):
            raise InvalidArgument(f"body: must be a dict, is {kind_of(body)}")
        check_seconds("reply_timeout", reply_timeout)
        if call_id is not None:
            check_text("call_id", call_id)
            call_id = CallId(call_id)
        asked = Outgoing(message_type, self._encode(body), call_id, reply_timeout)
        return (await self._requester.ask(asked, on_interim)).unwrap()

    async def _ask(
        self,
        asked: type[CallRequest | ClusterRequest],
        body: Json,
        call_id: CallId | None,
        reply_timeout: float,
        on_interim: OnInterim | None = None,
    ) -> Json:
        outgoing = Outgoing(asked.type, self._encode(body, asked), call_id, reply_timeout)
        return (await self._requester.ask(outgoing, on_interim)).unwrap()

    async def _session(
        self,
        asked: type[CallRequest],
        result: type[Result],
        session_id: str,
        reply_timeout: float,
        on_interim: OnInterim | None = None,
        **more: Any,
    ) -> Result:
        check_text("session_id", session_id)
        check_seconds("reply_timeout", reply_timeout)
        body = {"session_id": session_id, **more}
        found = await self._ask(asked, body, call_id_of(session_id), reply_timeout, on_interim)
        return _read(result, asked.type, found)

    async def _cluster(
        self, asked: type[ClusterRequest], result: type[Result], reply_timeout: float, **more: Any
    ) -> Result:
        check_seconds("reply_timeout", reply_timeout)
        answer = self._ask_repeatedly if asked in REPEATED else self._ask
        return _read(result, asked.type, await answer(asked, more, None, reply_timeout))

    async def _ask_repeatedly(
        self, asked: type[CallRequest | ClusterRequest], body: Json, call_id: CallId | None, reply_timeout: float
    ) -> Json:
        """Ask again if there is no reply: RabbitMQ may have given the request to a worker that hangs.

        RabbitMQ gives the next one to another worker.
        """
        loop = asyncio.get_running_loop()
        left, until = reply_timeout, loop.time() + reply_timeout
        while True:
            began = loop.time()
            try:
                return await self._ask(asked, body, call_id, min(left, REPEAT_AFTER))
            except NoReply:
                if loop.time() - began < REPEAT_AFTER:  # nobody is there, or the time is up
                    raise
                if (left := until - loop.time()) <= 0:
                    raise NoReply(f"no reply to {asked.type} within {reply_timeout:g} s") from None


def on_the_wire(options: QuestionOptions) -> Json:
    """Return the fields of a request that these options set."""
    fields: Json = dict(options)
    returned = fields.pop("return_questions", False)
    return fields | {"questions": "return" if returned else None}


def as_given(values: Json, _model: type[BaseModel] | None = None, /) -> bytes:
    """Encode the values that are not None unchanged, for clients that forward foreign requests.

    The worker checks them.
    """
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return to_json(given, inf_nan_mode="constants")
    except ValueError:  # half a surrogate pair, which a worker replaces or refuses
        return json.dumps(given, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _read(model: type[Result], message_type: str, result: Json) -> Result:
    """Return the result as a model. Unknown fields of a worker are dropped, and those of MCP are kept."""
    extra: Literal["ignore"] | None = None if model.model_config.get("extra") == "allow" else "ignore"
    try:
        return model.model_validate(result, strict=False, extra=extra)
    except ValidationError as error:
        raise InvalidReply(f"{message_type}: the result does not fit the request: {error}") from error
