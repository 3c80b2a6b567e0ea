"""``mcp-sessions top`` in a real terminal, on real workers."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest
from rich.cells import cell_len

from consumer.broker.declare import exists
from consumer.broker.errors import Unroutable
from consumer.broker.link import Link
from consumer.broker.message import Message
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Exchange, Names
from consumer.cli.top import watching
from consumer.cli.top.known import Interruption, Known
from consumer.client import SessionClient
from consumer.concurrency.task_set import cancel_and_wait
from schemas.errors import NoReply, NotRouted
from schemas.events import CloudEvent
from tests.cli.conftest import Cli
from tests.harness import WAIT, Cluster, config, declare_events, remove_everything
from tests.programs import PROGRAM
from tests.proxy import proxy_to, standing_still, through
from tests.terminal import DOWN, ENTER, ESCAPE, Terminal, terminal

TOP = (str(PROGRAM), "top", "--interval", "0.2")
ALTERNATE, HIDDEN, SHOWN = b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"
"""What leaves the alternate screen, and what hides and shows the cursor."""


@pytest.fixture
def top(mcp: Cluster, at: Callable[[str], Cli]) -> Callable[..., Any]:
    """``mcp-sessions top`` in a terminal of a size."""
    environment = {name: value for name, value in at(mcp.prefix).environment.items() if name != "COLUMNS"}

    @asynccontextmanager
    async def run(columns: int = 80, lines: int = 24, program: tuple[str, ...] = TOP) -> AsyncIterator[Terminal]:
        async with terminal(program, environment, columns, lines, cwd=mcp.folder) as made:
            yield made

    return run


def narrow_enough(screen: Terminal) -> bool:
    return all(cell_len(line) <= screen.screen.columns for line in screen.lines)


async def test_sessions_appear_and_go_with_their_workers_rates_and_events(mcp: Cluster, top: Callable[..., Any]):
    worker = await mcp.start()
    async with top(120, 30) as screen:
        await screen.shows("connected", worker.worker_id, "ready", "No session is open.")
        await mcp.client.create("call-1", "echo", timeout=300)
        await mcp.client.call_tool("call-1", "echo", {"text": "hello"})
        await screen.shows("call-1", "echo", "1/500")
        assert re.search(r"call-1 +echo +\S+ +\d+s +━+ ", screen.text)
        await screen.until(
            lambda: re.search(r"tool calls 0\.\d+/s .*p50 \d+(\.\d+)?ms +p95 \d+(\.\d+)?ms", screen.text)
        )
        await screen.shows("created")
        await mcp.client.close("call-1")
        await screen.shows("closed", "requested", "No session is open.")


async def test_the_placer_and_the_dead_letters_are_told(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    async with top(120, 30) as screen:
        await screen.shows("dead letters 0")
        await mcp.client.publish_call_event({"call_id": "call-1", "kind": "started"})
        await screen.shows("call-1", "ready placer")
        await mcp.client.publish_call_event(b'{"what": "is this"}')
        await screen.shows("dead letters 1", "+1 unrecognised")


async def test_a_filter_shows_what_fits_and_nothing_else(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    for call in ("anna-1", "anna-2", "bert-1"):
        await mcp.client.create(call, "echo")
    async with top() as screen:
        await screen.shows("anna-1", "anna-2", "bert-1")
        screen.press("/ANNA")
        await screen.until(lambda: "filter ANNA" in screen.text and "bert-1" not in listed(screen))
        screen.press(ENTER)
        await screen.shows("that fit", "anna-1", "anna-2", "q quit")
        screen.press(f"/{'x' * 3}")
        await screen.shows("Nothing matches the filter.")
        screen.press(ESCAPE)
        await screen.until(lambda: "bert-1" in listed(screen))


def listed(screen: Terminal) -> str:
    """The table of sessions."""
    return screen.text.partition("CALL ")[2].partition("EVENTS")[0]


async def test_a_session_is_closed_with_keys_after_it_was_asked(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    await mcp.client.create("call-1", "echo")
    await mcp.client.create("call-2", "echo")
    async with top() as screen:
        await screen.shows("call-1", "call-2")
        screen.press("ss/call-1" + ENTER + DOWN + "x")
        await screen.shows("Close session call-1?")
        screen.press("n")
        await screen.shows("q quit")
        screen.press("x")
        await screen.shows("Close session call-1?")
        screen.press("y")
        await mcp.event("closed", session_id="call-1", reason="requested")
        await screen.shows("Closed: call-1")
        screen.press(ESCAPE)
        await screen.until(lambda: "call-2" in listed(screen) and "call-1" not in listed(screen))
    assert not mcp.of("closed", session_id="call-2")


async def test_the_id_of_a_call_is_said_to_close_all_of_its_sessions(mcp: Cluster, top: Callable[..., Any]):
    echo = config()["services"]["echo"]
    await mcp.start({"services": {"echo": echo, "other": echo}})
    await mcp.client.create("call-1", "echo")
    await mcp.client.create("call-1#other", "other")
    async with top() as screen:
        await screen.until(lambda: re.search(r"call-1 +other ", screen.text))
        screen.press("sssss/echo" + ENTER + DOWN + "x")  # of the filter's sessions, but the call has more
        await screen.shows("Close all 2 sessions of call call-1?")


async def test_every_size_is_filled_and_never_exceeded(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    for number in range(30):
        await mcp.client.create(f"{'a-long-id-' * 5}{number}@[2001:db8::1]:5060", "echo")
    async with top(200, 50) as screen:
        await screen.shows("30 by age", "q quit", "VERSION", "-long-id-29@[2001:db8::1]:5060")
        for columns, lines in ((80, 24), (200, 50), (40, 12), (80, 24)):
            screen.resize(columns, lines)
            await screen.until(lambda lines=lines: screen.lines[lines - 1].startswith("q quit"))
            await screen.shows("mcp-sessions top", "of 30" if lines < 50 else "30 by age")
            assert len(screen.lines) == lines
            assert narrow_enough(screen)
        assert re.search(r"a-long-\S*…\S*8::1]:5060", screen.text)  # shortened where ids are alike


async def test_pause_holds_the_picture(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    async with top() as screen:
        await screen.shows("No session is open.")
        screen.press("p")
        await screen.shows("paused")
        await mcp.client.create("call-1", "echo")
        screen.press("?")
        await screen.shows("Any key goes back.")
        screen.press(" ")
        await screen.shows("p go on", "No session is open.")
        screen.press("p")
        await screen.shows("call-1", "p pause")


@pytest.mark.parametrize(("end", "code"), [("q", 0), ("\x03", 130), ("kill", 143)])
async def test_the_terminal_is_as_it_was_afterwards(mcp: Cluster, top: Callable[..., Any], end: str, code: int):
    await mcp.start()
    async with top() as screen:
        before = screen.settings
        await screen.shows("No session is open.")
        assert screen.settings != before
        if end == "kill":
            of_top(screen).send_signal(signal.SIGTERM)
        else:
            screen.press(end)
        assert await screen.ended() == code
        assert screen.settings == before
        assert screen.written.rindex(ALTERNATE) < screen.written.rindex(b"ended with")
        assert screen.written.rindex(HIDDEN) < screen.written.rindex(SHOWN)
        assert "Traceback" not in screen.text


def of_top(screen: Terminal) -> psutil.Process:
    """The program, below its shell."""
    (program,) = psutil.Process(screen.process.pid).children()
    return program


async def test_a_defect_gives_the_terminal_back_before_it_is_told(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    broken = (
        "import consumer.cli.top.live as live, consumer.cli as cli\n"
        "def picture(*args, **more): raise RuntimeError('a defect')\n"
        "live.picture = picture\n"
        "cli.main()"
    )
    async with top(program=(sys.executable, "-c", broken, "top")) as screen:
        before = screen.settings
        assert await screen.ended() == 1
        assert "RuntimeError: a defect" in screen.text
        assert screen.settings == before


async def test_suspended_and_resumed_it_goes_on(mcp: Cluster, top: Callable[..., Any]):
    await mcp.start()
    async with top() as screen:
        before = screen.settings
        await screen.shows("No session is open.")
        program = of_top(screen)
        program.send_signal(signal.SIGTSTP)
        async with asyncio.timeout(WAIT):
            while program.status() != psutil.STATUS_STOPPED:
                await asyncio.sleep(0.01)
        assert screen.settings == before
        await screen.until(lambda: ALTERNATE in screen.written)
        screen.resize(80, 24)
        program.send_signal(signal.SIGCONT)
        await screen.shows("No session is open.", "q quit")
        screen.press("q")
        assert await screen.ended() == 0


async def test_a_snapshot_is_json_and_a_pipe_gets_one_frame(mcp: Cluster, at: Callable[[str], Cli]):
    worker = await mcp.start()
    cli = at(mcp.prefix)
    await mcp.client.create("call-1", "echo")
    await mcp.client.call_tool("call-1", "echo", {"text": "hello"})
    told = (await cli("top", "--json")).json
    assert list(told["sessions"]) == ["call-1"]
    assert (told["open"], told["capacity"], told["dead_letters"], told["complete"]) == (1, 500, 0, True)
    [one] = told["workers"]
    assert (one["worker_id"], one["figures"]["starts"]) == (worker.worker_id, 1)
    assert one["figures"]["tools"]["echo"]["calls"] == 1
    assert 0 < told["last_minute"]["p50"] == told["last_minute"]["p95"] < 5
    for arguments in (("top",), ("top", "--once")):
        ran = await cli(*arguments)
        assert (ran.code, ran.err) == (0, "")
        assert "call-1" in ran.out
        assert "\x1b" not in ran.out
        assert max(map(cell_len, ran.out.splitlines())) <= 80


async def test_figures_are_those_of_all_workers(mcp: Cluster):
    first, second = await mcp.start(), await mcp.start()
    await mcp.until(lambda: len(mcp.of("started")) == 2)
    for number in range(6):
        await mcp.client.create(f"call-{number}", "echo")
        await mcp.client.call_tool(f"call-{number}", "echo", {"text": "hello"})
    await mcp.client.call_tool("call-0", "fail", {})
    await mcp.client.close("call-0")
    told = await mcp.client.worker_figures()
    assert told.missing_workers == []
    figures = {one.worker_id: one for one in told.workers}
    assert set(figures) == {first.worker_id, second.worker_id}
    assert sum(one.starts for one in figures.values()) == 6
    assert sum(one.ends for one in figures.values()) == 1
    tools = [one.tools["echo"] for one in figures.values()]
    assert sum(tool.calls for tool in tools) == 7
    assert sum(tool.errors for tool in tools) == 1
    assert all(sum(count for _, count in tool.durations) == tool.calls for tool in tools)
    assert sum(one.placer for one in figures.values()) == 1


async def test_what_is_missing_without_a_worker_fits_the_narrowest_screen(mcp: Cluster, top: Callable[..., Any]):
    async with top() as screen:
        await screen.shows("nothing declared", "start a worker, or run 'mcp-sessions topology apply'")
        await mcp.start()
        await screen.shows(" connected", "No session is open.")


async def test_a_count_of_the_dead_letters_that_does_not_come_holds_nothing_up(
    mcp: Cluster, monkeypatch: pytest.MonkeyPatch
):
    """As when the broker is stopped after the workers have answered."""

    class Uncounted(SessionClient):
        async def count_dead_letters(self) -> int:
            await asyncio.Event().wait()
            raise AssertionError("it never comes")

    worker = await mcp.start()
    monkeypatch.setattr(watching, "REPLY_TIMEOUT", 1.0)
    async with Uncounted(mcp.url, prefix=mcp.prefix) as client, asyncio.timeout(WAIT):
        listing = await watching.Watcher(client, Known("here"), lambda: None).fetch()
    assert [one["worker_id"] for one in listing.workers] == [worker.worker_id]
    assert listing.dead_letters is None


async def test_a_request_that_the_broker_does_not_confirm_fails_its_round(
    mcp: Cluster, monkeypatch: pytest.MonkeyPatch
):
    """A stopped broker would else make one long round of it, and the next one would come much later."""
    await mcp.start()
    monkeypatch.setattr(watching, "REPLY_TIMEOUT", 1.0)
    async with (
        asyncio.timeout(WAIT),
        proxy_to(mcp.url) as proxy,
        SessionClient(through(mcp.url, proxy), prefix=mcp.prefix) as client,
    ):
        watcher = watching.Watcher(client, Known("here"), lambda: None)
        assert (await watcher.fetch()).workers
        with standing_still(proxy), pytest.raises(NoReply):
            await watcher.fetch()
        assert (await watcher.fetch()).workers


async def test_events_are_followed_as_soon_as_there_is_something_to_follow(amqp_url: str, prefix: str):
    names, known = Names(prefix), Known("here")
    link, publisher = Link(amqp_url, "test"), Publisher()
    await link.open()
    publisher.attach(await link.publishing())
    created = CloudEvent(source="/mcp-sessions/w-1", type="mcp.worker.started", subject="w-1", data={})
    message = Message(body=created.model_dump_json().encode())
    try:
        async with asyncio.timeout(WAIT), SessionClient(amqp_url, prefix=prefix) as client:
            following = asyncio.create_task(watching.Watcher(client, known, lambda: None).follow(0.05))
            with pytest.raises(NotRouted, match="nothing is declared under the prefix"):
                async with client.following():
                    pass
            assert not await exists(link, Exchange(names.events, "topic", "")), "to look declares nothing"
            await declare_events(amqp_url, prefix)
            while not known.events:
                with suppress(Unroutable):
                    await publisher.publish(message, names.events, "worker.started")
                await asyncio.sleep(0.02)
            await cancel_and_wait(following)
    finally:
        await link.close()
        await remove_everything(amqp_url, prefix, [])


async def test_events_that_were_missed_are_told_of_between_the_others(mcp: Cluster):
    await mcp.start()
    known = Known("here")
    async with (
        asyncio.timeout(3 * WAIT),
        proxy_to(mcp.url) as proxy,
        SessionClient(through(mcp.url, proxy), prefix=mcp.prefix) as client,
    ):
        following = asyncio.create_task(watching.Watcher(client, known, lambda: None).follow(0.05))
        while not known.events:
            await mcp.client.create("before", "echo")
            await asyncio.sleep(0.05)
        await proxy.disconnect_all()
        while not any(isinstance(one, Interruption) for one in known.events):
            await asyncio.sleep(0.02)
        await mcp.client.create("after", "echo")
        while getattr(known.events[-1], "subject", "") != "after":
            await asyncio.sleep(0.02)
        gaps = [one for one in known.events if isinstance(one, Interruption)]
        assert len(gaps) == 1
        assert 0 < gaps[0].seconds < WAIT
        await cancel_and_wait(following)
