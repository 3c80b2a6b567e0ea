"""``mcp-sessions top`` while the broker goes and comes back."""

import os
import sys
from pathlib import Path

import pytest

from tests.faults.stage import Stage
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
        await screen.shows("no connection", "call-1")
        await scene.break_down("start_app")
        await screen.until(lambda: "no connection" not in screen.text and " connected" in screen.text)
        await scene.start_calls(["call-2"])
        await screen.shows("call-1", "call-2", "2 by age")
        assert screen.process.returncode is None
        await scene.break_down("stop_app")
        await screen.shows("no connection")
        screen.press("q")  # also when there is nobody to take leave of
        assert await screen.ended() == 0
        assert screen.settings == before
        assert "Traceback" not in screen.text
        await scene.break_down("start_app")
    await scene.end_calls(["call-1", "call-2"])
    await scene.until(lambda: {event.subject for event in scene.of("closed")} >= {"call-1", "call-2"}, within=60)
