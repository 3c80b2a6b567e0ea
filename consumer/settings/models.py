"""What can be configured, and what holds when nothing is said. Durations are seconds."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from consumer.calls.routes import Route
from consumer.observability import LogFormat, LogLevel
from consumer.processes.service import MCPService, Size
from consumer.settings.asterisk import AsteriskSettings
from consumer.settings.broker_url import DEFAULT, BrokerUrl
from consumer.settings.gateway import GatewaySettings
from schemas.base import Seconds
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


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionSettings(_Section):
    """``[session]``: the keys of SignalWire's gateway, and limits on what one worker takes.

    ``default_timeout`` is the idle timeout of a session; ``max_lifetime`` ends it however busy it is (0: never).
    Expiry is exact; ``cleanup_interval`` is the longest that a worker goes without looking at all. Each session gets a
    folder of its own in ``sandbox_dir`` (default: the system's folder for temporary files). ``max_total_sessions`` is
    60,000 at most, because a worker holds a message for each of its calls and RabbitMQ lets it hold 65,535.
    """

    default_timeout: Seconds = 300.0
    cleanup_interval: Seconds = 60.0
    max_sessions_per_service: int = Field(default=100, ge=1)
    max_total_sessions: int = Field(default=500, ge=1, le=60_000)
    max_metadata: Annotated[Size, Field(le=MAX_RECIPE)] = 256 << 10
    max_lifetime: Annotated[Seconds | None, BeforeValidator(_unlimited)] = 14_400.0
    sandbox_dir: Path | None = None


class CallExchange(_Section):
    """An exchange of a telephony platform that is bound to the queue of call events, so that it needs no code."""

    exchange: AmqpName
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    routing_key: str = Field(default="#", max_length=255)
    arguments: dict[str, Any] = Field(default_factory=dict)
    platform: Platform | None = None


class WorkerSettings(_Section):
    """``[worker]``: this program on the broker.

    ``tombstone`` is how long no start opens a call that has ended, ``grace`` how long a worker that lost its connection
    may take to come back, ``admission_wait`` how long a start waits for room, ``ring_timeout`` how long something is
    held for a call that rings, ``connect_timeout`` how long a broker that cannot be reached is tried at the start. A
    worker that leaves hands its calls over at once, or with ``drain = "wait"`` keeps them until they end;
    ``drain_timeout`` bounds both. ``calls_prefetch`` bounds the raw events in work at once, ``max_message`` the bytes
    of a body that is read at all, ``max_requests`` the requests that are held at once, ``max_kept`` the bytes that are
    kept of metadata, of answers and of requests, each, ``max_dead`` the bytes of what could not be handled.
    ``worker_id`` must be unique; without one each start makes its own. Without an ``http_port`` nothing listens; 0 lets
    the system choose one, and the log tells it.
    """

    prefix: Annotated[str, Field(pattern=_NAME)] = "mcp"
    worker_id: Annotated[str, Field(pattern=_NAME)] | None = None
    tombstone: Seconds = 30.0
    grace: Seconds = 5.0
    admission_wait: Seconds = 2.0
    ring_timeout: Seconds = 120.0
    drain: Literal["hand_over", "wait"] = "hand_over"
    drain_timeout: Seconds = 15.0
    heartbeat: float = Field(default=10.0, ge=1, le=300)
    connect_timeout: Seconds = 60.0
    calls_prefetch: int = Field(default=100, ge=1, le=65_535)
    max_message: Annotated[Size, Field(ge=1 << 10, le=MAX_RECIPE)] = 4 << 20
    max_requests: int = Field(default=4_096, ge=1)
    max_kept: Annotated[Size, Field(ge=1 << 20)] = 128 << 20
    max_dead: Annotated[Size, Field(ge=1 << 20)] = 256 << 20
    call_exchanges: tuple[CallExchange, ...] = ()
    http_port: int | None = Field(default=None, ge=0, le=65_535)
    http_host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = "info"
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = "auto"


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
