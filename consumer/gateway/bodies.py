"""What the gateway takes and answers over HTTP, as models. Endpoints answer with them; OpenAPI is made of them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.base import Json, Time
from schemas.ids import MAX_ID_BYTES

SessionIdText = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]


class _HttpBody(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Health(_HttpBody):
    """The gateway lives."""

    status: Literal["healthy"] = "healthy"
    timestamp: str
    """ISO 8601, UTC."""
    version: str


class ListedService(_HttpBody):
    """An enabled service."""

    command: list[str]
    """What starts its server, without secrets; empty for a service with a URL."""
    description: str
    enabled: Literal[True] = True


class ListedTools(_HttpBody):
    """The tools of a service."""

    service: str
    tools: list[Json]
    """As the MCP server lists them: `name`, `description`, `inputSchema`."""


class ToolCallRequest(_HttpBody):
    """A tool call. Unknown fields are ignored."""

    tool: Annotated[str, Field(min_length=1)]
    session_id: SessionIdText
    """The call's id, or a session's. The first tool call opens the session if the id has up to 128 letters, digits,
    `_`, `.` and `-`. With any other id the session must be open already."""
    arguments: Json = {}
    timeout: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Idle timeout (s) of the session; counts when this call opens it."""
    metadata: Json = {}
    """Kept with the session; counts when this call opens it."""


class Called(_HttpBody):
    """What a tool answered."""

    session_id: str
    service: str
    tool: str
    result: Any
    """The text of the first content block if that is a text, else the whole result of MCP."""
    warnings: list[str] = []
    """What was ignored in the request: fields that are unknown. Left out if nothing was."""


class ListedSession(_HttpBody):
    """An open session."""

    service_name: str
    created_at: Time
    last_accessed: Time
    timeout: float
    """Idle timeout (s)."""
    metadata: Json
    time_remaining: float
    """Seconds until it expires, if nobody uses it."""


class ClosedSession(_HttpBody):
    """A session that was closed."""

    message: str


class Minted(_HttpBody):
    """A token of one call."""

    token: str
    call_id: str
    services: list[str]
    """Which services it reaches; empty: all of the call."""
    scopes: list[str]
    expires_at: float
    """Seconds since the epoch."""


class MintRequest(_HttpBody):
    """What a token shall allow; an empty body takes the defaults."""

    services: list[str] = []
    scopes: list[Literal["mcp", "gateway"]] = ["mcp", "gateway"]
    lifetime: Annotated[float, Field(gt=0, le=604_800)] = 14_400.0
    """Seconds."""


class SwaigRequest(_HttpBody):
    """A SWAIG function, hook or request for signatures, as SignalWire sends it. Unknown fields are ignored."""

    function: str | None = None
    """`<service>_<tool>`, `mcp_<service>_<tool>`, or the tool's name where only one service has it."""
    call_id: str | None = None
    argument: Json = {}
    """The model's arguments, in `parsed` or `raw`."""
    action: Literal["get_signature"] | str | None = None
    """`get_signature` asks what functions there are."""


class SwaigAnswer(_HttpBody):
    """What the agent says."""

    response: str


class Ready(_HttpBody):
    """Whether requests can be answered here."""

    ready: bool
    link: bool
    """Whether there is a connection to RabbitMQ."""
    workers: int
    """How many workers are ready."""
    draining: bool
