"""What a server offers: its tools, all pages of them, with bounds on a server that never stops listing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

MAX_PAGES = 200
MAX_TOOLS = 5000

Page = Callable[[str | None], Awaitable[dict[str, Any]]]
"""Fetches one page of ``tools/list`` for a cursor."""

log = structlog.get_logger(__name__)


async def all_tools(page: Page) -> list[dict[str, Any]]:
    """The tools of all pages; what is no tool is left out, and so is what comes after a bound or a repeated cursor."""
    tools: dict[str, dict[str, Any]] = {}
    cursors: set[str] = set()
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        result = await page(cursor)
        found = result.get("tools")
        for tool in found if isinstance(found, list) else []:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                tools.setdefault(tool["name"], tool)
        cursor = result.get("nextCursor")
        if not isinstance(cursor, str):
            return list(tools.values())
        if cursor in cursors or len(tools) > MAX_TOOLS:
            break
        cursors.add(cursor)
    log.warning("tools.listing_cut", tools=len(tools), pages=len(cursors), cursor=cursor)
    return list(tools.values())[:MAX_TOOLS]


class Catalogue:
    """The tools of one session as they were listed last."""

    def __init__(self) -> None:
        self.tools: list[dict[str, Any]] = []
        self._stale = False
        self._names: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._listings = 0

    @property
    def stale(self) -> bool:
        """Whether the server has announced a change that is not listed yet."""
        return self._stale or self._lock.locked()

    def note_change(self) -> None:
        """The server has announced a change."""
        self._stale = True

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def set(self, tools: list[dict[str, Any]]) -> None:
        """Note a listing."""
        self.tools, self._names = tools, frozenset(tool["name"] for tool in tools)
        self._listings += 1

    async def renew(self, fetch: Callable[[], Awaitable[list[dict[str, Any]]]]) -> None:
        """List again; whoever comes while that goes on shares its result."""
        seen = self._listings
        async with self._lock:
            if self._listings == seen:
                self._stale = False  # before the question: what changes from here on is news
                self.set(await fetch())
