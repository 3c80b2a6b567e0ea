"""Publishes notifications of MCP servers as events: a resource or a list has changed.

A server decides how often it notifies. The first change of a session is published at once. Changes within the next
second are published together, each one once.
"""

import asyncio
from functools import partial

import structlog

from consumer.calls.context import ToolProcess
from consumer.calls.events import Reporter
from consumer.sessions import Session
from schemas.events import SessionEventType

PACE = 1.0
"""Seconds between two reports of one session's changes."""

MAX_NEWS = 256
"""The most different changes of one session in one report; more are dropped."""

MAX_NAME = 8_192
"""The most characters of the name of what changed. A change with a longer name is not published."""

log = structlog.get_logger(__name__)


class News:
    """Publishes the notifications of the servers of sessions."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._waiting: dict[Session[ToolProcess], dict[tuple[SessionEventType, str], None]] = {}

    def follow(self, session: Session[ToolProcess]) -> None:
        """Publish the notifications of a session's server from now on."""
        session.process.on_news(partial(self._heard, session))

    def _heard(self, session: Session[ToolProcess], what: str, which: str) -> None:
        if session.has_ended or len(which) > MAX_NAME:
            return
        waiting = self._waiting.get(session)
        if waiting is None:
            self._waiting[session] = {}
            asyncio.get_running_loop().call_later(PACE, self._tell, session)
            self._reporter.changed(session, SessionEventType(what), which)
        elif len(waiting) < MAX_NEWS:
            waiting[SessionEventType(what), which] = None

    def _tell(self, session: Session[ToolProcess]) -> None:
        waiting = self._waiting.pop(session)
        if not waiting or session.has_ended:
            return
        if len(waiting) >= MAX_NEWS:
            log.warning("session.news_dropped", session_id=session.session_id, limit=MAX_NEWS)
        self._waiting[session] = {}
        asyncio.get_running_loop().call_later(PACE, self._tell, session)
        for what, which in waiting:
            self._reporter.changed(session, what, which)
