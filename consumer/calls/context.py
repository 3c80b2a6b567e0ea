"""The protocols and settings of services, processes and configuration that this room uses."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from consumer.calls.routes import Route
from consumer.sessions import SessionProcess
from consumer.sessions.dialogue import SILENT, Dialogue
from schemas.base import Json
from schemas.errors import ServiceDisabled, ServiceNotFound
from schemas.event_data import StartKind
from schemas.ids import ServiceName
from schemas.text import nearest


class Service(Protocol):
    """A configured service, as this room sees it. Durations are in seconds."""

    @property
    def enabled(self) -> bool: ...  # noqa: D102 - the keys are explained in the settings
    @property
    def command(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def timeout(self) -> float | None: ...  # noqa: D102
    @property
    def call_timeout(self) -> float: ...  # noqa: D102
    @property
    def longest_call(self) -> float: ...  # noqa: D102
    @property
    def restore(self) -> bool: ...  # noqa: D102
    @property
    def retry(self) -> bool: ...  # noqa: D102
    @property
    def pending_after(self) -> float | None: ...  # noqa: D102
    @property
    def question_timeout(self) -> float: ...  # noqa: D102
    @property
    def bind(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def max_calls(self) -> int: ...  # noqa: D102
    @property
    def max_arguments(self) -> int: ...  # noqa: D102
    @property
    def max_result(self) -> int: ...  # noqa: D102


class ToolProcess(SessionProcess, Protocol):
    """A session's MCP client, as requests see it."""

    @property
    def service(self) -> Service:
        """The service as it was configured when the process was started."""
        ...

    @property
    def start_kind(self) -> StartKind:
        """How the process was obtained: ``cold``, ``warm``, ``forked`` or ``reserved``."""
        ...

    async def call_tool(
        self,
        name: str,
        arguments: Json,
        *,
        timeout: float | None = None,
        meta: Json | None = None,
        dialogue: Dialogue = SILENT,
    ) -> Json:
        """Call a tool (MCP ``tools/call``). Return the ``CallToolResult`` unchanged."""
        ...

    async def call_method(
        self, method: str, params: Json, *, timeout: float | None = None, dialogue: Dialogue = SILENT
    ) -> Json:
        """Send any other MCP request. Return its result unchanged."""
        ...

    def on_news(self, callback: Callable[[str, str], None]) -> None:
        """Call ``callback`` with each notification: ``list_changed`` or ``resource_updated``, and what has changed."""
        ...

    async def set_log_level(self, level: str, *, timeout: float) -> None:
        """Set the lowest level of the log messages that the server sends."""
        ...

    async def subscribe(self, uri: str | None, *, timeout: float) -> None:
        """Subscribe to changes of a resource and of lists; without ``uri``, of lists only."""
        ...

    async def unsubscribe(self, uri: str, *, timeout: float) -> None:
        """End the subscription to a resource."""
        ...

    @property
    def is_modern(self) -> bool:
        """Whether the server asks its questions in results, as in revision 2026-07-28."""
        ...

    @property
    def about(self) -> Json:
        """How the server describes itself: ``era protocol_version capabilities server_info instructions``."""
        ...

    @property
    def tools(self) -> list[Json]:
        """The last list of tools."""
        ...

    async def get_tools(self) -> list[Json]:
        """List all pages of the server's tools."""
        ...


Starter = Callable[[ServiceName], Awaitable[ToolProcess]]
"""Starts a server process for a new session; raises ``StartFailed``, ``StartTimeout``."""

TakeBack = Callable[[Any], bool]
"""Takes back a process that was started for a session and never used. Returns whether it will be used for another."""


class Timings(Protocol):
    """Durations in seconds, as the worker's settings have them."""

    @property
    def tombstone(self) -> float: ...  # noqa: D102 - the keys are explained in the settings
    @property
    def admission_wait(self) -> float: ...  # noqa: D102
    @property
    def ring_timeout(self) -> float: ...  # noqa: D102


@dataclass(slots=True)
class Configured:
    """The settings that a reload may change, for calls that start from then on."""

    services: Mapping[ServiceName, Service]
    routes: Sequence[Route]
    timings: Timings

    def service(self, name: ServiceName) -> Service:
        """Return a service on which sessions can be opened.

        Raises:
            ServiceNotFound: none of that name is configured.
            ServiceDisabled: it is not enabled.
        """
        service: Service | None = self.services.get(name)
        if service is None:
            raise ServiceNotFound(f"there is no service {name!r}; {nearest(name, self.services)}", service_name=name)
        if not service.enabled:
            raise ServiceDisabled(f"service {name!r} is disabled in the configuration", service_name=name)
        return service

    def restores(self, name: ServiceName) -> bool:
        """Whether a session on this service is opened again after its worker has died or left."""
        service = self.services.get(name)
        return service is not None and service.enabled and service.restore


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one worker."""

    max_calls: int = 512
    """The most requests that MCP servers handle at once, of all sessions."""
    max_requests: int = 4_096
    """The most requests that are held, waiting for their turn or running."""
    max_metadata: int = 256 << 10
    """The most bytes of one session's metadata."""
    max_kept: int = 128 << 20
    """The most bytes kept of each of these: metadata of sessions, answers under keys, bodies of requests."""
