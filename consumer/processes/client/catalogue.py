"""Lists a server's tools, all pages of them, with limits for a server that never stops listing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Any
from weakref import WeakValueDictionary

import structlog

from consumer.processes.foreign_text import written_as_json
from consumer.processes.service import MAX_LISTING
from schemas.errors import McpError

MAX_PAGES = 200
MAX_TOOLS = 5000
MAX_BYTES = MAX_LISTING
"""The most bytes of one listing as JSON. Its objects take up to twelve times as much."""

MAX_KEPT = 4 * MAX_BYTES
"""The most bytes of all different listings of one service's servers. Equal listings are kept once."""

MAX_CURSOR = 4_096
MAX_TTL = 1e12
"""The longest lifetime of a list in milliseconds. Anything longer counts as unlimited."""

_OBJECTS = ("inputSchema", "outputSchema", "annotations", "_meta")

Page = Callable[[str | None], Awaitable[dict[str, Any]]]
"""Fetches one page of ``tools/list`` for a cursor."""

log = structlog.get_logger(__name__)


class _Kept(list[dict[str, Any]]):
    """Tools that several sessions share, and their size in bytes."""

    size = 0


_kept: dict[str, WeakValueDictionary[bytes, _Kept]] = {}


@dataclass(frozen=True, slots=True)
class Listing:
    """Tools as their server wrote them, and until when (on the event loop's clock) they are valid."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    until: float = inf
    shared: list[dict[str, Any]] = field(default_factory=list)
    """The shared list that ``tools`` belong to. It is kept as long as one session uses it."""

    @property
    def is_old(self) -> bool:
        """Whether the list's lifetime, as the server gave it, is over."""
        return self.until < inf and asyncio.get_running_loop().time() >= self.until


async def all_tools(page: Page, source: str = "") -> Listing:
    """Return the tools of all pages, up to a limit or a repeated cursor. Entries that are not tools are left out.

    Servers with the same ``source`` share a limit; beyond it this raises :class:`McpError`. The tools are valid for the
    shortest ``ttlMs`` of the pages (2026-07-28). Zero means no limit, because SDKs write it for servers that set
    nothing.
    """
    began = asyncio.get_running_loop().time()
    until = inf
    tools: dict[str, dict[str, Any]] = {}
    cursors: set[str] = set()
    cursor: str | None = None
    size = 0
    cut = True
    digest = blake2b(digest_size=16)
    for _ in range(MAX_PAGES):
        result = await page(cursor)
        found = result.get("tools")
        for tool in found if isinstance(found, list) else []:
            if isinstance(tool, dict) and isinstance(tool.get("name"), str) and size <= MAX_BYTES:
                written = written_as_json(tool).encode()
                size += len(written)
                if size <= MAX_BYTES and tool["name"] not in tools:
                    digest.update(written)
                    tools[tool["name"]] = _with_objects(tool)
        ttl_ms = result.get("ttlMs")
        if isinstance(ttl_ms, int | float) and 0 < ttl_ms <= MAX_TTL:
            until = min(until, began + ttl_ms / 1000)
        cursor = result.get("nextCursor")
        too_much = size > MAX_BYTES or len(tools) > MAX_TOOLS
        if not isinstance(cursor, str) and not too_much:
            cut = False
            break
        if too_much or not isinstance(cursor, str) or cursor in cursors or len(cursor) > MAX_CURSOR:
            break
        cursors.add(cursor)
    if cut:
        log.warning("tools.listing_cut", tools=len(tools), pages=len(cursors), bytes=size, cursor=cursor)
    shared = _share(source, digest.digest(), list(tools.values())[:MAX_TOOLS], min(size, MAX_BYTES))
    return Listing(shared, until, shared)


def _share(source: str, digest: bytes, tools: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Return the equal tools of another session, if there are any, or else these."""
    known = _kept.setdefault(source, WeakValueDictionary())
    found = known.get(digest)
    if found is None:
        in_all = sum(one.size for one in known.values())
        if in_all + size > MAX_KEPT:
            raise McpError(
                f"the different tool lists of its servers have {in_all + size} bytes; the limit is {MAX_KEPT}",
                code=-32603,
                data=None,
            )
        found = known[digest] = _Kept(tools)
        found.size = size
    return found


def _with_objects(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the tool with ``{}`` for each ``[]`` in place of an object, because PHP writes both alike."""
    mended: dict[str, Any] = {key: {} for key in _OBJECTS if tool.get(key) == []}
    for key in _OBJECTS[:2]:
        schema = tool.get(key)
        if isinstance(schema, dict) and schema.get("properties") == []:
            mended[key] = {**schema, "properties": {}}
    return {**tool, **mended} if mended else tool


class Catalogue:
    """The last list of tools of one session."""

    def __init__(self) -> None:
        self.listing = Listing()
        self.changed = False
        """Whether the server has announced a change since the last listing."""
        self._names: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._listings = 0

    @property
    def stale(self) -> bool:
        """Whether the tools may have changed, or are being listed again."""
        return self.changed or self._lock.locked() or self.listing.is_old

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def set(self, listing: Listing) -> None:
        """Set the list of tools."""
        self.listing, self._names = listing, frozenset(tool["name"] for tool in listing.tools)
        self._listings += 1

    async def renew(self, fetch: Callable[[], Awaitable[Listing]]) -> None:
        """List again; concurrent callers share the result."""
        seen = self._listings
        async with self._lock:
            if self._listings == seen:
                self.changed = False  # before the question: what changes from here on is news
                self.set(await fetch())
