"""The workers' latest answers about services: which exist, how each describes itself, and its tools.

A known answer is returned at once, and renewed in the background. A gateway asks for everything when it starts, so that
its clients need not wait for a server's process.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from consumer.client import SessionClient
from schemas.errors import ClientError, NoReply, SessionsError
from schemas.mcp import Tool
from schemas.replies import ServerDescription

FRESH: Final = 30.0
"""How long (s) an answer is used before it is renewed in the background."""

OLD: Final = 300.0
"""From which age (s) on an answer is renewed before it is used."""

ANSWER_TIMEOUT: Final = 5.0
"""How long (s) to wait for each service when several are asked at once."""

RETRY: Final = 2.0
"""After how long (s) a starting gateway asks again if no worker answers."""

T = TypeVar("T")


class _Remembered(Generic[T]):
    """One answer of the workers, or why they give none."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._answer: T | None = None
        self._error: SessionsError | None = None
        self._told_at = -OLD
        self._asked_at = -OLD
        self._asking: asyncio.Task[T] | None = None

    def known(self) -> T | None:
        """Return the last answer without waiting. An older one is asked for again."""
        age = time.monotonic() - self._told_at
        if age >= FRESH:
            self._renewal()
        return self._answer if age < OLD else None

    async def get(self) -> T:
        """Return the last answer, or wait for the first one.

        Raises:
            SessionsError: there is no answer yet, and the workers give none.
        """
        known = self.known()
        return known if known is not None else await asyncio.shield(self._renewal())

    async def soon(self) -> T | SessionsError:
        """Return the last answer, or the error if there is none.

        It waits until ``ANSWER_TIMEOUT`` after the workers were asked. If they had no answer the last time, it does not
        wait.
        """
        known = self.known()
        if known is not None:
            return known
        if self._error is not None:
            return self._error
        asking = self._renewal()
        await asyncio.wait([asking], timeout=max(self._asked_at + ANSWER_TIMEOUT - time.monotonic(), 0))
        if self._answer is not None:
            return self._answer
        failure = asking.exception() if asking.done() and not asking.cancelled() else None
        late = NoReply(f"its server has not answered within {ANSWER_TIMEOUT:g} s")
        return failure if isinstance(failure, SessionsError) else late

    def _renewal(self) -> "asyncio.Task[T]":
        if self._asking is None:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._renewed(), name="known-services")
            self._asking.add_done_callback(self._asked)
        return self._asking

    async def _renewed(self) -> T:
        try:
            self._answer = await self._ask()
            self._error = None
        except SessionsError as error:
            if self._answer is None:
                if not (isinstance(error, ClientError) and error.executed is False):  # no worker was asked
                    self._told_at, self._error = time.monotonic(), error
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

    def known_tools(self, service: str) -> list[Tool]:
        """Return the tools of a service as far as they are known, without waiting."""
        known = self._known.get(service)
        return (known.tools.known() if known is not None else None) or []

    async def tools_of(self, services: Iterable[str]) -> dict[str, list[Tool] | SessionsError]:
        """Return the tools of each service, or why they cannot be listed.

        All services are asked at the same time. One that does not answer has ``ANSWER_TIMEOUT`` seconds, once.

        Raises:
            SessionsError: it is not known which services there are.
        """
        await self.services()
        asked = [name for name in services if name in self._known]
        answers = await asyncio.gather(*(self._known[name].tools.soon() for name in asked))
        return dict(zip(asked, answers, strict=True))

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
        await asyncio.gather(*(self._learn_of(service) for service in services))

    async def _learn_of(self, service: str) -> None:
        with contextlib.suppress(SessionsError):
            await self.description(service)
        with contextlib.suppress(SessionsError):
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
