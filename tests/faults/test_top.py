"""``mcp-sessions top`` while the broker goes and comes back."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from consumer.cli.top.known import Known
from consumer.cli.top.watching import SHARE, Watcher
from consumer.client import SessionClient
from tests.broker.conftest import running
from tests.faults.stage import Stage
from tests.proxy import proxy_to, standing_still, through
from tests.terminal import terminal

PROGRAM = str(Path(sys.executable).with_name("mcp-sessions"))


@pytest.mark.timeout(180)
async def test_a_broker_that_restarts_is_told_and_outlived(scene: Stage):
    await scene.start()
    await scene.start_calls(["call-1"])
    environment = {**os.environ, "AMQP_URL": scene.broker.url, "MCP_SESSIONS_PREFIX": scene.prefix}
    async with terminal([PROGRAM, "top", "--interval", "0.2"], environment, 100, 30, cwd=scene.folder) as screen:
        before = screen.settings
        await screen.shows("connected", "call-1")
        await scene.break_down("stop_app")
        await screen.shows("reconnecting", "call-1")
        await scene.break_down("start_app")
        await screen.until(lambda: "reconnecting" not in screen.text and " connected" in screen.text)
        await scene.start_calls(["call-2"])
        await screen.shows("call-1", "call-2", "2 by age")
        assert screen.process.returncode is None
        await scene.break_down("stop_app")
        await screen.shows("reconnecting")
        screen.press("q")  # also when there is nobody to take leave of
        assert await screen.ended() == 0
        assert screen.settings == before
        assert "Traceback" not in screen.text
        await scene.break_down("start_app")
    await scene.end_calls(["call-1", "call-2"])
    await scene.until(lambda: {event.subject for event in scene.of("closed")} >= {"call-1", "call-2"}, within=60)


@pytest.mark.timeout(120)
async def test_a_round_that_failed_is_followed_by_the_next_one_soon(scene: Stage):
    await scene.start()
    async with proxy_to(scene.url) as proxy:
        url = f"{through(scene.url, proxy)}?heartbeat=2"
        async with SessionClient(url, prefix=scene.prefix) as client:
            known = Known("here")
            changed: asyncio.Queue[float] = asyncio.Queue()
            watcher = Watcher(client, known, lambda: changed.put_nowait(asyncio.get_running_loop().time()))
            async with running(watcher.watch(0.2)):
                await changed.get()
                assert known.listing.workers
                with standing_still(proxy):
                    while not known.problem:
                        told_at = await changed.get()
                await proxy.disconnect_all()
                took = told_at - known.heard_at
                while known.problem:
                    again_at = await changed.get()
    print(f"\na round failed after {took:.1f} s, the next answer came {again_at - told_at:.1f} s later")  # noqa: T201
    assert again_at - told_at < SHARE * took / 2
