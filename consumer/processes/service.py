"""A configured MCP server: what ``[services.<name>]`` says."""

import re
import shutil
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from consumer.processes.launch.environment import search_path
from schemas.base import Seconds
from schemas.ids import ServiceName, ServiceNameField

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_FUNCTION = r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$"
_FLAG = TypeAdapter(bool)


def parse_size(value: object) -> object:
    """Bytes of ``"512M"``, ``"1.5G"``, ``"64KiB"``; anything that is no text is left to the field's own check."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError('give a number of bytes or a size such as "512M" or "2G"')
    return int(float(found[1]) * _UNITS[found[2].upper()])


Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""Bytes, also written ``"512M"``; units are powers of 1024."""


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
    of SignalWire's gateway, read as it means them: ``enabled = false`` and ``resource_limits = false`` are the kind
    ``none``. One thing differs: the environment is always the minimal one, also with ``restricted_env = false``,
    because the worker's own holds the broker's password. ``allowed_paths`` are what a bubblewrapped server may read
    and write beside its own folder. ``kind = "auto"`` is bubblewrap where it works and limits where not. A worker that
    is root gives each server a ``user`` of its own that has no rights, unless it is to keep the worker's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["auto", "bubblewrap", "limits", "none"] = "auto"
    user: Literal["own", "worker"] = "own"
    memory: Size | None = None
    cpu_seconds: Annotated[int, Field(gt=0)] | None = None
    processes: Annotated[int, Field(gt=0)] | None = None
    file_size: Size | None = None
    network: bool = True
    working_dir: str | None = None
    allowed_paths: list[str] = Field(default_factory=list)
    restricted_env: bool = True
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _switches(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        rest = dict(data)
        switched_on = [_FLAG.validate_python(rest.pop(key)) for key in ("enabled", "resource_limits") if key in rest]
        if not all(switched_on):
            if rest.get("kind", "none") != "none":
                raise ValueError(f"kind = {rest['kind']!r} contradicts enabled = false or resource_limits = false")
            rest["kind"] = "none"
        return rest

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if not self.network and self.kind != "bubblewrap":
            raise ValueError('network = false needs kind = "bubblewrap"')
        limits = (self.memory, self.cpu_seconds, self.processes, self.file_size)
        if self.kind == "none" and any(limit is not None for limit in limits):
            raise ValueError('limits need another kind than "none"')
        return self


class MCPService(BaseModel):
    """One service: a command that speaks MCP on stdio, or the URL of a streamable HTTP server.

    Durations are seconds. ``timeout`` is the idle timeout of its sessions (default: ``session.default_timeout``).
    ``bind`` pins arguments of its tools, ``{name}`` standing for what the session's metadata has under that name.
    A request may ask for another time than ``call_timeout``, up to ``max_call_timeout``.
    ``max_calls`` is how many requests of one session may run at once, ``max_arguments`` and ``max_result`` are bytes of
    a request and of a reply. With ``retry`` a tool that says of itself that it may be repeated (``readOnlyHint``,
    ``idempotentHint``) is called once more, on a fresh process, when the first one died under the call.

    ``offers`` are the capabilities beside elicitation that a server up to 2025-11-25 is told at its start, before it is
    known who will use it. A question that its requester then does not offer to answer is refused.

    ``fork_server`` names what a Python server runs as ``module:function`` (its ``main``, as a console script has it; or
    ``module:object.method``).
    A helper process then imports the module once, with the interpreter of ``command``, and forks for each session,
    which saves the time of the import; the arguments of ``command`` are the function's ``sys.argv``. What the module
    makes of environment and folder while it is imported, all sessions share. The helper runs the function once on the
    beginning of a session of its own, to know what it imports late. Where that cannot be done the server is
    started by ``command``, with a warning.
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
    max_call_timeout: Seconds = 600.0
    timeout: Seconds | None = None
    restore: bool = True
    retry: bool = False
    pending_after: Seconds | None = None
    question_timeout: Seconds = 30.0
    offers: list[Literal["sampling", "roots"]] = Field(default_factory=list)
    bind: dict[str, str] = Field(default_factory=dict)
    max_calls: int = Field(default=16, ge=1)
    max_arguments: Size = 1 << 20
    max_result: Size = 12 << 20
    warm: Warm | None = None
    fork_server: Annotated[str, Field(pattern=_FUNCTION)] | None = None
    sandbox: Sandbox = Field(default_factory=Sandbox)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.command is not None and not (self.command and all(self.command)):
            raise ValueError("command must name a program")
        if self.fork_server is not None and self.command is None:
            raise ValueError("fork_server needs a command, for when it cannot be had")
        if self.fork_server is not None and self.sandbox.kind == "bubblewrap":
            raise ValueError('fork_server cannot be had with sandbox kind = "bubblewrap"')
        return self

    @model_validator(mode="after")
    def _timeout_in_order(self) -> Self:
        if self.max_call_timeout < self.call_timeout and "max_call_timeout" in self.model_fields_set:
            raise ValueError("max_call_timeout must not be below call_timeout")
        return self

    @property
    def longest_call(self) -> float:
        """How long (s) a request may run at most, whatever its caller asks for."""
        return max(self.max_call_timeout, self.call_timeout)

    @property
    def search_path(self) -> str:
        """Where its program is looked for."""
        return self.env.get("PATH") or search_path()

    @property
    def transport(self) -> Literal["stdio", "http"]:
        """How the server is reached."""
        return "http" if self.url else "stdio"

    @property
    def source(self) -> str:
        """What its server is made of: services that differ in nothing of it offer the same tools."""
        made_of = {"command", "url", "env", "headers", "fork_server", "sandbox", "offers"}
        return self.model_dump_json(include=made_of)

    def public(self) -> dict[str, Any]:
        """What may be told about the service: neither environment nor headers, which hold secrets."""
        return {"description": self.description, "enabled": self.enabled, "transport": self.transport}


def missing_program(service: MCPService) -> str | None:
    """A sentence about a program that is not on this machine; None when it is, or none is needed."""
    if not service.enabled or not service.command or shutil.which(service.command[0], path=service.search_path):
        return None
    return (
        f"services.{service.name}.command: there is no program {service.command[0]!r} on this machine; install it, or "
        "give its full path"
    )
