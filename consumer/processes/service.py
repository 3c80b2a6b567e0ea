"""A configured MCP server: the table ``[services.<name>]``."""

import re
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, TypeAdapter, field_validator, model_validator

from consumer.processes.search_path import search_path
from schemas.base import Seconds, Section
from schemas.ids import ServiceName, ServiceNameField

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_FUNCTION = r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$"
_FLAG = TypeAdapter(bool)
_INTERPRETER = re.compile(r"python[\d.]*|node|nodejs|ruby|perl|php|(ba|da|z)?sh")
EITHER = "give either command or url"
_CODE = re.compile(r"-[a-z]*[cemp][a-z]*|--eval|--print")
"""Options after which an interpreter expects code or a module instead of a script."""

SCRIPTS = frozenset({".py", ".js", ".mjs", ".cjs"})
"""The file name endings of scripts, wherever a command names them."""


def parse_size(value: object) -> object:
    """Return the bytes of ``"512M"``, ``"1.5G"``, ``"64KiB"``. Other types are left to the field's own check."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError('give a number of bytes or a size such as "512M" or "2G"')
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _is_http(url: str) -> bool:
    """Return whether an HTTP client can use the URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


MAX_LISTING = 4 << 20
"""The most bytes of JSON in a list of tools."""

_ENVELOPE = 64 << 10
"""The bytes of an answer beside its result."""

Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""Bytes, also written ``"512M"``; units are powers of 1024."""


class Warm(Section):
    """``[services.<name>.warm]``: processes that are started ahead of calls."""

    min: int = Field(default=0, ge=0)
    """The least number of processes that wait for a call."""
    max: int = Field(default=0, ge=0)
    """The most processes that wait for a call. `0`: none is started ahead."""
    idle_ttl: Seconds = 600.0
    """How long a process may wait before it is replaced."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError("max must not be below min")
        return self


class Sandbox(Section):
    """``[services.<name>.sandbox]``: how a server process is isolated.

    ``enabled``, ``resource_limits``, ``restricted_env``, ``working_dir``, ``allowed_paths`` and ``note`` are the keys
    of SignalWire's gateway, read as it means them: ``enabled = false`` and ``resource_limits = false`` are the kind
    ``none``. One thing differs: the environment is always the minimal one, because the worker's own holds the
    broker's password.
    """

    kind: Literal["auto", "bubblewrap", "limits", "none"] = "auto"
    """The kind of isolation. `limits`: resource limits and no new privileges. `bubblewrap`: also its own file system
    and namespaces. `none`: neither. `auto`: `bubblewrap` where it works, else `limits`, also with `fork_server`.
    [Sandboxes](operations/sandbox.md) lists what each prevents."""
    user: Literal["own", "worker"] = "own"
    """The user of the process if the worker runs as root. `own`: a user of its own without rights. `worker`: root. With
    the kind `none` it is always the worker's user."""
    memory: Size | None = None
    """The most bytes of memory, also written `"512M"`."""
    cpu_seconds: Annotated[int, Field(gt=0)] | None = None
    """The most seconds of processor time over the process's life."""
    processes: Annotated[int, Field(gt=0)] | None = None
    """The most processes and threads."""
    file_size: Size | None = None
    """The most bytes in a file, also written `"1G"`."""
    network: bool = True
    """Whether the process can use the network. `false` needs `bubblewrap`."""
    working_dir: str | None = None
    """The working directory of the command. Default: its private folder. Words of `command` that name a file below the
    worker's folder are then made absolute."""
    allowed_paths: list[str] = Field(default_factory=list)
    """With `bubblewrap`, the paths that it may read and write beside its own folder. Under root, it may do so as far as
    all users may."""
    restricted_env: bool = True
    """A key of SignalWire's gateway without effect. The environment is always minimal. `config check` warns if it is
    false, as it is with `enabled = false`, and `env` is empty."""
    note: str = ""
    """A note for people."""

    @model_validator(mode="before")
    @classmethod
    def _switches(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        rest = dict(data)
        if "enabled" in rest and not _FLAG.validate_python(rest["enabled"]):
            rest.setdefault("restricted_env", False)
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
            raise ValueError('kind = "none" allows no limits')
        return self


class MCPService(Section):
    """``[services.<name>]``: a command that speaks MCP on stdio, or the URL of a streamable HTTP server."""

    name: ServiceNameField = ServiceName("service")
    """The service's name, which is the key of its table."""
    command: list[str] | None = None
    """The program, which uses MCP on stdin and stdout, and its arguments. Set either this or `url`."""
    url: str | None = None
    """The URL of a streamable HTTP server. Set either this or `command`."""
    description: str = ""
    """A description for people. `services.list` shows it."""
    enabled: bool = True
    """Whether sessions of this service can be opened."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables for the process. It gets these and a minimal environment, but not the worker's."""
    headers: dict[str, str] = Field(default_factory=dict)
    """HTTP headers for a `url`."""
    start_timeout: Seconds = 30.0
    """How long starting and the handshake may take. Further messages of the call wait meanwhile. The call's end cancels
    a start that has taken 5 seconds."""
    call_timeout: Seconds = 30.0
    """How long a tool call may take if its requester sets no timeout."""
    max_call_timeout: Seconds = 600.0
    """The longest timeout that a requester may set. It is at least `call_timeout`."""
    timeout: Seconds | None = None
    """The idle timeout of this service's sessions. Default: `session.default_timeout`."""
    restore: bool = True
    """Whether its sessions are opened again if their worker is gone."""
    retry: bool = False
    """Whether a tool is called once more, on a new process, if the process died during the call. This applies only to
    tools that declare that they may be repeated (`readOnlyHint`, `idempotentHint`)."""
    pending_after: Seconds | None = None
    """After how long a running tool call sends one `tools.pending` to its requester. A request may set another time."""
    question_timeout: Seconds = 30.0
    """How long a question of the server (`input.required`, or returned) waits for its answer."""
    offers: list[Literal["sampling", "roots"]] = Field(default_factory=list)
    """The kinds of questions, besides elicitation, that a server up to 2025-11-25 is told it may ask: `sampling`,
    `roots`. The server is told when it starts, before its requesters are known. Its question goes to a requester that
    offers the same in `client_capabilities`, and is refused otherwise."""
    bind: dict[str, str] = Field(default_factory=dict)
    """Arguments that are set for every call of a tool or prompt that takes them. Values that the requester sends for
    them are ignored. `{name}` stands for the value with that name in the session's metadata. `{name|default}` has a
    default; without one a missing value is an error. The fields of the call event (`from`, `to`, `direction` and so on)
    are read only from the event. Resources are not bound."""
    max_calls: int = Field(default=16, ge=1)
    """The most requests of one session, tool calls and others, that may run at once."""
    max_arguments: Size = 1 << 20
    """The most bytes in a request's body."""
    max_result: Size = 4 << 20
    """The most bytes in a reply with a result: the whole result, structured content included, and once more the text
    of its content. A response of a server that is longer than this and than 4 MiB is not parsed, nor is one with more
    than 100,000 values, because all sessions wait during parsing."""
    warm: Warm | None = None
    """Processes that are started ahead of calls. Their number is that of the calls that arrive while one starts."""
    fork_server: Annotated[str, Field(pattern=_FUNCTION)] | None = None
    """The function that a Python server runs, as `module:function`, for example `weather.server:app.run`. A helper
    process imports the module once and forks itself for each session, which saves the time of the import. The arguments
    of `command` are its `sys.argv`. All sessions share what the module reads from environment and folder during the
    import. If forking is not possible, `command` is started, with a warning. The helper first runs the function once in
    a throw-away fork, so a server that acts when it starts does so one more time."""
    sandbox: Sandbox = Field(default_factory=Sandbox)
    """How the process is isolated."""

    @field_validator("url")
    @classmethod
    def _can_be_asked(cls, url: str | None) -> str | None:
        if url is not None and not _is_http(url):
            raise ValueError("must be a URL of HTTP: write http://host:port/path, or https://")
        return url

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError(EITHER)
        if self.command is not None and not (self.command and all(self.command)):
            raise ValueError("command must name a program")
        if self.fork_server is not None and self.command is None:
            raise ValueError("fork_server also needs a command, which is started if forking is not possible")
        if self.fork_server is not None and self.sandbox.kind == "bubblewrap":
            raise ValueError('fork_server does not work with sandbox kind = "bubblewrap"')
        return self

    @model_validator(mode="after")
    def _timeout_in_order(self) -> Self:
        if self.max_call_timeout < self.call_timeout and "max_call_timeout" in self.model_fields_set:
            raise ValueError("max_call_timeout must not be below call_timeout")
        return self

    @property
    def longest_call(self) -> float:
        """The longest time (s) that a request may run, whatever its caller asks for."""
        return max(self.max_call_timeout, self.call_timeout)

    @property
    def longest_answer(self) -> int:
        """The most bytes of an answer that are parsed. A longer one would be refused anyway."""
        return max(self.max_result, MAX_LISTING) + _ENVELOPE

    @property
    def search_path(self) -> str:
        """The folders in which its program is looked for."""
        return self.env.get("PATH") or search_path()

    @property
    def transport(self) -> Literal["stdio", "http"]:
        """How the server is reached."""
        return "http" if self.url else "stdio"

    @property
    def source(self) -> str:
        """The parts that decide the server: services with equal parts offer the same tools."""
        made_of = {"command", "url", "env", "headers", "fork_server", "sandbox", "offers"}
        return self.model_dump_json(include=made_of)

    def public(self) -> dict[str, Any]:
        """The service without its secrets: without environment and headers."""
        return {"description": self.description, "enabled": self.enabled, "transport": self.transport}


def missing_file(service: MCPService) -> str | None:
    """Return a sentence about a missing program, or a missing script of an interpreter; None if both exist."""
    if not service.enabled or not service.command:
        return None
    key = f"services.{service.name}.command"
    if not shutil.which(service.command[0], path=service.search_path):
        program = repr(service.command[0])
        return f"{key}: there is no program {program} on this machine; install it, or give its full path"
    script = _script(service.command)
    if script is None:
        return None
    folder = Path(service.sandbox.working_dir or ".").expanduser().absolute()
    if _is_there(folder / script):
        return None
    where = "on this machine" if script.startswith("/") else f"in {folder}"
    return f"{key}: there is no file {script!r} {where}; correct its path"


def _script(command: list[str]) -> str | None:
    """Return the script of an interpreter's command, if it is clearly a path."""
    program, *words = command
    options = list(takewhile(lambda word: word.startswith("-"), words))
    if not _INTERPRETER.fullmatch(Path(program).name) or any(map(_CODE.fullmatch, options)):
        return None
    word = next(iter(words[len(options) :]), "")
    return word if word.startswith(("/", "./", "../")) or Path(word).suffix in SCRIPTS else None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()  # python runs a folder as well
    except (OSError, ValueError):  # it cannot be looked for; the start tells
        return True
