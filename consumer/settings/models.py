"""What can be configured, and what holds when nothing is said. Durations are seconds."""

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
from schemas.ids import ServiceName, ServiceNameField
from schemas.internal import MAX_RECIPE

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
AmqpName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@#,/+ -]{1,200}$")]
"""An exchange's name, of the letters that the AMQP library takes."""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _unlimited(value: object) -> object:
    """0 and an empty text mean for ever: TOML and the environment have no null."""
    return None if value in (0, "0", "", "none") and value is not False else value


class SessionSettings(Section):
    """``[session]``: the keys of SignalWire's gateway, and limits on what one worker takes."""

    default_timeout: Reloadable[Seconds] = 300.0
    """How long a session may stay unused before it expires. A tool call in flight counts as use."""
    cleanup_interval: Reloadable[Seconds] = 60.0
    """The longest that a worker does not look for dead processes. Expiry does not wait for it."""
    max_sessions_per_service: Reloadable[int] = Field(default=100, ge=1)
    """Sessions of one service on one worker."""
    # A worker holds a message for each of its calls, and RabbitMQ lets it hold 65,535.
    max_total_sessions: Reloadable[int] = Field(default=500, ge=1, le=60_000)
    """Sessions on one worker."""
    max_metadata: Annotated[Size, Field(le=MAX_RECIPE)] = 256 << 10
    """Bytes of a session's metadata, the call event included, as JSON. A session with more gets `INVALID_MESSAGE`."""
    max_lifetime: Reloadable[Annotated[Seconds | None, BeforeValidator(_unlimited)]] = 14_400.0
    """How long a session may live, however busy it is. `0`: for ever."""
    sandbox_dir: Path | None = None
    """Where the private folders of the server processes are made; without it, the system's folder for temporary
    files."""


class CallExchangeSettings(Section):
    """An exchange of a telephony platform that is bound to the queue of call events, so that it needs no code."""

    exchange: AmqpName
    """Its name."""
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    """Its type; it is declared durable, as FreeSWITCH does."""
    routing_key: str = Field(default="#", max_length=255)
    """What to bind."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the binding, for a headers exchange."""
    platform: Platform | None = None
    """Whose events come by it: a body of any other platform becomes a dead letter. `asterisk` also takes ARI and AMI
    events that a module wraps into `{name, data}`. Without it the body decides."""


class WorkerSettings(Section):
    """``[worker]``: this program on the broker."""

    prefix: Annotated[str, Field(pattern=_NAME)] = "mcp"
    """The first word of every name on the broker."""
    worker_id: Annotated[str, Field(pattern=_NAME)] | None = None
    """Must be unique: a worker whose id is alive in another process exits with 2. Without it each start makes its
    own."""
    tombstone: Seconds = 30.0
    """How long a start opens nothing for a call that has ended. One that was sent before the end does not for ten
    minutes."""
    grace: Seconds = 5.0
    """How long a worker that lost its connection may take to come back before its calls are placed elsewhere. The same
    on all workers of a prefix: it is part of a queue."""
    admission_wait: Reloadable[Seconds] = 2.0
    """How long a start waits for room."""
    ring_timeout: Reloadable[Seconds] = 120.0
    """How long a place and a process are held for a call that rings, on a route with `start = "answered"`."""
    drain: Reloadable[Literal["hand_over", "wait"]] = "hand_over"
    """What a worker that leaves does with its calls: it hands them over to the others at once (`"hand_over"`), or keeps
    them until they end or `drain_timeout` is nearly over (`"wait"`)."""
    drain_timeout: Reloadable[Seconds] = 15.0
    """How long handing over or closing the calls may take when the worker leaves."""
    heartbeat: float = Field(default=10.0, ge=1, le=300)
    """Seconds between AMQP heartbeats."""
    connect_timeout: Seconds = 60.0
    """How long a broker that cannot be reached is tried at the start."""
    calls_prefetch: int = Field(default=100, ge=1, le=65_535)
    """Raw call events in work at once."""
    max_message: Annotated[Size, Field(ge=1 << 10, le=MAX_RECIPE)] = 4 << 20
    """Bytes of the body of an event or a request, also written `"1M"`; what is larger becomes a dead letter, unread.
    12 MiB at most: what is kept of a call must fit into a message of RabbitMQ."""
    max_requests: int = Field(default=4_096, ge=1)
    """Requests that the worker holds at once, those that wait included. More get `CAPACITY`."""
    max_kept: Annotated[Size, Field(ge=1 << 20)] = 128 << 20
    """Bytes that the worker keeps of each of these: the metadata of its sessions, answers under idempotency keys, and
    bodies of requests. A session or a request beyond that gets `CAPACITY`; of answers the oldest goes."""
    max_dead_letter_bytes: Annotated[Size, Field(ge=1 << 20)] = 256 << 20
    """Bytes that the dead-letter queue `mcp.dead` holds, and 100,000 messages; the oldest make room for new ones. The
    same on all workers of a prefix. A queue that is there with another bound is used as it is, with a warning."""
    call_exchanges: tuple[CallExchangeSettings, ...] = ()
    """Exchanges of telephony platforms that are bound to the queue of call events."""
    http_port: int | None = Field(default=None, ge=0, le=65_535)
    """Where `/livez`, `/readyz` and `/metrics` are served, see [observability](operations/observability.md). Without
    it: nowhere. `0`: a port of the system's choice, which the log tells."""
    http_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """On which address. The default is for this machine only; `0.0.0.0` is every address."""
    log_level: Reloadable[Annotated[LogLevel, BeforeValidator(_lower)]] = "info"
    """Lowest level of the log."""
    log_format: Reloadable[Annotated[LogFormat, BeforeValidator(_lower)]] = "auto"
    """`auto`: for people on a terminal, JSON otherwise."""


def built_in_services() -> dict[str, Any]:
    """What is there without any configuration: a todo list, to try things out."""
    command = [sys.executable, "-m", "consumer.processes.todo_server"]
    return {"todo": {"command": command, "description": "A todo list for each call (built in)"}}


class Settings(BaseSettings):
    """Everything that is configured. Made by ``load_settings``; made directly it reads neither files nor environment.

    ``warnings`` are sentences for whoever starts the worker; ``path`` is the file that was read, if one was.
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
                    f"the service {key!r} calls itself {service.name!r}; leave name out, the key is the name"
                )
        return services
