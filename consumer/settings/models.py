"""The settings and their defaults. Durations are in seconds."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from consumer.calls.routes import Route
from consumer.observability import LogFormat, LogLevel
from consumer.processes.service import MCPService, Size
from consumer.settings.asterisk_settings import AsteriskSettings
from consumer.settings.broker_url import DEFAULT, BrokerUrl
from consumer.settings.fields import Reloadable
from consumer.settings.gateway_settings import GatewaySettings
from schemas.base import Seconds, Section
from schemas.calls import Platform
from schemas.ids import NAME_PATTERN, ServiceName, ServiceNameField
from schemas.internal import MAX_RECIPE

AmqpName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@#,/+ -]{1,200}$")]
"""The name of an exchange, with the characters that the AMQP library accepts."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _unlimited(value: object) -> object:
    """Return None for 0 and an empty text, because TOML and the environment have no null."""
    if isinstance(value, int | float) and value < 0:
        raise ValueError("must be a number of seconds, or 0 for no limit")
    return None if value in (0, "0", "", "none") and value is not False else value


class SessionSettings(Section):
    """``[session]``: the keys of SignalWire's gateway, and limits on what one worker takes."""

    default_timeout: Reloadable[Seconds] = 300.0
    """How long a session may stay unused before it expires. A running tool call counts as use."""
    cleanup_interval: Reloadable[Seconds] = 60.0
    """The longest time between two checks for dead processes. Expiry does not depend on it."""
    max_sessions_per_service: Reloadable[int] = Field(default=100, ge=1)
    """The most sessions of one service on one worker."""
    # A worker holds a message for each of its calls, and RabbitMQ lets it hold 65,535.
    max_total_sessions: Reloadable[int] = Field(default=500, ge=1, le=60_000)
    """The most sessions on one worker."""
    max_metadata: Annotated[Size, Field(le=MAX_RECIPE)] = 256 << 10
    """The most bytes of a session's metadata as JSON, including the call event. More causes `INVALID_MESSAGE`."""
    max_lifetime: Reloadable[Annotated[Seconds | None, BeforeValidator(_unlimited)]] = 14_400.0
    """How long a session may live, even if it is in use. `0`: without limit."""
    sandbox_dir: Path | None = None
    """The folder for the private folders of the server processes. Default: the system's folder for temporary files."""


class CallExchangeSettings(Section):
    """An exchange of a telephony platform that is bound to the queue of call events."""

    exchange: AmqpName
    """The name of the exchange."""
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    """The type of the exchange."""
    durable: bool = True
    """Whether the platform declares the exchange as durable. FreeSWITCH and Wazo do, Kazoo does not. A worker uses an
    existing exchange as it is, and declares a missing one like this. If it differs, the platform's own declaration
    fails."""
    routing_key: str = Field(default="#", max_length=255)
    """The routing key of the binding."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """The arguments of the binding, for a headers exchange."""
    platform: Platform | None = None
    """The platform of the exchange's events. A body of another platform becomes a dead letter. `asterisk` also accepts
    ARI and AMI events that a module wraps into `{name, data}`. Default: the body decides."""


class WorkerSettings(Section):
    """``[worker]``: the worker."""

    prefix: Annotated[str, Field(pattern=NAME_PATTERN)] = "mcp"
    """The first word of every name on the broker."""
    worker_id: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    """The worker's id, which must be unique. If another running worker has it, the worker exits with 2. Default: a new
    id for each start."""
    tombstone: Seconds = 30.0
    """How long after a call's end no start opens the call again. A start that was sent in this time or earlier opens
    nothing for ten minutes after the end. A call whose last session has ended keeps the answers of its tool calls for
    as long."""
    grace: Seconds = 5.0
    """How long a worker may take to reconnect before its calls are placed elsewhere. It must be the same on all workers
    of a prefix, because it is an argument of a queue."""
    admission_wait: Reloadable[Seconds] = 2.0
    """How long a start waits for a worker with room."""
    ring_timeout: Reloadable[Seconds] = 120.0
    """How long a session's place and process are reserved while a call rings, on a route with `start = "answered"`."""
    drain: Reloadable[Literal["hand_over", "wait"]] = "hand_over"
    """What a worker does with its calls when it shuts down. With `"hand_over"` it hands them over at once. With
    `"wait"` it keeps them until they end or `drain_timeout` is nearly over."""
    drain_timeout: Reloadable[Seconds] = 15.0
    """How long a worker that shuts down may take to hand over or close its calls."""
    heartbeat: float = Field(default=10.0, ge=1, le=300)
    """Seconds between AMQP heartbeats."""
    connect_timeout: Seconds = 60.0
    """How long a worker tries to reach the broker when it starts."""
    calls_prefetch: int = Field(default=100, ge=1, le=65_535)
    """How many raw call events a worker handles at once."""
    max_message: Annotated[Size, Field(ge=1 << 10, le=MAX_RECIPE)] = 4 << 20
    """The most bytes in the body of an event or a request, also written `"1M"`. A larger one becomes a dead letter
    without being parsed. It is 12 MiB at most, because a call's recipe must fit into a RabbitMQ message."""
    max_requests: int = Field(default=4_096, ge=1)
    """The most requests that the worker holds at once, including waiting ones. More get `CAPACITY`."""
    max_kept: Annotated[Size, Field(ge=1 << 20)] = 128 << 20
    """The most bytes that the worker keeps of each of these: its sessions' metadata, results under idempotency keys,
    and bodies of requests. A further session or request gets `CAPACITY`. Of the results the oldest is forgotten."""
    max_dead_letter_bytes: Annotated[Size, Field(ge=1 << 20)] = 256 << 20
    """The most bytes in the dead-letter queue `mcp.dead`, which also holds at most 100,000 messages. The oldest are
    dropped for new ones. It must be the same on all workers of a prefix. An existing queue with another limit is used
    unchanged, with a warning."""
    call_exchanges: tuple[CallExchangeSettings, ...] = ()
    """The exchanges of telephony platforms that are bound to the queue of call events."""
    http_port: int | None = Field(default=None, ge=0, le=65_535)
    """The port of `/livez`, `/readyz` and `/metrics`, see [observability](operations/observability.md). Default: none.
    `0`: a free port, which the log names."""
    http_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """The address of this port. The default is reachable from this machine only. `0.0.0.0` is every address."""
    log_level: Reloadable[Annotated[LogLevel, BeforeValidator(_lower)]] = "info"
    """The lowest level of the log."""
    log_format: Reloadable[Annotated[LogFormat, BeforeValidator(_lower)]] = "auto"
    """The format of the log. `auto` is for people on a terminal, and JSON otherwise."""


def built_in_services() -> dict[str, Any]:
    """Return the services without a configuration: a todo list, for trying things out."""
    command = [sys.executable, "-m", "consumer.processes.todo_server"]
    return {"todo": {"command": command, "description": "A todo list for each call (built in)"}}


class Settings(BaseSettings):
    """All settings. ``load_settings`` makes them; made directly, they read neither files nor environment.

    ``warnings`` are sentences for the operator. ``service_warnings`` are about services and routes, and concern only a
    program that opens sessions. ``path`` is the file that was read, if one was.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    amqp_url: BrokerUrl = BrokerUrl(DEFAULT)
    session: SessionSettings = Field(default_factory=SessionSettings)
    services: dict[ServiceNameField, MCPService] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    asterisk: AsteriskSettings = Field(default_factory=AsteriskSettings)
    warnings: tuple[str, ...] = ()
    service_warnings: tuple[str, ...] = ()
    path: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: ``load_settings`` brings the file and the environment itself."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("services", mode="before")
    @classmethod
    def _named_by_their_keys(cls, services: Any) -> Any:
        if not isinstance(services, dict):
            return services
        return {
            key: {"name": key, **service} if isinstance(service, dict) else service for key, service in services.items()
        }

    @field_validator("services")
    @classmethod
    def _one_name_each(cls, services: dict[ServiceName, MCPService]) -> dict[ServiceName, MCPService]:
        for key, service in services.items():
            if service.name != key:
                raise ValueError(
                    f"the service {key!r} has the name {service.name!r}; leave out name, because the key is the name"
                )
        return services
