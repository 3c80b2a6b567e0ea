"""The ids on the wire, and how one is derived from another.

A *call* is one call leg under the id its telephony platform gave it. A *session* is one MCP server process of a
call. ``session_id`` is the ``call_id`` for a call's first service and ``<call_id>#<service_name>`` for each further
one, so everything after the first ``#`` of a session id is ours and everything before it is the platform's.
"""

import hashlib
from typing import Annotated, NewType

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from schemas.text import REPLACED, REPLACEMENT

CallId = NewType("CallId", str)
SessionId = NewType("SessionId", str)
ServiceName = NewType("ServiceName", str)
WorkerId = NewType("WorkerId", str)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""The pattern of a prefix and of a worker's id, which are parts of queue names."""

SEPARATOR = "#"
MAX_ID_BYTES = 255
"""The longest id in bytes of UTF-8. Kazoo allows 255, FreeSWITCH cuts at 256, and no other platform sends more."""

MAX_ROUTING_KEY_BYTES = 200
"""The longest routing key. AMQP 0-9-1 allows 255 bytes; the rest is left for prefixes of policies."""


def _readable(value: str, info: ValidationInfo) -> str:
    if REPLACEMENT in value and (info.context or {}).get(REPLACED):
        raise ValueError("is not valid Unicode")
    return value


def _bounded(value: str) -> str:
    size = len(value.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= MAX_ID_BYTES:
        raise ValueError(f"must be 1 to {MAX_ID_BYTES} bytes long, is {size}")
    return value


def _of_a_call(value: str) -> str:
    if value.startswith(SEPARATOR):
        raise ValueError(f"must begin with the id of a call, before the {SEPARATOR!r}")
    return value


def _escaped(value: object) -> object:
    return value.replace(SEPARATOR, "%23") if isinstance(value, str) else value


_LENGTH = Field(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_BYTES})
"""The length limit in JSON Schema, which counts characters and not bytes."""

Readable = AfterValidator(_readable)
"""Refuses a text with replaced characters, because two different ids could become the same."""

CallIdField = Annotated[CallId, BeforeValidator(_escaped), Readable, AfterValidator(_bounded), _LENGTH]
"""A call id as it is read from a message: a ``#`` of the platform becomes ``%23``, 1 to 255 bytes."""

_OF_A_CALL = Field(json_schema_extra={"minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": f"^[^{SEPARATOR}]"})

SessionIdField = Annotated[SessionId, Readable, AfterValidator(_bounded), AfterValidator(_of_a_call), _OF_A_CALL]
"""A session id as it is read from a message: opaque, 1 to 255 bytes, with a call id before its first ``#``."""

ServiceNameField = Annotated[ServiceName, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""The name of a configured service: one word, as a part of the routing key ``session.<what>.<service_name>``."""


def escape_call_id(platform_id: str) -> CallId:
    """The ``call_id`` for an id as the platform spells it."""
    return CallId(platform_id.replace(SEPARATOR, "%23"))


def call_id_of(session_id: str) -> CallId:
    """The call that a session belongs to: what stands before the first ``#``."""
    return CallId(session_id.partition(SEPARATOR)[0])


def session_id_of(call_id: CallId, service_name: ServiceName, *, first: bool) -> SessionId:
    """Return the id of a call's session on ``service_name``. ``first`` is true for the call's first service."""
    return SessionId(call_id if first else f"{call_id}{SEPARATOR}{service_name}")


def routing_key(call_id: CallId) -> str:
    """Return the AMQP routing key of a call: its id, or ``sha256:<hex>`` if the id has more than 200 bytes."""
    raw = call_id.encode("utf-8", "surrogatepass")
    return call_id if len(raw) <= MAX_ROUTING_KEY_BYTES else f"sha256:{hashlib.sha256(raw).hexdigest()}"
