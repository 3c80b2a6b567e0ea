"""What services there are, what each is and what tools it has, as the workers last told; asked again when it is old."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from consumer.client import SessionClient
from schemas.errors import SessionsError
from schemas.mcp import Tool
from schemas.replies import ServerDescription

FRESH: Final = 30.0
"""How long (s) an answer counts before it is asked for again."""


@dataclass(slots=True)
class _Known:
    tools: list[Tool] = field(default_factory=list)
    until: float = 0.0
    description: ServerDescription | None = None
    described_until: float = 0.0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class KnownServices:
    """Remembers for half a minute which services are enabled and what tools they have. Bounded by the services."""

    def __init__(self, client: SessionClient, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._services: list[str] = []
        self._until = 0.0
        self._asking = asyncio.Lock()
        self._known: dict[str, _Known] = {}

    async def services(self) -> list[str]:
        """The names of the enabled services, in the order of the configuration.

        Raises:
            SessionsError: nobody answers, and nothing is known from before.
        """
        async with self._asking:
            if self._until <= time.monotonic():
                found = (await self._client.list_services(reply_timeout=self._timeout)).services
                self._services = [name for name, service in found.items() if service.enabled]
                self._until = time.monotonic() + FRESH
                self._known = {name: self._known.get(name, _Known()) for name in self._services}
        return self._services

    async def tools(self, service: str) -> list[Tool]:
        """The tools of a service.

        Raises:
            SessionsError: there is no such service, or its server does not start.
        """
        await self.services()
        known = self._known.get(service)
        if known is None:  # the workers say what is wrong with it
            return (await self._client.service_tools(service, reply_timeout=self._timeout)).tools
        async with known.asking:
            if known.until <= time.monotonic():
                try:
                    known.tools = (await self._client.service_tools(service, reply_timeout=self._timeout)).tools
                except SessionsError:
                    if not known.until:
                        raise
                known.until = time.monotonic() + FRESH
        return known.tools

    async def description(self, service: str) -> ServerDescription:
        """What the server of a service tells of itself.

        Raises:
            SessionsError: there is no such service, or its server does not start.
        """
        await self.services()
        known = self._known.get(service)
        if known is None:  # the workers say what is wrong with it
            return await self._client.describe_service(service, reply_timeout=self._timeout)
        async with known.asking:
            if known.description is None or known.described_until <= time.monotonic():
                try:
                    known.description = await self._client.describe_service(service, reply_timeout=self._timeout)
                except SessionsError:
                    if known.description is None:
                        raise
                known.described_until = time.monotonic() + FRESH
            return known.description
