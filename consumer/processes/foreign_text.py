"""Prepares errors of servers and libraries for callers: without secrets, and limited in size."""

import json

from pydantic_core import PydanticSerializationError, from_json, to_json

from consumer.observability.known_secrets import without_known
from consumer.observability.masking import MAX_LONG_TEXT, mask_text
from schemas.base import Json
from schemas.errors import SessionsError

MAX_DATA = 256 * 1024
"""The most bytes of a JSON-RPC error's ``data`` that are passed on."""


def without_secrets(error: SessionsError) -> SessionsError:
    """Return the same error with secrets masked in its message and its details.

    In details only known secrets are masked, because a server's ``data`` is for programs, and may contain URLs for the
    caller to open.
    """
    error.message = mask_text(error.message, MAX_LONG_TEXT)
    error.args = (error.message,)
    error.details = _details(error.details)
    if isinstance(said := error.details.get("message"), str):
        error.details["message"] = mask_text(said, MAX_LONG_TEXT)
    return error


def told_error(result: Json) -> Json:
    """Return a tool's ``isError`` result without known secrets. The server has written its text."""
    return _searched(result, written_as_json(result))


def _details(details: Json) -> Json:
    written = written_as_json(details)
    if len(written) > MAX_DATA:
        return {**{name: value for name, value in details.items() if name != "data"}, "data_size": len(written)}
    return _searched(details, written)


def _searched(value: Json, written: str) -> Json:
    told = without_known(written)
    if told == written:
        return value
    found: Json = from_json(told)
    return found


def written_as_json(value: Json) -> str:
    """Return the value as JSON, whatever characters it contains."""
    try:
        return to_json(value, inf_nan_mode="constants", fallback=str).decode()
    except PydanticSerializationError:  # half a surrogate pair, as JavaScript writes it
        return json.dumps(value, default=str)
