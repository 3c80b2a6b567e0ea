"""Shows the demo: as a live table on a terminal, and as lines elsewhere."""

from collections.abc import Collection
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumer.cli.events import about, event_line, line_of, what_of
from consumer.cli.screen import Row, duration, facts, state, table
from consumer.cli.sessions import sessions_table, time_left
from consumer.demo.script import PARTS
from consumer.demo.watch import PlayedCall, Summary, Watch
from schemas.events import CloudEvent
from schemas.sessions import SessionInfo

AROUND = 6
"""How many lines of the live screen are neither calls nor events."""

BELOW = 9
"""How many lines the last picture leaves for the figures below it."""

FEWEST_LINES = 3
PLATFORM_WIDTH = max(len(part.platform) for part in PARTS)


class _View:
    """The common part of both views."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class PlainView(_View):
    """Prints lines, which do not change later."""

    def say(self, sentence: str) -> None:
        """Show the current step."""
        self._print(Text(f"→ {sentence}", style="bold"))

    def event(self, event: CloudEvent, watch: Watch) -> None:  # noqa: ARG002 - the other view wants it
        """Show an event of a worker."""
        self._print(event_line(event))

    def todos(self, call: PlayedCall, todos: list[str]) -> None:
        """Show the todo list of a call."""
        self._print(_line("todos", call.call_id, "; ".join(todos)))

    def listing(self, sessions: Collection[SessionInfo]) -> None:
        """Show the sessions that the workers list."""
        self._print(sessions_table(sessions, width=self._screen.width))

    def draw(self, watch: Watch) -> None:
        """Do nothing: printed lines do not change."""

    def _print(self, what: Text | Table) -> None:
        self._screen.print(what, soft_wrap=isinstance(what, Text))


class LiveView(_View):
    """Draws a table of the calls, with the latest events below it."""

    def __init__(self, screen: Console) -> None:
        super().__init__(screen)
        self._live = Live(console=screen, auto_refresh=False, vertical_overflow="crop")
        self._doing = ""
        self._lines: list[Text] = []
        self._last: Watch | None = None
        self._below = 0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None:
            self._below = BELOW
            self.draw(self._last)
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Show the current step."""
        self._doing = sentence

    def event(self, event: CloudEvent, watch: Watch) -> None:
        """Show an event of a worker. The table has the call's id, so the platform names the call here."""
        call = watch.calls.get(str(event.data.get("call_id")))
        who = call.part.platform if call else event.subject or ""
        self._lines.append(_line(what_of(event), who.ljust(PLATFORM_WIDTH), about(event), event.time))
        self.draw(watch)

    def todos(self, call: PlayedCall, todos: list[str]) -> None:
        """Show the todo list of a call."""
        self._lines.append(_line("todos", call.part.platform.ljust(PLATFORM_WIDTH), "; ".join(todos)))

    def listing(self, sessions: Collection[SessionInfo]) -> None:
        """Show nothing: the table has these sessions already."""

    def draw(self, watch: Watch) -> None:
        """Draw the current screen."""
        self._last = watch
        latest = max(FEWEST_LINES, self._screen.height - AROUND - self._below - len(watch.calls))
        doing = Text(f"→ {self._doing}", style="bold", no_wrap=True, overflow="ellipsis")
        calls: list[RenderableType] = [_calls(watch), Text()] if watch.calls else []
        self._live.update(Group(doing, Text(), *calls, *self._lines[-latest:]), refresh=True)


def figures(summary: Summary) -> Table:
    """Return the summary for people."""
    return facts(
        ("calls", f"{summary.calls} of {summary.platforms} platforms on {summary.workers} workers"),
        (
            "sessions",
            f"{summary.sessions_opened} opened, {summary.sessions_closed} closed, {summary.sessions_expired} expired",
        ),
        (
            "over HTTP",
            f"{summary.calls_over_http} calls: {summary.webhooks} signed events, {summary.swaig_calls} SWAIG functions",
        ),
        ("first session", f"{duration(summary.first_session)} after the first call came in"),
        ("tool calls", f"{summary.tool_calls}; each call saw its own todo list and no other's"),
        ("slowest tool call", f"{summary.slowest_tool}: {duration(summary.slowest_tool_call)}"),
        ("took", duration(summary.took)),
    )


def _calls(watch: Watch) -> Table:
    rows: list[Row] = [
        [call.call_id, call.part.platform, call.worker_id, str(call.todos or ""), _session(call)]
        for call in watch.calls.values()
    ]
    return table("CALL", "PLATFORM", "WORKER", "TODOS", "SESSION", rows=rows, right=["TODOS"], whole=["CALL"])


def _session(call: PlayedCall) -> Text:
    """The remaining time of an open session, or how it ended."""
    if call.state != "open" or call.listed is None:
        return state(call.state)
    return time_left(call.listed)


def _line(what: str, who: str, more: str, when: datetime | None = None) -> Text:
    line = line_of(when or datetime.now(UTC), what, who, more)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
