"""The models of HTTP bodies. Endpoints answer with them, and the OpenAPI document is made from them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.base import Json, Time
from schemas.ids import MAX_ID_BYTES

SessionIdText = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]


class _HttpBody(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Health(_HttpBody):
    """The gateway is running."""

    status: Literal["healthy"] = "healthy"
    timestamp: str
    """ISO 8601, UTC."""
    version: str


class ListedService(_HttpBody):
    """An enabled service."""

    command: list[str]
    """The command of its server, without secrets; empty for a service with a URL."""
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
    """Idle timeout (s) of the session, 3600 at most, as in SignalWire's gateway. It applies if this call opens the
    session."""
    metadata: Json = {}
    """Kept with the session. It applies if this call opens the session."""


class Called(_HttpBody):
    """The answer of a tool."""

    session_id: str
    service: str
    tool: str
    result: Any
    """The text of the first content block if that is a text, otherwise the whole MCP result."""
    warnings: list[str] = []
    """The unknown fields of the request, which were ignored. Left out if there were none."""


class ListedSession(_HttpBody):
    """An open session."""

    service_name: str
    created_at: Time
    last_accessed: Time
    timeout: float
    """Idle timeout (s)."""
    metadata: Json
    time_remaining: float
    """Seconds until the session expires if it is not used."""


class ClosedSession(_HttpBody):
    """A session that was closed."""

    message: str


class Minted(_HttpBody):
    """A token for one call."""

    token: str
    call_id: str
    services: list[str]
    """The services that it allows. Empty: all of the call."""
    scopes: list[str]
    expires_at: float
    """Seconds since the epoch."""


class MintRequest(_HttpBody):
    """The rights of a token. An empty body means the defaults."""

    services: list[str] = []
    scopes: list[Literal["mcp", "gateway"]] = ["mcp", "gateway"]
    lifetime: Annotated[float, Field(gt=0, le=604_800)] = 14_400.0
    """Seconds."""


class SwaigRequest(_HttpBody):
    """A SWAIG function, hook or request for signatures, as SignalWire sends it. Unknown fields are ignored."""

    function: str | None = None
    """`<service>_<tool>`, `mcp_<service>_<tool>`, or the tool's name if only one service has it."""
    call_id: str | None = None
    argument: Json = {}
    """The model's arguments, in `parsed` or `raw`."""
    action: Literal["get_signature"] | str | None = None
    """`get_signature` asks for the list of functions."""


class SwaigAnswer(_HttpBody):
    """The text that the agent says."""

    response: str


class Ready(_HttpBody):
    """Whether requests can be answered here."""

    ready: bool
    link: bool
    """Whether there is a connection to RabbitMQ."""
    workers: int
    """How many workers are ready."""
    draining: bool
