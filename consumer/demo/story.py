"""The story of the demo, from the first call to the last, with its checks."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from consumer.client import SessionClient
from consumer.demo.lines import Line, Lines, RabbitMQLine, signalwire_line
from consumer.demo.script import PARTS, SHORT_TIMEOUT
from consumer.demo.stage import DemoWorker, place_for, workers_at
from consumer.demo.watch import DemoFailed, PlayedCall, Summary, ToolCall, Watch, summary_of
from schemas.base import Json
from schemas.errors import SessionsError
from schemas.events import CloudEvent
from schemas.sessions import SessionInfo

STARTING = 20.0
"""How long (s) the workers, and then a session, may take to start. An MCP server needs a second of CPU."""

ENDING = 10.0
CONNECT_TIMEOUT = 1.0
BETWEEN_CALLS = 0.25
LOOK = 0.5
"""How often (s) the workers are asked for the open sessions."""

DRAW = 0.125


class DemoView(Protocol):
    """The view of the demo. It is entered before the demo begins."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, sentence: str) -> None:
        """Show the current step."""

    def event(self, event: CloudEvent, watch: Watch) -> None:
        """Show an event of a worker."""

    def todos(self, call: PlayedCall, todos: list[str]) -> None:
        """Show the todo list of a call."""

    def listing(self, sessions: Collection[SessionInfo]) -> None:
        """Show the sessions that the workers list."""

    def draw(self, watch: Watch) -> None:
        """Draw the present state. Called several times a second."""


async def play(url: str, prefix: str, view: DemoView) -> Summary:
    """Play the demo and return its figures. It leaves nothing behind, however it ends.

    Raises:
        DemoFailed: a check failed.
        CannotConnect: there is no broker.
    """
    began, watch = time.monotonic(), Watch()
    async with (
        SessionClient(url, prefix=prefix, connect_timeout=CONNECT_TIMEOUT) as client,
        place_for(url, prefix) as place,
        client.following("#") as events,
        signalwire_line(place) as signalwire,
        _in_background(_take_in(events, watch, view), _keep_drawing(watch, view)),
    ):
        lines = Lines(RabbitMQLine(client, place), signalwire)
        view.say(f"Two workers are starting under the prefix {prefix}.")
        async with workers_at(place, watch) as workers:
            await _started(workers, watch)
            async with _in_background(_keep_looking(client, watch)):
                await _calls(client, lines, watch, view)
            view.say("The workers leave.")
            await _leave(workers)
        return summary_of(watch, workers=len(workers), took=time.monotonic() - began)


async def _started(workers: Sequence[DemoWorker], watch: Watch) -> None:
    def up() -> set[str]:
        return {str(event.subject) for event in watch.events if event.type == "mcp.worker.started"}

    wanted = {worker.worker_id for worker in workers}
    await watch.until(lambda: wanted <= up(), "the workers did not start", within=STARTING)


async def _calls(client: SessionClient, lines: Lines, watch: Watch, view: DemoView) -> None:
    await lines.signalwire.try_another_key()
    view.say(
        f"{len(PARTS)} calls come in, each from another platform: SignalWire's over HTTP, the others over RabbitMQ."
    )
    for part in PARTS:
        call_id = part.fresh_id()
        watch.calls[call_id] = PlayedCall(part, call_id)
    try:
        async with asyncio.TaskGroup() as group:
            for call in watch.calls.values():
                group.create_task(_talk(lines, call, watch, view), name=f"call-{call.part.source}")
                await asyncio.sleep(BETWEEN_CALLS)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    await _compare_listing(client, watch, view)
    await _let_expire(watch, view)
    view.say("The calls end.")
    for call in watch.calls.values():
        await _tell(lines, call, call.part.ended, watch)
        await asyncio.sleep(BETWEEN_CALLS / 2)
    await watch.until(
        lambda: all(call.ended for call in watch.calls.values()),
        "not every session was closed when its call had ended",
        within=ENDING,
    )
    _check_ends(watch)


async def _talk(lines: Lines, call: PlayedCall, watch: Watch, view: DemoView) -> None:
    """Play one call, from its start to its agent's last tool call."""
    call.published = time.monotonic()
    await _tell(lines, call, call.part.started, watch)
    await watch.until(
        lambda: call.opened is not None,
        f"no session was opened for the {call.part.platform} call {call.call_id}",
        within=STARTING,
    )
    line = lines.of(call)
    for text in call.part.todos:
        await _tool(line, call, watch, "add_todo", {"text": text})
        call.todos += 1
    result = await _tool(line, call, watch, "list_todos", {})
    found = [todo["text"] for todo in result.get("todos", [])]
    view.todos(call, found)
    if found != list(call.part.todos):
        raise DemoFailed(f"the {call.part.platform} call put {list(call.part.todos)} on its list and found {found}")


async def _tool(line: Line, call: PlayedCall, watch: Watch, name: str, arguments: Json) -> Json:
    began = time.monotonic()
    result = await line.use(call, name, arguments)
    watch.tool_calls.append(ToolCall(call.call_id, name, time.monotonic() - began, call.part.over_http))
    return result


async def _tell(lines: Lines, call: PlayedCall, event: str, watch: Watch) -> None:
    await lines.of(call).tell(call, event)
    watch.webhooks += call.part.over_http


async def _compare_listing(client: SessionClient, watch: Watch, view: DemoView) -> None:
    """Check that the workers' list of sessions agrees with their events."""
    before = watch.open_calls()
    page = await client.list_sessions()
    listed = set(page.sessions)
    workers = {session.worker_id for session in page.sessions.values()}
    view.say(f"sessions.list names {len(listed)} sessions on {len(workers)} workers.")
    view.listing(page.sessions.values())
    await watch.until(
        lambda: watch.open_calls() <= listed <= before,
        f"the workers list {sorted(listed)}, but their events name {sorted(watch.open_calls())}",
        within=ENDING,
    )


async def _let_expire(watch: Watch, view: DemoView) -> None:
    quiet = [call for call in watch.calls.values() if call.part.expires]
    names = ", ".join(call.part.platform for call in quiet)
    view.say(f"Nobody uses the session of the {names} call: it expires after {SHORT_TIMEOUT:g} s.")
    await watch.until(
        lambda: all(call.ended == "expired" for call in quiet),
        f"the session of the {names} call did not expire",
        within=SHORT_TIMEOUT + ENDING,
    )


def _check_ends(watch: Watch) -> None:
    for call in watch.calls.values():
        wanted = "expired" if call.part.expires else "closed"
        if call.ended != wanted:
            raise DemoFailed(
                f"the session of the {call.part.platform} call is {call.ended} ({call.reason}), not {wanted}"
            )
    if watch.count("created") != len(watch.calls):
        raise DemoFailed(f"{len(watch.calls)} calls opened {watch.count('created')} sessions, not one each")


async def _leave(workers: Sequence[DemoWorker]) -> None:
    codes = await asyncio.gather(*(worker.leave() for worker in workers))
    for worker, code in zip(workers, codes, strict=True):
        if code != 0:
            raise DemoFailed(
                f"worker {worker.worker_id} left with exit code {code}; its last words:\n{worker.last_words()}"
            )


# Beside the story.


@contextlib.asynccontextmanager
async def _in_background(*work: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def _take_in(events: asyncio.Queue[CloudEvent], watch: Watch, view: DemoView) -> None:
    while True:
        event = await events.get()
        watch.note(event)
        view.event(event, watch)


async def _keep_drawing(watch: Watch, view: DemoView) -> None:
    while True:
        view.draw(watch)
        await asyncio.sleep(DRAW)


async def _keep_looking(client: SessionClient, watch: Watch) -> None:
    while True:
        with contextlib.suppress(SessionsError):
            watch.note_listing((await client.list_sessions()).sessions)
        await asyncio.sleep(LOOK)
