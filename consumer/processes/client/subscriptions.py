"""The subscriptions of a session to changes at its server, in both eras.

Up to 2025-11-25 each resource is subscribed to, and lists that change are announced to everybody. From 2026-07-28 on
one request, ``subscriptions/listen``, stays open and names all that is wanted; it is sent anew when that changes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from mcp_types import SubscriptionsAcknowledgedNotification

from consumer.observability.reasons import reason_of
from consumer.processes.client.era import Era
from schemas.errors import InvalidMessage, McpError, ToolTimeout

MAX_SUBSCRIPTIONS = 256
"""The most resources that one session can subscribe to."""

STOP_TIMEOUT = 2.0
"""How long (s) telling the server to end a listening request may take."""

_LISTS = {"toolsListChanged": True, "resourcesListChanged": True, "promptsListChanged": True}

Send = Callable[[str, dict[str, Any], float | None], Coroutine[Any, Any, dict[str, Any]]]
"""Sends a request with a time limit (s)."""

log = structlog.get_logger(__name__)


class Subscriptions:
    """The subscriptions of one session."""

    def __init__(self) -> None:
        self._uris: dict[str, None] = {}
        self._lock = asyncio.Lock()
        self._listening: asyncio.Task[dict[str, Any]] | None = None
        self._acknowledged: asyncio.Future[dict[str, Any]] | None = None

    async def add(self, uri: str | None, era: Era, send: Send, timeout: float) -> None:
        """Subscribe to a resource, and from 2026-07-28 on also to changes of lists; without ``uri`` only to these.

        Raises:
            InvalidMessage: the session has reached its limit of subscriptions.
            McpError: the server refuses.
        """
        async with self._lock:
            if uri is not None and uri not in self._uris and len(self._uris) >= MAX_SUBSCRIPTIONS:
                told = f"resources.subscribe: the session has {MAX_SUBSCRIPTIONS} subscriptions, which is the limit"
                raise InvalidMessage(told, limit=MAX_SUBSCRIPTIONS)
            if era is Era.HANDSHAKE:
                if uri is not None:
                    await send("resources/subscribe", {"uri": uri}, timeout)
                    self._uris[uri] = None
                return
            known = uri is None or uri in self._uris
            if known and self._listening is not None and not self._listening.done():
                return
            wanted = [*self._uris, *([] if uri is None or known else [uri])]
            honoured = await self._listen(wanted, send, timeout)
            if uri is not None and uri not in (honoured.get("resourceSubscriptions") or ()):
                raise McpError(f"the server does not report changes of {uri[:200]}", code=-32602, data=None)
            self._uris = dict.fromkeys(wanted)

    async def remove(self, uri: str, era: Era, send: Send, timeout: float) -> None:
        """End the subscription to a resource."""
        async with self._lock:
            if era is Era.HANDSHAKE:
                await send("resources/unsubscribe", {"uri": uri}, timeout)
                self._uris.pop(uri, None)
            elif self._uris.pop(uri, uri) is None:
                await self._listen(list(self._uris), send, timeout)

    def hear(self, message: SubscriptionsAcknowledgedNotification) -> None:
        """Take the server's acknowledgement of a subscription."""
        if self._acknowledged is not None and not self._acknowledged.done():
            told = message.params.notifications
            self._acknowledged.set_result(told.model_dump(by_alias=True, mode="json", exclude_none=True))

    async def _listen(self, uris: list[str], send: Send, timeout: float) -> dict[str, Any]:
        """Replace the listening request. Return which changes the server agrees to report."""
        before = self._listening
        self._acknowledged = asyncio.get_running_loop().create_future()
        wanted = {"notifications": {**_LISTS, "resourceSubscriptions": uris}}
        listening = asyncio.ensure_future(send("subscriptions/listen", wanted, None))
        listening.add_done_callback(_over)
        try:
            await asyncio.wait({listening, self._acknowledged}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            listening.cancel()
            raise
        if self._acknowledged.done():
            self._listening = listening
            if before is not None:
                before.cancel()  # only now: between the two nothing is missed
                await asyncio.wait({before}, timeout=STOP_TIMEOUT)
            return self._acknowledged.result()
        if listening.done():
            listening.result()
            raise McpError("the server ended subscriptions/listen immediately", code=-32603, data=None)
        listening.cancel()
        raise ToolTimeout(f"subscriptions/listen was not acknowledged within {timeout:g} s", timeout=timeout)


def _over(listening: "asyncio.Task[dict[str, Any]]") -> None:
    error = None if listening.cancelled() else listening.exception()
    if error is not None:
        log.info("subscriptions.over", error=reason_of(error))
