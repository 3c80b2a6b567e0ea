"""One request and its answer: reads bodies within limits, writes JSON, and collects fields for the log line."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import structlog
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from consumer.gateway.access import Doorkeeper, Grant, NotAuthenticated
from consumer.gateway.origins import Addressed, RequestOrigins
from consumer.gateway.problems import Refused
from consumer.gateway.statuses import ErrorAnswer
from consumer.observability.masking import mask_text
from schemas.base import Json
from schemas.json_values import MAX_VALUES, has_more_values
from schemas.text import unknown_field

log = structlog.get_logger(__name__)

BODY_TIMEOUT: Final = 10.0
"""How long (s) the body of a request may take to arrive."""

MAX_ITEMS: Final = 1000
"""The most events in one request."""

MAX_SHOWN: Final = 60
"""The most characters of an unknown field's name that an answer repeats."""

MAX_SHOWN_PATH: Final = 200
"""The most characters of a path in the log."""

MOST_WARNINGS: Final = 5

JSON_TYPE: Final = "application/json"

UTF8: Final = ("utf-8", "utf8", "us-ascii", "ascii")
"""The charsets that a body of JSON may name. ASCII is a part of UTF-8."""


@dataclass(slots=True)
class Told:
    """The fields of a request's log line and metrics. The endpoints fill it in."""

    route: str = "other"
    call_id: str | None = None
    service: str | None = None
    tool: str | None = None
    code: str | None = None
    holder: str | None = None
    operator: bool = False
    """Whether the sender's credentials are an operator's: with the scope ``console``."""
    timed: bool = True
    """Whether the request's duration is a measure of work, and not of a stream that stays open."""
    more: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    """Sentences about what was ignored in the request; the answer has them in a header."""


def told(request: Request) -> Told:
    """Return the fields of this request's log line."""
    found: Told = request.scope["told"]
    return found


def overlooks(request: Request, body: Json, model: type[BaseModel]) -> None:
    """Warn of unknown fields in a body, if they have to be ignored."""
    told(request).warnings += _unknown_fields(body, model)


def knows_all(body: Json, model: type[BaseModel]) -> None:
    """Check that a body has no unknown fields.

    Raises:
        Refused: 400, the body has an unknown field.
    """
    if unknown := _unknown_fields(body, model):
        raise Refused(400, "; ".join(unknown))


def _unknown_fields(body: Json, model: type[BaseModel]) -> list[str]:
    known = model.model_fields
    unknown = [name for name in body if name not in known]
    return [f"{name[:MAX_SHOWN]!a} {unknown_field(name[:MAX_SHOWN], known)}" for name in unknown[:MOST_WARNINGS]]


def addressed(request: Request) -> Addressed:
    """Return the addresses of this request: its sender's and its own."""
    scope = request.scope
    origins: RequestOrigins = scope["origins"]
    path, query = scope["path"], scope["query_string"].decode("latin-1")
    peer = scope["client"][0] if scope["client"] else None
    return origins.addressed(peer, scope["scheme"], f"{path}?{query}" if query else path, request.headers)


def only_listens(request: Request) -> None:
    """Stop counting this request as in flight. Its stream stays open."""
    release: Callable[[], None] = request.scope["release"]
    release()
    told(request).timed = False


def header(request: Request, name: str) -> str | None:
    """Return a header of this request, by its name in lower case. This is faster than Starlette's own way."""
    found: Mapping[str, str] = request.scope["first_headers"]
    return found.get(name)


def granted(request: Request) -> Grant:
    """Return the rights of this request's sender, by its ``Authorization`` header.

    Raises:
        NotAuthenticated: there are no credentials, or they are not valid. The log has the reason.
    """
    doorkeeper: Doorkeeper = request.scope["doorkeeper"]
    try:
        grant = doorkeeper.grant(header(request, "authorization"))
    except NotAuthenticated as error:
        unsaid = doorkeeper.refusals.due(error.reason)
        if unsaid is not None:
            log.warning(
                "http.not_authenticated",
                reason=error.reason,
                address=addressed(request).address,
                method=request.method,
                path=mask_text(request.scope["path"], MAX_SHOWN_PATH),
                unsaid=unsaid,
            )
        raise
    about = told(request)
    about.holder, about.operator = grant.holder, "console" in grant.scopes
    return grant


def path_parameter(request: Request, name: str) -> str:
    """Return a decoded part of the path. Ids may contain ``/``, ``#``, ``:`` and ``@``.

    Raises:
        Refused: 400, it is not valid UTF-8.
    """
    try:
        return unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError:
        raise Refused(400, f"the {name.replace('_', ' ')} in the path is not UTF-8") from None


async def body_of(request: Request, limit: int) -> bytes:
    """Read the body: at most ``limit`` bytes, not too many values, and in time.

    Raises:
        Refused: 408, 413, or 415 if it is compressed.
    """
    if header(request, "content-encoding") not in (None, "", "identity"):
        raise Refused(415, "the body must not be compressed: send it without Content-Encoding")
    length = header(request, "content-length") or ""
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_TIMEOUT:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "the connection was closed before the body was complete") from None
    body = b"".join(chunks)
    if has_more_values(body):
        raise Refused(413, f"the body has more than {MAX_VALUES} JSON values")
    return body


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the body has more than {limit} bytes (gateway.max_body)")


def check_json(request: Request) -> None:
    """Check that a request says that its body is JSON: ``application/json`` or ``+json``, in UTF-8.

    Raises:
        Refused: 415, it does not.
    """
    media_type, *parameters = _content_type(request)
    kind = media_type.strip().lower()
    if kind != JSON_TYPE and not kind.endswith("+json"):
        raise Refused(415, "the body must be JSON: send it with content-type: application/json")
    _check_utf8(parameters)


def check_charset(request: Request) -> None:
    """Check that a request does not say that its body is in another encoding than UTF-8, which all JSON is in.

    Raises:
        Refused: 415, it says so.
    """
    _, *parameters = _content_type(request)
    _check_utf8(parameters)


def _content_type(request: Request) -> list[str]:
    """Return the media type of a request's body, which may be empty, and its parameters."""
    return (header(request, "content-type") or "").split(";")


def _check_utf8(parameters: Iterable[str]) -> None:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        charset = value.strip().strip('"').lower()
        if name.strip().lower() == "charset" and charset not in UTF8:
            raise Refused(415, f"the body must be in UTF-8, and its content-type says charset={charset[:MAX_SHOWN]!a}")


async def json_object(request: Request, limit: int, *, optional: bool = False) -> Json:
    """Read the body as a JSON object. With ``optional``, an empty body is an empty object.

    Raises:
        Refused: 400, 408, 413 or 415.
    """
    body = await body_of(request, limit)
    if optional and not body:
        return {}
    check_json(request)
    return read_object(body)


def read_object(body: bytes) -> Json:
    """Parse a JSON object.

    Raises:
        Refused: 400, the body is not a JSON object.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"Invalid JSON: {str(error).splitlines()[0][:200]}") from None
    if not isinstance(value, dict):
        raise Refused(400, "Invalid JSON: the body must be an object: {...}")
    return value


def read_items(body: bytes) -> list[bytes]:
    """Return the events in a body: the items of a JSON array, or else the body itself.

    Raises:
        Refused: 400, the array is empty, longer than ``MAX_ITEMS`` or has something other than objects.
    """
    if not body.lstrip().startswith(b"["):
        return [body]
    try:
        items = from_json(body, allow_inf_nan=False)
    except ValueError:
        return [body]  # a worker says what is wrong with it
    if not 0 < len(items) <= MAX_ITEMS or not all(isinstance(item, dict) for item in items):
        raise Refused(400, f"an array must have 1 to {MAX_ITEMS} events, each an object")
    return [to_json(item) for item in items]


def written(value: Any) -> bytes:
    """Write a value as JSON. NaN and infinity become null, and invalid Unicode is escaped."""
    try:
        return to_json(value, inf_nan_mode="null", by_alias=True)
    except PydanticSerializationError:
        return json.dumps(value, default=str).encode()


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response in JSON."""
    return Response(written(value), status, headers, JSON_TYPE)


def error_answer(status: int, error: ErrorAnswer, headers: dict[str, str] | None = None) -> Response:
    """Return an error response."""
    return answer(error.model_dump(exclude_none=True), status, headers)
