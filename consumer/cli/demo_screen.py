"""How the demo is watched: a live table on a terminal, lines anywhere else."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from consumer.cli.events import about, event_line
from consumer.cli.screen import bar, duration, facts, shown, state, table
from consumer.demo.watch import Call, Summary, Watch
from schemas.events import CloudEvent

AROUND = 8
"""Lines of the live screen that are neither a call nor an event."""

FEWEST_EVENTS = 3


class PlainView:
    """Lines, each final once it is written."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, sentence: str) -> None:
        """What is done now."""
        self._screen.print(Text(f"→ {sentence}", style="bold"), soft_wrap=True)

    def event(self, event: CloudEvent, watch: Watch) -> None:  # noqa: ARG002 - the other view wants it
        """What a worker has published."""
        self._screen.print(event_line(event), soft_wrap=True)

    def draw(self, watch: Watch) -> None:
        """Nothing: lines do not change."""


class LiveView:
    """A table of the calls, and the latest events below it."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._live = Live(console=screen, auto_refresh=False, vertical_overflow="crop")
        self._doing = ""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """What is done now."""
        self._doing = sentence

    def event(self, event: CloudEvent, watch: Watch) -> None:  # noqa: ARG002 - the other view wants it
        """What a worker has published."""
        self.draw(watch)

    def draw(self, watch: Watch) -> None:
        """The screen as of now."""
        latest = max(FEWEST_EVENTS, self._screen.height - AROUND - len(watch.calls))
        lines = [_short_line(event, watch) for event in watch.events[-latest:]]
        doing = Text(f"→ {self._doing}", style="bold", no_wrap=True, overflow="ellipsis")
        parts = [doing, Text(), _calls(watch), Text(), *lines] if watch.calls else [doing, Text(), *lines]
        self._live.update(Group(*parts), refresh=True)


def figures(summary: Summary) -> Table:
    """The summary, for people."""
    return facts(
        ("calls", f"{summary.calls} of {summary.platforms} platforms on {summary.workers} workers"),
        (
            "sessions",
            f"{summary.sessions_opened} opened, {summary.sessions_closed} closed, {summary.sessions_expired} expired",
        ),
        ("first session", f"{duration(summary.first_session)} after the first call came in"),
        ("tool calls", f"{summary.tool_calls}; each call saw its own todo list and no other's"),
        ("slowest tool call", f"{summary.slowest_tool}: {duration(summary.slowest_tool_call)}"),
        ("took", duration(summary.took)),
    )


def _calls(watch: Watch) -> Table:
    rows = [
        [call.call_id, call.part.platform, call.worker_id, str(call.todos or ""), _session(call)]
        for call in watch.calls.values()
    ]
    return table("CALL", "PLATFORM", "WORKER", "TODOS", "SESSION", rows=rows, right=["TODOS"], whole=["CALL"])


def _session(call: Call) -> Text:
    """The time that an open session has left, or what became of it."""
    if call.state != "open" or call.listed is None:
        return state(call.state)
    left: float = max(0.0, call.listed["time_remaining"])
    return bar(left, call.listed["timeout"], duration(left))


def _short_line(event: CloudEvent, watch: Watch) -> Text:
    """An event with the platform's name in place of the call's id, which stands in the table."""
    call: Any = watch.calls.get(str(event.data.get("call_id")))
    what = event.type.rpartition(".")[2]
    line = Text.assemble(
        (event.time.astimezone().strftime("%H:%M:%S"), "dim"),
        " ",
        state(what.ljust(8)),
        " ",
        (call.part.platform if call else shown(event.subject or "")).ljust(10),
        (f"  {shown(about(event))}", "dim"),
    )
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
