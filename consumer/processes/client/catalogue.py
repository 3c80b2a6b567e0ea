"""What a server offers: its tools, all pages of them, with bounds on a server that never stops listing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import structlog

MAX_PAGES = 200
MAX_TOOLS = 5000
MAX_TTL = 1e12
"""Milliseconds; more is for ever."""

_OBJECTS = ("inputSchema", "outputSchema", "annotations", "_meta")

Page = Callable[[str | None], Awaitable[dict[str, Any]]]
"""Fetches one page of ``tools/list`` for a cursor."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """Tools as their server wrote them, and until when (on the event loop's clock) it says that they hold."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    until: float = inf

    @property
    def is_old(self) -> bool:
        """Whether the time is over for which the server said that they hold."""
        return self.until < inf and asyncio.get_running_loop().time() >= self.until


async def all_tools(page: Page) -> Listing:
    """The tools of all pages; what is no tool is left out, and so is what comes after a bound or a repeated cursor.

    They hold for the shortest ``ttlMs`` of the pages (2026-07-28). A zero is no bound: it is what the SDKs write for
    servers that have said nothing.
    """
    began = asyncio.get_running_loop().time()
    until = inf
    tools: dict[str, dict[str, Any]] = {}
    cursors: set[str] = set()
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        result = await page(cursor)
        found = result.get("tools")
        for tool in found if isinstance(found, list) else []:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                tools.setdefault(tool["name"], _with_objects(tool))
        ttl_ms = result.get("ttlMs")
        if isinstance(ttl_ms, int | float) and 0 < ttl_ms <= MAX_TTL:
            until = min(until, began + ttl_ms / 1000)
        cursor = result.get("nextCursor")
        if not isinstance(cursor, str):
            return Listing(list(tools.values()), until)
        if cursor in cursors or len(tools) > MAX_TOOLS:
            break
        cursors.add(cursor)
    log.warning("tools.listing_cut", tools=len(tools), pages=len(cursors), cursor=cursor)
    return Listing(list(tools.values())[:MAX_TOOLS], until)


def _with_objects(tool: dict[str, Any]) -> dict[str, Any]:
    """The tool, with ``{}`` for each ``[]`` in the place of an object: PHP writes both alike."""
    mended: dict[str, Any] = {key: {} for key in _OBJECTS if tool.get(key) == []}
    for key in _OBJECTS[:2]:
        schema = tool.get(key)
        if isinstance(schema, dict) and schema.get("properties") == []:
            mended[key] = {**schema, "properties": {}}
    return {**tool, **mended} if mended else tool


class Catalogue:
    """The tools of one session as they were listed last."""

    def __init__(self) -> None:
        self.listing = Listing()
        self.changed = False
        """Whether the server has announced a change that is not listed yet."""
        self._names: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._listings = 0

    @property
    def stale(self) -> bool:
        """Whether the tools may be others by now, or are being listed again."""
        return self.changed or self._lock.locked() or self.listing.is_old

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def set(self, listing: Listing) -> None:
        """Note a listing."""
        self.listing, self._names = listing, frozenset(tool["name"] for tool in listing.tools)
        self._listings += 1

    async def renew(self, fetch: Callable[[], Awaitable[Listing]]) -> None:
        """List again; whoever comes while that goes on shares its result."""
        seen = self._listings
        async with self._lock:
            if self._listings == seen:
                self.changed = False  # before the question: what changes from here on is news
                self.set(await fetch())
