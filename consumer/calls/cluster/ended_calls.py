"""Remembers which calls have ended, and which sessions were closed, on every worker: nobody must open them again.

A start or a recipe may arrive after the end: from a dead worker's inbox, or from a former placer. For a short time the
tombstone bars every start, even one that was sent after the end. A start that was sent before the end is barred much
longer, because a dead letter may take minutes to arrive (see ``consumer.broker.topology``). A session that was closed
by command comes back from no recipe, and from no worker that was cut off meanwhile.
"""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from pydantic import ValidationError

from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names
from consumer.calls.cluster.shared_changes import Change, SharedChanges
from schemas.ids import CallId, SessionId, WorkerId, call_id_of
from schemas.internal import ClosedSessions, EndedCalls

log = structlog.get_logger(__name__)

REMEMBER = 600.0
"""How long (s) an end is remembered: longer than a restarting broker may delay a dead letter."""


CLOCKS = 5.0
"""By how much (s) the clocks of two workers may differ. An end that seems to be older than a request may be newer."""


class OpenedBy(NamedTuple):
    """The message that the sessions of a call go back to."""

    sent: datetime | None
    """When it was sent; None if it is not known."""
    commanded: bool = False
    """Whether it was an explicit request, which opens a call that has ended. No tombstone bars it."""


class Endings:
    """The last change of each call: its end, with a tombstone for ``tombstone`` seconds, or its opening again.

    And which sessions were closed by command. The latest change counts. The clocks of all workers have to agree within
    ``CLOCKS`` seconds, as they do with NTP.
    """

    def __init__(self, worker_id: WorkerId, names: Names, publisher: Publisher, tombstone: float) -> None:
        self._worker_id = worker_id
        self._tombstone = tombstone
        remember = max(REMEMBER, tombstone)
        self._calls = SharedChanges(names, publisher, remember, self._ended_calls)
        self._sessions = SharedChanges(names, publisher, remember, self._closed_sessions)

    def __contains__(self, call_id: CallId) -> bool:
        """Whether the call has a tombstone."""
        return self.bar(call_id, sent=None)

    def ended_at(self, call_id: str) -> float | None:
        """Return when the call has ended; None if it has not, or was opened again, or if it is not known any more."""
        known = self._calls.get(call_id)
        return None if known is None or known.lifted else known.at

    def bar(self, call_id: CallId, sent: datetime | None) -> bool:
        """Return whether a message sent at ``sent`` must not open the call: it has a tombstone, or ended later."""
        ended_at = self.ended_at(call_id)
        if ended_at is None:
            return False
        return time.time() < ended_at + self._tombstone or self.came_behind(call_id, sent)

    def came_behind(self, call_id: CallId, sent: datetime | None) -> bool:
        """Return whether the call has ended after the message was sent at ``sent``."""
        ended_at = self.ended_at(call_id)
        return ended_at is not None and sent is not None and sent.timestamp() <= ended_at

    def bars_start(self, call_id: CallId, sent: datetime | None) -> bool:
        """Return whether a start that was sent at ``sent`` opens nothing: it is barred now, or was when it was sent."""
        ended_at = self.ended_at(call_id)
        in_time = ended_at is not None and sent is not None and sent.timestamp() <= ended_at + self._tombstone
        return in_time or self.bar(call_id, sent)

    def ends(self, call_id: CallId, opened: OpenedBy) -> bool:
        """Return whether sessions that go back to ``opened`` must end, because their call has ended."""
        if opened.commanded:
            assert opened.sent is not None, "whoever opens it for a request knows when"
            return self.came_behind(call_id, opened.sent - timedelta(seconds=CLOCKS))
        return self.bars_start(call_id, opened.sent)

    def note(self, call_id: CallId) -> None:
        """Remember that a call has ended, and tell all workers."""
        self._change(call_id, lifted=False)

    def lift(self, call_id: CallId) -> None:
        """Forget that a call has ended, because an explicit request opens it again."""
        if self.ended_at(call_id) is not None:
            self._change(call_id, lifted=True)

    def _change(self, call_id: CallId, *, lifted: bool) -> None:
        self._calls.note(call_id, Change(self._calls.after_the_last(call_id, time.time()), lifted))

    def note_closed(self, session_id: str, created: Iterable[datetime]) -> None:
        """Remember that a session was closed by command, or all of a call under the call's id, and tell all workers.

        ``created`` says when the sessions were created that this has closed. What was created later is another session.
        So is what was created less than ``CLOCKS`` ago, maybe on a worker whose clock is behind ours.
        """
        at = max([time.time() - CLOCKS, *(one.timestamp() for one in created)])
        self._sessions.note(session_id, Change(self._sessions.after_the_last(session_id, at), lifted=False))

    def was_closed(self, session_id: SessionId, created: datetime) -> bool:
        """Return whether the session that was created at ``created`` has been closed by command since."""
        known = (self._sessions.get(one) for one in (session_id, call_id_of(session_id)))
        return any(closed is not None and created.timestamp() <= closed.at for closed in known)

    def hear(self, delivery: Delivery) -> set[CallId]:
        """Take ended calls, or closed sessions, from another worker. Return the calls of which sessions were closed."""
        model = ClosedSessions if delivery.type == ClosedSessions.type else EndedCalls
        try:
            message = model.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version
            log.warning("endings.unreadable", error=str(error))
            return set()
        if message.worker_id == self._worker_id:
            return set()
        if isinstance(message, ClosedSessions):
            self._sessions.hear((one, Change(at, lifted=False)) for one, at in message.closed.items())
            return {call_id_of(one) for one in message.closed}
        lifted = set(message.lifted)
        told = {call_id: Change(at, call_id in lifted) for call_id, at in message.ended.items()}
        # An older worker does not say when it has opened a call again.
        for call_id in lifted - told.keys():
            told[call_id] = Change(self._calls.after_the_last(call_id, time.time()), lifted=True)
        self._calls.hear(told.items())
        return set()

    def tell_again(self) -> None:
        """Send everything again, because a worker that started while this one was away may know nothing of it."""
        self._calls.tell_again()
        self._sessions.tell_again()

    def tell_newcomer(self, queue: str) -> None:
        """Send everything to a worker that has a new link, to its ``queue``."""
        self._calls.tell_newcomer(queue)
        self._sessions.tell_newcomer(queue)

    def _ended_calls(self, told: dict[str, Change]) -> Message:
        message = EndedCalls(
            worker_id=self._worker_id,
            ended={CallId(call_id): change.at for call_id, change in told.items()},
            lifted=[CallId(call_id) for call_id, change in told.items() if change.lifted],
        )
        return Message(body=message.model_dump_json().encode(), type=EndedCalls.type, persistent=False)

    def _closed_sessions(self, told: dict[str, Change]) -> Message:
        closed = {SessionId(session_id): change.at for session_id, change in told.items()}
        message = ClosedSessions(worker_id=self._worker_id, closed=closed)
        return Message(body=message.model_dump_json().encode(), type=ClosedSessions.type, persistent=False)

    async def stop(self) -> None:
        """Stop sending ends."""
        await self._calls.stop()
        await self._sessions.stop()
