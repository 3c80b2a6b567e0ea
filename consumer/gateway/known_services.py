"""The workers' latest answers about services: which exist, how each describes itself, and its tools.

A known answer is returned at once, and renewed in the background. A gateway asks for everything when it starts, so that
its clients need not wait for a server's process.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from consumer.client import SessionClient
from schemas.errors import SessionsError
from schemas.mcp import Tool
from schemas.replies import ServerDescription

FRESH: Final = 30.0
"""How long (s) an answer is used before it is renewed in the background."""

OLD: Final = 300.0
"""From which age (s) on an answer is renewed before it is used."""

RETRY: Final = 2.0
"""After how long (s) a starting gateway asks again if no worker answers."""

T = TypeVar("T")


class _Remembered(Generic[T]):
    """One answer of the workers."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._answer: T | None = None
        self._told_at = -OLD
        self._asking: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the last answer, or wait for the first one.

        Raises:
            SessionsError: there is no answer yet, and the workers give none.
        """
        age = time.monotonic() - self._told_at
        if age < FRESH and self._answer is not None:
            return self._answer
        if self._asking is None:
            self._asking = asyncio.create_task(self._renewed(), name="known-services")
            self._asking.add_done_callback(self._asked)
        if age < OLD and self._answer is not None:
            return self._answer
        return await asyncio.shield(self._asking)

    async def _renewed(self) -> T:
        try:
            self._answer = await self._ask()
        except SessionsError:
            if self._answer is None:
                raise
        self._told_at = time.monotonic()
        return self._answer

    def _asked(self, asking: "asyncio.Task[T]") -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # its waiters get the error

    def forget(self) -> None:
        """Stop asking the workers."""
        if self._asking is not None:
            self._asking.cancel()


@dataclass(frozen=True, slots=True)
class _Service:
    tools: _Remembered[list[Tool]]
    description: _Remembered[ServerDescription]


class KnownServices:
    """Remembers the enabled services, their descriptions and their tools. It grows only with the number of services."""

    def __init__(self, client: SessionClient, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._services = _Remembered(self._list)
        self._known: dict[str, _Service] = {}

    async def services(self) -> list[str]:
        """Return the names of the enabled services, in the order of the configuration.

        Raises:
            SessionsError: no worker answers, and there is no earlier answer.
        """
        return await self._services.get()

    async def tools(self, service: str) -> list[Tool]:
        """Return the tools of a service.

        Raises:
            SessionsError: there is no such service, or its server does not start.
        """
        await self.services()
        known = self._known.get(service)
        # Of one that is not known the workers say what is wrong with it.
        return await (known.tools.get() if known is not None else self._tools(service))

    async def description(self, service: str) -> ServerDescription:
        """Return how the server of a service describes itself.

        Raises:
            SessionsError: there is no such service, or its server does not start.
        """
        await self.services()
        known = self._known.get(service)
        return await (known.description.get() if known is not None else self._description(service))

    async def learn(self) -> None:
        """Fetch the services, their tools and descriptions, as soon as a worker answers."""
        while True:
            try:
                services = await self.services()
                break
            except SessionsError:
                await asyncio.sleep(RETRY)
        for service in services:
            with contextlib.suppress(SessionsError):
                await self.description(service)
                await self.tools(service)

    def close(self) -> None:
        """Stop asking the workers."""
        self._services.forget()
        for known in self._known.values():
            known.tools.forget()
            known.description.forget()

    async def _list(self) -> list[str]:
        found = (await self._client.list_services(reply_timeout=self._timeout)).services
        enabled = [name for name, service in found.items() if service.enabled]
        self._known = {name: self._known.get(name) or self._service(name) for name in enabled}
        return enabled

    def _service(self, name: str) -> _Service:
        return _Service(_Remembered(partial(self._tools, name)), _Remembered(partial(self._description, name)))

    async def _tools(self, service: str) -> list[Tool]:
        return (await self._client.service_tools(service, reply_timeout=self._timeout)).tools

    async def _description(self, service: str) -> ServerDescription:
        return await self._client.describe_service(service, reply_timeout=self._timeout)
