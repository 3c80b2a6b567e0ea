"""Records what happens to the calls of the demo."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from consumer.demo.script import Part
from schemas.events import TERMINAL, CloudEvent
from schemas.sessions import SessionInfo

TERMINAL_TYPES = frozenset(f"mcp.session.{what.value}" for what in TERMINAL)
CREATED = "mcp.session.created"
REJECTED = "mcp.session.rejected"


class DemoFailed(Exception):
    """A check failed; the message is a sentence about it."""


@dataclass(slots=True)
class PlayedCall:
    """The state of one call. Times are of the monotonic clock."""

    part: Part
    call_id: str
    published: float | None = None
    opened: float | None = None
    worker_id: str = ""
    todos: int = 0
    listed: SessionInfo | None = None
    """Its session in the workers' latest list; None if it was not there."""
    ended: str = ""
    """The type of its session's terminal event."""
    reason: str = ""

    @property
    def state(self) -> str:
        """The state in one word."""
        if self.ended:
            return self.ended
        if self.opened is not None:
            return "open"
        return "waiting" if self.published is None else "starting"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call, and how long (s) its caller waited for the answer."""

    call_id: str
    tool: str
    took: float
    over_http: bool
    """Whether it was a SWAIG function that the gateway ran."""


@dataclass(slots=True)
class Watch:
    """The records of one run."""

    calls: dict[str, PlayedCall] = field(default_factory=dict)
    events: list[CloudEvent] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    webhooks: int = 0
    """The number of call events that the HTTP gateway has taken."""
    _failure: DemoFailed | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: CloudEvent) -> None:
        """Take an event."""
        self.events.append(event)
        call = self.calls.get(str(event.data.get("call_id")))
        if call is not None and event.type == CREATED:
            call.opened = call.opened or time.monotonic()
            call.worker_id = str(event.data["worker_id"])
        elif call is not None and event.type in TERMINAL_TYPES:
            call.ended, call.reason = event.type.rpartition(".")[2], str(event.data.get("reason"))
        elif call is not None and event.type == REJECTED:
            self.fail(DemoFailed(f"the {call.part.platform} call got no session: {event.data.get('message')}"))
        self._changed.set()

    def note_listing(self, sessions: Mapping[str, SessionInfo]) -> None:
        """Take the sessions that the workers list."""
        for call_id, call in self.calls.items():
            call.listed = sessions.get(call_id)
        self._changed.set()

    def fail(self, failure: DemoFailed) -> None:
        """End every wait with a failure. The first one counts."""
        self._failure = self._failure or failure
        self._changed.set()

    async def until(self, condition: Callable[[], bool], what: str, *, within: float) -> None:
        """Wait for a condition.

        Raises:
            DemoFailed: the condition was not met within this many seconds (``what`` describes it), or ``fail`` was
                called.
        """
        try:
            async with asyncio.timeout(within):
                while not condition():
                    if self._failure is not None:
                        raise self._failure
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise DemoFailed(f"{what} (waited {within:g} s)") from None

    def open_calls(self) -> set[str]:
        """Return the calls whose session is open, according to the events."""
        return {call_id for call_id, call in self.calls.items() if call.opened is not None and not call.ended}

    def count(self, what: str) -> int:
        """Return the number of events of a type for the demo's calls."""
        return sum(
            event.type == f"mcp.session.{what}" and str(event.data.get("call_id")) in self.calls
            for event in self.events
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run. Durations are in seconds."""

    calls: int
    platforms: int
    workers: int
    sessions_opened: int
    sessions_closed: int
    sessions_expired: int
    tool_calls: int
    calls_over_http: int
    webhooks: int
    """Call events that the HTTP gateway took, each with a valid signature."""
    swaig_calls: int
    """Tool calls over the HTTP gateway. ``tool_calls`` includes them."""
    first_session: float
    """From the publishing of the first call's start to the first session's ``created``."""
    slowest_session: float
    """The longest time from the publishing of a start to its ``created``."""
    slowest_tool_call: float
    slowest_tool: str
    median_tool_call: float
    took: float


def summary_of(watch: Watch, *, workers: int, took: float) -> Summary:
    """Return the figures of a run in which every call had a session, and every session a tool call."""
    calls = list(watch.calls.values())
    starts = [call.published for call in calls if call.published is not None]
    opened = [call.opened for call in calls if call.opened is not None]
    opening = [call.opened - call.published for call in calls if call.opened is not None and call.published is not None]
    durations = sorted(call.took for call in watch.tool_calls)
    slowest = max(watch.tool_calls, key=lambda call: call.took)
    return Summary(
        calls=len(calls),
        platforms=len({call.part.platform for call in calls}),
        workers=workers,
        sessions_opened=watch.count("created"),
        sessions_closed=watch.count("closed"),
        sessions_expired=watch.count("expired"),
        tool_calls=len(watch.tool_calls),
        calls_over_http=sum(call.part.over_http for call in calls),
        webhooks=watch.webhooks,
        swaig_calls=sum(call.over_http for call in watch.tool_calls),
        first_session=min(opened) - min(starts),
        slowest_session=max(opening),
        slowest_tool_call=slowest.took,
        slowest_tool=slowest.tool,
        median_tool_call=durations[len(durations) // 2],
        took=took,
    )
