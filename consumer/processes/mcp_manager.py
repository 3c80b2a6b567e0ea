"""The configured services and their clients: SignalWire's ``MCPManager``, in asyncio."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import structlog

from consumer.processes.advice import SLOW_START, advice
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
from consumer.processes.tool_cache import ToolCache
from consumer.processes.warm.pool import WarmPool
from consumer.processes.warm.starter import ColdStarter, Starter
from schemas.errors import ServiceDisabled, ServiceNotFound, SessionsError, ShuttingDown, StartFailed
from schemas.text import nearest

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceCheck:
    """The result of a trial start of a service: its tools or the error, and the duration."""

    error: SessionsError | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    """How long the start took, including the listing of tools."""
    advice: str = ""
    """What to do about a start that takes too long."""


class MCPManager:
    """Makes clients for services by name.

    ``services`` maps names to services, or is a configuration as SignalWire's gateway has it, with a ``services``
    object in it; pydantic's ``ValidationError`` says what is wrong with it. ``warm_changed`` is called when the number
    of clients that were started ahead changes. Use it from the main thread.
    """

    def __init__(
        self,
        services: Mapping[str, MCPService] | Mapping[str, Any],
        *,
        starter: Starter | None = None,
        warm_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.services = read_services(services)
        self._known = ToolCache()
        self._pool = WarmPool(starter or ColdStarter(), started=self._known.started, changed=warm_changed)
        self._listings: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}
        self._closing: asyncio.Task[None] | None = None

    def get_service(self, service_name: str) -> MCPService:
        """Return the service of that name.

        Raises :class:`ServiceNotFound`, :class:`ServiceDisabled` (``ValueError``).
        """
        service = self.services.get(service_name)
        if service is None:
            hint = nearest(service_name, sorted(self.services))
            raise ServiceNotFound(f"there is no service {service_name!r}; {hint}", service=service_name)
        if not service.enabled:
            raise ServiceDisabled(f"service {service_name!r} is disabled", service=service_name)
        return service

    def list_services(self) -> dict[str, dict[str, Any]]:
        """List all services, also the disabled ones, without secrets."""
        return {name: service.public() for name, service in self.services.items()}

    def warm_up(self) -> None:
        """Start clients ahead for services with ``warm``."""
        self._pool.warm_up(self.services.values())

    def reconfigure(self, services: Mapping[str, MCPService]) -> None:
        """Use these services for starts from now on. Returns at once.

        Waiting clients of changed and removed services are stopped, and new ones are started where ``warm`` asks for
        them. Clients in use go on with their old service.
        """
        before, self.services = self.services, read_services(services)
        self._pool.reconfigure(before, self.services)
        self._known.keep(self.services)

    async def cool_down(self) -> None:
        """Stop the waiting clients, and start no more ahead. Idempotent, bounded."""
        await self._pool.cool_down()

    def warm(self, service_name: str) -> int:
        """Return the number of the service's warm clients."""
        return self._pool.waiting(service_name)

    async def create_client(self, service_name: str) -> MCPClient:
        """Return a started client. The caller stops it.

        Errors are those of :meth:`MCPClient.start` and ``get_service``.
        """
        began = time.monotonic()
        client = await self._create(service_name)
        if (took := time.monotonic() - began) > SLOW_START:
            log.warning(
                "service.slow_start", service=service_name, seconds=round(took, 1), hint=advice(client.service, took)
            )
        return client

    async def _create(self, service_name: str) -> MCPClient:
        service = self.get_service(service_name)
        if self._closing is not None:
            raise ShuttingDown("the worker is shutting down")
        return await self._pool.take(service)

    def take_back(self, client: MCPClient) -> bool:
        """Keep an unused client for another session. Return ``False`` if the caller has to stop it."""
        return self._closing is None and self._pool.take_back(client)

    async def get_service_tools(self, service_name: str) -> list[dict[str, Any]]:
        """Return the service's last list of tools, from any of its clients.

        If no listing is valid, a running client is asked. A client is started only if none runs. Concurrent callers
        share the result.
        """
        service = self.get_service(service_name)
        if (tools := self._known.fresh(service)) is not None:
            return tools
        listing = self._listings.get(service.source)
        if listing is None:
            listing = asyncio.create_task(self._renew(service_name, service), name=f"list-tools-{service_name}")
            self._listings[service.source] = listing
            listing.add_done_callback(partial(self._listed, service))
        return await asyncio.shield(listing)

    async def describe_service(self, service_name: str) -> dict[str, Any]:
        """Return how the service's server described itself at its last start. Start one if there was none."""
        service = self.get_service(service_name)
        if (about := self._known.about(service)) is None:
            await self.get_service_tools(service_name)
            about = self._known.about(service)
        if about is None:  # its program was replaced meanwhile
            raise StartFailed(f"{service_name}: its program has just changed; try again")
        return about

    def _listed(self, service: MCPService, listing: asyncio.Task[list[dict[str, Any]]]) -> None:
        del self._listings[service.source]
        if not listing.cancelled() and listing.exception() is not None:
            log.info("service.not_listed", service=service.name, error=str(listing.exception()))

    async def _renew(self, service_name: str, service: MCPService) -> list[dict[str, Any]]:
        tools = await self._known.renewed(service)
        return tools if tools is not None else await self._list(service_name)

    async def _list(self, service_name: str) -> list[dict[str, Any]]:
        client = await self.create_client(service_name)
        await client.stop()
        return client.tools

    async def validate_services(self) -> dict[str, ServiceCheck]:
        """Start each enabled service once, all at the same time, and return the results. Never raises."""
        names = [name for name, service in self.services.items() if service.enabled]
        return dict(zip(names, await asyncio.gather(*map(self._check, names)), strict=True))

    async def _check(self, service_name: str) -> ServiceCheck:
        began = time.monotonic()
        try:
            client = await self._create(service_name)
        except SessionsError as error:
            took = time.monotonic() - began
            return ServiceCheck(error, seconds=took, advice=advice(self.services[service_name], took, failed=True))
        took = time.monotonic() - began
        await client.stop()
        return ServiceCheck(tools=client.tools, seconds=took, advice=advice(self.services[service_name], took))

    async def shutdown(self) -> None:
        """Stop all clients at once and remove what they left. Idempotent, bounded, never raises."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._pool.close(), name="mcp-manager-shutdown")
        await asyncio.wait({self._closing})
        if self._closing.exception() is not None:
            log.error("manager.shutdown_failed", exc_info=self._closing.exception())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()


def read_services(services: Mapping[str, MCPService] | Mapping[str, Any]) -> dict[str, MCPService]:
    """Return services by name, from services or from the configuration of SignalWire's gateway."""
    inner = services.get("services")
    if isinstance(inner, Mapping):
        services = inner
    return {
        name: service if isinstance(service, MCPService) else MCPService.model_validate({"name": name, **service})
        for name, service in services.items()
    }
