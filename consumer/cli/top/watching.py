"""Asks the workers and follows their events, at a rate that is no load for them. Updates ``Known``.

A round of questions is asked at most once in ``interval`` seconds, and rounds never take more than a fifth of the time:
if listing thousands of sessions takes long, it is done less often. In between, events keep the picture up to date. A
single long round does not count, because it may be a short standstill, such as a stopped broker. A round that failed
has listed nothing, however long it took: the next one follows after ``interval``.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from consumer.cli.top.known import NOBODY, NOTHING, ClusterListing, Interruption, Known
from schemas.base import Json
from schemas.errors import Disconnected, Forbidden, NoReply, NotRouted, NotRoutedReason, SessionsError, UnknownType
from schemas.requests import SessionsList, WorkersFigures, WorkersList

if TYPE_CHECKING:
    from consumer.client import SessionClient
    from schemas.events import CloudEvent

PAGE = 1000
MOST = 5000
"""How many sessions are fetched at most: more than a user reads, and enough for a filter to find some."""

REPLY_TIMEOUT = 3.0
"""How long (s) the workers may take to answer, and the broker to count the dead letters."""

RETRY = 1.0
"""After how long (s) to try again to follow events, if no worker had declared their exchange."""

SHARE = 5
"""The largest share of the time that rounds may take."""


def pause_after(took: float, before: float, interval: float) -> float:
    """Return how long (s) to wait after a round of ``took`` seconds that followed one of ``before`` seconds."""
    return max(interval, SHARE * min(took, before))


class Watcher:
    """Watches a cluster through a client, for a screen."""

    def __init__(self, client: "SessionClient", known: Known, changed: Callable[[], None]) -> None:
        self._client = client
        self.known = known
        self._changed = changed
        self._since: list[CloudEvent] = []
        self._wanted = asyncio.Event()
        self._tells_figures = True
        self._held: list[CloudEvent | Interruption] | None = None
        self._lost_at = 0.0

    @property
    def held(self) -> bool:
        """Whether updates are paused; see ``hold``."""
        return self._held is not None

    def hold(self) -> None:
        """Pause updates. ``go_on`` applies what happens meanwhile."""
        self._held = []

    def go_on(self) -> None:
        """Resume updates, and ask the workers at once."""
        held, self._held = self._held or [], None
        for event in held:
            self.known.happened(event, _ticks())
        self.ask()

    def ask(self) -> None:
        """Ask the workers now."""
        self._wanted.set()

    async def fetch(self) -> ClusterListing:
        """Send one round of requests to the workers.

        Raises:
            SessionsError: the workers or the broker did not answer.
        """
        workers, (sessions, missing, more), figures, dead_letters = await asyncio.gather(
            self._request(WorkersList.type, {}), self._sessions(), self._figures(), self._dead_letters()
        )
        return ClusterListing(workers["workers"], sessions, missing, more, figures, dead_letters)

    async def _request(self, message_type: str, body: Json) -> Json:
        return await self._client.request(message_type, body, reply_timeout=REPLY_TIMEOUT)

    async def _sessions(self) -> tuple[Json, list[str], bool]:
        sessions: Json = {}
        missing: set[str] = set()
        cursor = None
        while len(sessions) < MOST:
            page = await self._request(SessionsList.type, {"limit": PAGE, "cursor": cursor})
            sessions |= page["sessions"]
            missing |= set(page["missing_workers"])
            if (cursor := page.get("next_cursor")) is None:
                break
        return sessions, sorted(missing), cursor is not None

    async def _figures(self) -> list[Json] | None:
        """Return what the workers did; None if one does not know the request. It is then not asked again."""
        if not self._tells_figures:
            return None
        try:
            return list((await self._request(WorkersFigures.type, {}))["workers"])
        except UnknownType:
            self._tells_figures = False
            return None

    async def _dead_letters(self) -> int | None:
        # Who may not look there, or gets no answer, sees the rest.
        with contextlib.suppress(Disconnected, Forbidden, NotRouted, TimeoutError):
            async with asyncio.timeout(REPLY_TIMEOUT):
                return await self._client.count_dead_letters()
        return None

    async def watch(self, interval: float) -> None:
        """Ask the workers repeatedly, until cancelled."""
        took = 0.0
        while True:
            self._wanted.clear()
            before, took = took, 0.0 if self.held else await self._round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_after(took, before, interval)):
                    await self._wanted.wait()

    async def _round(self) -> float:
        """Ask once. Return how long (s) the workers took to list their sessions, or 0 if they did not."""
        began, took = _ticks(), 0.0
        self._since = []
        try:
            listing = await self.fetch()
        except NotRouted as error:
            undeclared = error.details["reason"] == NotRoutedReason.NOT_DECLARED
            self.known.problem = NOTHING if undeclared else NOBODY
        except NoReply:
            self.known.problem = NOBODY
        except SessionsError as error:
            self.known.problem = str(error)
        else:
            took = _ticks() - began
            if not self.held:
                self.known.listed(listing, _ticks(), self._since)
        self._changed()
        return took

    async def follow(self, retry: float = RETRY) -> None:
        """Follow the events until cancelled. If their exchange is not declared, try again every ``retry`` seconds."""
        while True:
            with contextlib.suppress(NotRouted, Disconnected):
                await self._follow()
            await asyncio.sleep(retry)

    async def _follow(self) -> None:
        async with self._client.following("#", on_connection=self._connection) as events:
            while True:
                event = await events.get()
                self._since.append(event)
                self._happened(event)

    def _connection(self, connected: bool) -> None:
        if connected:
            self._happened(Interruption(datetime.now(UTC), _ticks() - self._lost_at))
        else:
            self._lost_at = _ticks()

    def _happened(self, event: "CloudEvent | Interruption") -> None:
        if self._held is None:
            self.known.happened(event, _ticks())
            self._changed()
        else:
            self._held.append(event)

    def look(self) -> None:
        """Note the state of the connection, and ask at once when it is back."""
        before, self.known.connected = self.known.connected, self._client.connected
        if self.known.connected and not before:
            self.ask()

    async def close(self, session_id: str) -> str:
        """Close a session. Return the result as a sentence."""
        try:
            result = await self._client.close(session_id)
        except SessionsError as error:
            return f"Not closed: {error}"
        self.ask()
        return f"Closed: {', '.join(result.sessions)}" if result.closed else f"{session_id} was closed already."


def _ticks() -> float:
    return asyncio.get_running_loop().time()
