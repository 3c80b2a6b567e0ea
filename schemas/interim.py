"""The messages that a requester gets before the reply, with the same ``correlation_id`` and their own ``type``."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from schemas.base import Strict
from schemas.ids import SessionId


class ToolsProgress(Strict):
    """The MCP progress of a ``tools.call`` that asked for it."""

    type: ClassVar[str] = "tools.progress"
    session_id: SessionId
    progress: float
    total: float | None = None
    message: str | None = None


class ToolsPending(Strict):
    """A ``tools.call`` takes longer than its ``pending_after``. It is sent once. ``elapsed`` is in seconds."""

    type: ClassVar[str] = "tools.pending"
    session_id: SessionId
    name: str
    elapsed: float


class ToolsLog(Strict):
    """A log message of the server, MCP ``notifications/message``, for a ``tools.call`` that asked for ``logs``.

    A server does not say which call a log message belongs to, so every running call that asked for logs gets it.
    """

    type: ClassVar[str] = "tools.log"
    session_id: SessionId
    level: str
    logger: str | None = None
    data: Any = None


class ToolsChanged(Strict):
    """The server says that one of its lists or a resource has changed, for a ``tools.call`` that asked for ``changes``.

    It comes while the call runs, and so before its reply. The events report the same change. Either ``list`` or ``uri``
    is set.
    """

    type: ClassVar[str] = "tools.changed"
    session_id: SessionId
    list: Literal["tools", "resources", "prompts"] | None = None
    uri: str | None = None


class InputRequired(Strict):
    """The server asks the requester a question during a ``tools.call`` (MCP elicitation, sampling, roots).

    ``params`` are the parameters of ``method``. For ``elicitation/create`` these are ``message`` and
    ``requestedSchema`` or ``url``. Other methods (``sampling/createMessage``, ``roots/list``) are used only if the
    requester offers them in ``client_capabilities``. Answer with ``input.answer`` within ``timeout`` seconds. Otherwise
    the server is told that the question was cancelled.
    """

    type: ClassVar[str] = "input.required"
    session_id: SessionId
    input_id: str
    method: str = "elicitation/create"
    params: dict[str, Any]
    timeout: float = Field(gt=0)


Interim = ToolsProgress | ToolsPending | ToolsLog | ToolsChanged | InputRequired

INTERIM: dict[str, type[Interim]] = {
    model.type: model for model in (ToolsProgress, ToolsPending, ToolsLog, ToolsChanged, InputRequired)
}
"""Every interim message by its message type."""


def dump(message: Interim) -> bytes:
    """The message as a body. Default values are left out, because older clients do not know every field."""
    return message.model_dump_json(exclude_defaults=True).encode()
