"""What comes to a requester's reply address before the reply: same ``correlation_id``, a ``type`` of its own."""

from typing import Any, ClassVar

from pydantic import Field

from schemas.base import Strict
from schemas.ids import SessionId


class ToolsProgress(Strict):
    """MCP progress of a ``tools.call`` that asked for it."""

    type: ClassVar[str] = "tools.progress"
    session_id: SessionId
    progress: float
    total: float | None = None
    message: str | None = None


class ToolsPending(Strict):
    """A ``tools.call`` takes longer than its ``pending_after``; sent once. ``elapsed`` is seconds."""

    type: ClassVar[str] = "tools.pending"
    session_id: SessionId
    name: str
    elapsed: float


class InputRequired(Strict):
    """The server asks its caller something while it works on a ``tools.call`` (MCP elicitation).

    ``params`` are those of ``elicitation/create`` (``message``, ``requestedSchema`` or ``url``); answer with
    ``input.answer`` within ``timeout`` seconds, or the server is told that the question was cancelled.
    """

    type: ClassVar[str] = "input.required"
    session_id: SessionId
    input_id: str
    params: dict[str, Any]
    timeout: float = Field(gt=0)


Interim = ToolsProgress | ToolsPending | InputRequired

INTERIM: dict[str, type[Interim]] = {model.type: model for model in (ToolsProgress, ToolsPending, InputRequired)}
"""Every interim message by its message type."""


def dump(message: Interim) -> bytes:
    """The message as a body."""
    return message.model_dump_json(exclude_none=True).encode()
