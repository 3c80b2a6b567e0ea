"""A configured MCP server: what ``[services.<name>]`` says."""

import re
import shutil
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from consumer.processes.search_path import search_path
from schemas.base import Seconds, Section
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


MAX_LISTING = 4 << 20
"""Bytes of JSON that a list of tools may have."""

_ENVELOPE = 64 << 10
"""Bytes of an answer beside its result."""

Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""Bytes, also written ``"512M"``; units are powers of 1024."""


class Warm(Section):
    """``[services.<name>.warm]``: processes that are started ahead of calls."""

    min: int = Field(default=0, ge=0)
    """At least so many wait for a call."""
    max: int = Field(default=0, ge=0)
    """At most so many wait. `0`: none is started ahead."""
    idle_ttl: Seconds = 600.0
    """How old one may become while it waits; then another takes its place."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Sandbox(Section):
    """``[services.<name>.sandbox]``: how a server process is kept apart.

    ``enabled``, ``resource_limits``, ``restricted_env``, ``working_dir``, ``allowed_paths`` and ``note`` are the keys
    of SignalWire's gateway, read as it means them: ``enabled = false`` and ``resource_limits = false`` are the kind
    ``none``. One thing differs: the environment is always the minimal one, because the worker's own holds the
    broker's password.
    """

    kind: Literal["auto", "bubblewrap", "limits", "none"] = "auto"
    """`limits`: resource limits and no new privileges; `bubblewrap`: its own file system and namespaces as well;
    `none`: neither; `auto`: `bubblewrap` where it works, and `limits` where not or with `fork_server`.
    [Sandboxes](operations/sandbox.md) says what each holds."""
    user: Literal["own", "worker"] = "own"
    """Whom it runs as when the worker is root. `own`: a user of its own without rights; `worker`: root. Of kind `none`
    it is always the worker's user."""
    memory: Size | None = None
    """Bytes of data; `"512M"` is understood."""
    cpu_seconds: Annotated[int, Field(gt=0)] | None = None
    """Seconds of processor time, over the whole life."""
    processes: Annotated[int, Field(gt=0)] | None = None
    """How many processes and threads."""
    file_size: Size | None = None
    """The largest file in bytes; `"1G"` is understood."""
    network: bool = True
    """Whether it has a network. `false` needs `bubblewrap`."""
    working_dir: str | None = None
    """Where the command starts. Without it: its private folder, and words of `command` that name a file below the
    worker's folder are made absolute."""
    allowed_paths: list[str] = Field(default_factory=list)
    """What it may read and write beside its own folder, with `bubblewrap`; under root, as far as everybody may."""
    restricted_env: bool = True
    """Key of the gateway; changes nothing, the environment is always the minimal one."""
    note: str = ""
    """For people."""

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


class MCPService(Section):
    """``[services.<name>]``: a command that speaks MCP on stdio, or the URL of a streamable HTTP server."""

    name: ServiceNameField = ServiceName("service")
    """The key of its table."""
    command: list[str] | None = None
    """The program and its arguments; it speaks MCP on stdin and stdout. Either this or `url`."""
    url: str | None = None
    """Address of a streamable HTTP server. Either this or `command`."""
    description: str = ""
    """For people; `services.list` shows it."""
    enabled: bool = True
    """With `false` no session is opened on it."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables for the process. It gets these and a minimal environment, never the worker's own."""
    headers: dict[str, str] = Field(default_factory=dict)
    """HTTP headers for a `url`."""
    start_timeout: Seconds = 30.0
    """How long starting and the handshake may take."""
    call_timeout: Seconds = 30.0
    """How long a tool call may take when its caller does not say."""
    max_call_timeout: Seconds = 600.0
    """The longest time that a caller may ask for, at least `call_timeout`."""
    timeout: Seconds | None = None
    """Idle timeout of this service's sessions. Without it: `session.default_timeout`."""
    restore: bool = True
    """Whether its sessions are opened again when their worker has gone."""
    retry: bool = False
    """Whether a tool that says of itself that it may be repeated (`readOnlyHint`, `idempotentHint`) is called once
    more, on a fresh process, when the process died under the call."""
    pending_after: Seconds | None = None
    """When a tool call takes longer, its caller gets one `tools.pending`. A request may say another time."""
    question_timeout: Seconds = 30.0
    """How long a question of the server to the caller (`input.required`, or returned) waits for its answer."""
    offers: list[Literal["sampling", "roots"]] = Field(default_factory=list)
    """What a server up to 2025-11-25 is told that it may ask for beside elicitation: `sampling`, `roots`. It is told at
    its start, before it is known who will use it. Its question goes to a requester that offers the same in
    `client_capabilities`, and is refused otherwise."""
    bind: dict[str, str] = Field(default_factory=dict)
    """Arguments that are set for every call of a tool that takes them; what the requester gives for them reaches no
    tool and no prompt. `{name}` stands for what the session's metadata has under that name, `{name|default}` has a
    default, and without one a missing value is an error. The fields of the call event (`from`, `to`, `direction` and so
    on) are read from the event alone. Resources are not bound."""
    max_calls: int = Field(default=16, ge=1)
    """How many tool calls and other requests of one session may run at once."""
    max_arguments: Size = 1 << 20
    """The most bytes that a request's body may have."""
    max_result: Size = 4 << 20
    """The most bytes that a result may have, with the text of its content once more. An answer that is longer than this
    and than 4 MiB is not even parsed, and no more than 100,000 values are, because all sessions wait for it."""
    warm: Warm | None = None
    """Processes that are started ahead of calls, as many as calls come in while one starts."""
    fork_server: Annotated[str, Field(pattern=_FUNCTION)] | None = None
    """What a Python server runs, as `module:function`; the function may be an attribute of something in the module:
    `weather.server:app.run`. A helper imports the module once and forks itself for each session, which saves the time
    of the import; the arguments of `command` are its `sys.argv`. What the module makes of environment and folder while
    it is imported, all sessions share. Where it cannot be done, `command` is started, with a warning. The helper
    rehearses the function once, in a throw-away fork, so a server that does something at its start does it one time
    more."""
    sandbox: Sandbox = Field(default_factory=Sandbox)
    """How the process is kept apart."""

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
    def longest_answer(self) -> int:
        """Bytes of an answer that are parsed: a longer one is refused either way."""
        return max(self.max_result, MAX_LISTING) + _ENVELOPE

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
