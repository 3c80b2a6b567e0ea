"""Limits how many requests run at once, and how often one address may send requests."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from limits import RateLimitItem, parse_many
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.storage import storage_from_string

from consumer.gateway.problems import Refused
from consumer.settings.gateway_settings import RateLimits

Limited = Literal["default", "tools", "call", "session_delete"]


class RequestsInFlight:
    """Counts running requests, and refuses those beyond the limit, and all new ones during the shutdown."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0
        self.leaving = False
        self._none = asyncio.Event()
        self._none.set()

    async def none_left(self) -> None:
        """Wait until no request is in flight."""
        await self._none.wait()

    @contextmanager
    def one(self) -> Iterator[Callable[[], None]]:
        """Count a request within this block. The yielded function ends this earlier, for streams that only listen.

        Raises:
            Refused: 503, the limit is reached, or the gateway shuts down.
        """
        if self.leaving:
            raise Refused(503, "this gateway is shutting down; use another one", headers={"Connection": "close"})
        if self.count >= self._most:
            raise Refused(503, f"the gateway already handles {self._most} requests (gateway.max_in_flight); try again")
        self.count += 1
        self._none.clear()
        counted = True

        def release() -> None:
            nonlocal counted
            if counted:
                counted = False
                self.count -= 1
                if not self.count:
                    self._none.set()

        try:
            yield release
        finally:
            release()


class Rates:
    """Counts requests by route and address, in fixed windows, as SignalWire's gateway does."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits: dict[Limited, list[RateLimitItem]] = {}
        if not limits.any:
            return
        storage = storage_from_string(f"async+{limits.storage_uri.removeprefix('async+')}")
        assert isinstance(storage, Storage)
        self._counter = FixedWindowRateLimiter(storage)
        own: dict[Limited, tuple[str, ...]] = {
            "default": limits.default,
            "tools": limits.tools,
            "call": limits.call,
            "session_delete": limits.session_delete,
        }
        for name, texts in own.items():
            self._limits[name] = [item for text in texts or limits.default for item in parse_many(text)]

    def __bool__(self) -> bool:
        """Return whether there is any limit."""
        return bool(self._limits)

    async def count(self, limited: Limited, route: str, address: str) -> None:
        """Count a request of an address to a route. Each route has a count of its own, as with Flask-Limiter.

        Raises:
            Refused: 429, the address has reached its limit.
        """
        for item in self._limits.get(limited, ()):
            if not await self._counter.hit(item, route, address):
                raise Refused(429, f"too many requests: {item}", headers={"Retry-After": str(item.get_expiry())})
