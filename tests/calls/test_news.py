"""What servers say of changes: told at once, and not more often than the pace."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from consumer.broker.outbox import Outbox
from consumer.broker.topology import Binding, Queue
from consumer.calls.events import Reporter
from consumer.calls.news import MAX_NAME, MAX_NEWS, PACE, News
from consumer.calls.owned_call import CallSession
from consumer.concurrency.task_set import Tasks
from consumer.processes.service import MCPService
from consumer.sessions import Session
from schemas.events import EndReason
from schemas.ids import ServiceName, SessionId, WorkerId
from tests.calls.asked_server import AskedServer
from tests.calls.simulated_link import Heard, simulated_link
from tests.virtual_time import in_virtual_time, passes

ME = WorkerId("w-1")
RESOURCE, LIST = "resource_updated", "list_changed"


class TellingServer(AskedServer):
    """A server that says what has changed when the test does."""

    def on_news(self, callback: Callable[[str, str], None]) -> None:
        self.says = callback


@dataclass
class Listening:
    """Who hears the events of sessions."""

    news: News
    events: Heard

    def follow(self, session_id: str) -> tuple[CallSession, TellingServer]:
        service = MCPService(name=ServiceName("echo"), command=["x"])
        server = TellingServer(service)
        session: CallSession = Session(SessionId(session_id), service.name, server)
        self.news.follow(session)
        return session, server

    async def told(self) -> list[tuple[str, str, str]]:
        """The session, the event and what has changed, of what was told up to now."""
        await passes(0.01)
        told = []
        while not self.events.deliveries.empty():
            message = self.events.deliveries.get_nowait().message
            event = json.loads(message.body)
            data = event["data"]
            assert (data["worker_id"], data["session_id"], data["service_name"]) == (ME, event["subject"], "echo")
            what = event["type"].removeprefix("mcp.session.")
            told.append((event["subject"], what, data["uri" if what == RESOURCE else "list"]))
        return told


@asynccontextmanager
async def listening() -> AsyncIterator[Listening]:
    async with simulated_link() as wire:
        tasks, outbox = Tasks(), Outbox(wire.publisher)
        tasks.start(outbox.run(), "outbox")
        await wire.declare(Queue("events", "of this test"))
        await (await wire.link.channel()).bind(Binding(wire.names.events, "events", "#"))
        yield Listening(News(Reporter(ME, wire.names, outbox)), await wire.consume("events"))
        await tasks.cancel()


@in_virtual_time
async def test_the_first_is_told_at_once_and_the_others_together_when_the_pace_allows_it():
    async with listening() as heard:
        _, server = heard.follow("c-1")
        server.says(RESOURCE, "file:///a")
        assert await heard.told() == [("c-1", RESOURCE, "file:///a")]
        for which in ("file:///b", "file:///a", "file:///b"):
            server.says(RESOURCE, which)
        server.says(LIST, "tools")
        await passes(PACE * 0.9)
        assert await heard.told() == []
        await passes(PACE * 0.2)
        together = [(RESOURCE, "file:///b"), (RESOURCE, "file:///a"), (LIST, "tools")]
        assert await heard.told() == [("c-1", *one) for one in together], "each thing once, in the order of the first"
        server.says(LIST, "tools")
        await passes(PACE * 0.5)
        assert await heard.told() == [], "the pace goes on"
        await passes(PACE)
        assert await heard.told() == [("c-1", LIST, "tools")]


@in_virtual_time
async def test_who_has_been_silent_for_a_while_is_told_at_once_again():
    async with listening() as heard:
        _, server = heard.follow("c-1")
        for _ in range(2):
            server.says(LIST, "prompts")
            assert await heard.told() == [("c-1", LIST, "prompts")]
            await passes(PACE * 1.1)
        assert await heard.told() == []


@in_virtual_time
async def test_sessions_do_not_wait_for_each_other():
    async with listening() as heard:
        _, one = heard.follow("c-1")
        _, other = heard.follow("c-2")
        one.says(LIST, "tools")
        other.says(LIST, "tools")
        assert await heard.told() == [("c-1", LIST, "tools"), ("c-2", LIST, "tools")]


@in_virtual_time
async def test_a_session_that_has_ended_has_no_news():
    async with listening() as heard:
        session, server = heard.follow("c-1")
        server.says(LIST, "tools")
        server.says(LIST, "prompts")
        session.end_reason = EndReason.IDLE
        assert session.has_ended
        server.says(LIST, "resources")
        await passes(PACE * 2)
        assert await heard.told() == [("c-1", LIST, "tools")]
        other, server = heard.follow("c-2")
        other.end_reason = EndReason.IDLE
        server.says(LIST, "tools")
        assert await heard.told() == []


@in_virtual_time
async def test_there_is_a_most_of_what_is_told_together_and_of_a_name():
    async with listening() as heard:
        _, server = heard.follow("c-1")
        server.says(RESOURCE, "x" * (MAX_NAME + 1))
        assert await heard.told() == []
        server.says(RESOURCE, "x" * MAX_NAME)
        assert len(await heard.told()) == 1
        for number in range(MAX_NEWS + 5):
            server.says(RESOURCE, str(number))
        await passes(PACE)
        told = await heard.told()
        assert [which for _, _, which in told] == [str(number) for number in range(MAX_NEWS)]
