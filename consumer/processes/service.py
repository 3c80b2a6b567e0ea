"""A configured MCP server: what ``[services.<name>]`` says."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.base import Seconds
from schemas.ids import ServiceName, ServiceNameField


class Warm(BaseModel):
    """Processes that are started ahead: at least ``min``, at most ``max``, each at most ``idle_ttl`` seconds old."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(default=0, ge=0)
    max: int = Field(default=0, ge=0)
    idle_ttl: Seconds = 600.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Sandbox(BaseModel):
    """How a server process is kept apart; sizes are bytes (``"512M"`` is understood), ``cpu_seconds`` a whole life.

    ``enabled``, ``resource_limits``, ``restricted_env``, ``working_dir``, ``allowed_paths`` and ``note`` are the keys
    of SignalWire's gateway.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["limits", "bubblewrap", "none"] = "limits"
    memory: Annotated[int, Field(gt=0)] | None = None
    cpu_seconds: Annotated[int, Field(gt=0)] | None = None
    processes: Annotated[int, Field(gt=0)] | None = None
    file_size: Annotated[int, Field(gt=0)] | None = None
    network: bool = True
    working_dir: str | None = None


class MCPService(BaseModel):
    """One service: a command that speaks MCP on stdio, or the URL of a streamable HTTP server.

    Durations are seconds. ``timeout`` is the idle timeout of its sessions (default: ``session.default_timeout``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ServiceNameField = ServiceName("service")
    command: list[str] | None = None
    url: str | None = None
    description: str = ""
    enabled: bool = True
    env: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    start_timeout: Seconds = 30.0
    call_timeout: Seconds = 30.0
    timeout: Seconds | None = None
    restore: bool = True
    warm: Warm | None = None
    sandbox: Sandbox = Field(default_factory=Sandbox)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.command is not None and not (self.command and all(self.command)):
            raise ValueError("command must name a program")
        return self

    @property
    def transport(self) -> Literal["stdio", "http"]:
        """How the server is reached."""
        return "http" if self.url else "stdio"

    def public(self) -> dict[str, Any]:
        """What may be told about the service: neither environment nor headers, which hold secrets."""
        return {"description": self.description, "enabled": self.enabled, "transport": self.transport}
