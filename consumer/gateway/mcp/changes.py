"""Passes changes of sessions to the listeners of this gateway, with one queue of events for all of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Protocol

from consumer.client import SessionClient
from consumer.concurrency.task_set import Tasks
from schemas.errors import SessionsError
from schemas.events import CloudEvent
from schemas.ids import CallId

TOLD: Final = "session.#"
"""The events that are followed while there is a listener."""


class Listener(Protocol):
    """A listener to the changes of one call's session on one service."""

    def hear(self, event: CloudEvent) -> None:
        """Take an event, in the order of arrival. Must not block."""

    def end(self) -> None:
        """End the stream, because this gateway shuts down or cannot follow events any more."""


class SessionChanges:
    """Follows the events of sessions while there are listeners, and passes each to those that it concerns."""

    def __init__(self, client: SessionClient) -> None:
        self._client = client
        self._listeners: dict[tuple[CallId, str], set[Listener]] = {}
        self._tasks = Tasks()
        self._following: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None

    @property
    def listeners(self) -> int:
        """The number of listeners."""
        return sum(map(len, self._listeners.values()))

    @contextlib.asynccontextmanager
    async def heard(self, call_id: CallId, service: str, listener: Listener) -> AsyncIterator[None]:
        """Pass the events of a call's session on a service to a listener, within this block.

        Raises:
            SessionsError: events cannot be followed on the broker.
        """
        key = call_id, service
        self._listeners.setdefault(key, set()).add(listener)
        try:
            await self._followed()
            yield
        finally:
            listening = self._listeners[key]
            listening.discard(listener)
            if not listening:
                del self._listeners[key]
            if not self._listeners and self._following is not None:
                self._following.cancel()
                self._following = None

    async def _followed(self) -> None:
        if self._following is None:
            self._begun = asyncio.get_running_loop().create_future()
            self._following = self._tasks.start(self._follow(self._begun), "mcp-changes")
        assert self._begun is not None
        await asyncio.shield(self._begun)

    async def _follow(self, begun: asyncio.Future[None]) -> None:
        try:
            async with self._client.following(TOLD) as events:
                begun.set_result(None)
                while True:
                    self._tell(await events.get())
        except SessionsError as error:
            self._following = None
            if not begun.done():
                begun.set_exception(error)
            self._end_all()

    def _tell(self, event: CloudEvent) -> None:
        call_id, service = CallId(str(event.data.get("call_id"))), str(event.data.get("service_name"))
        for listener in tuple(self._listeners.get((call_id, service), ())):
            listener.hear(event)

    def _end_all(self) -> None:
        for listening in self._listeners.values():
            for listener in listening:
                listener.end()

    def close(self) -> None:
        """End every listener's stream, so that its client connects to another gateway."""
        self._end_all()
