"""The bridge beside a real Asterisk, where there is one: ``ASTERISK=/path/to/asterisk``, or one on the PATH."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.conftest import Bridging
from tests.bridges.real_asterisk import OPERATOR, Asterisk, asterisk, program
from tests.harness import Cluster
from tests.proxy import proxy_to

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(program() is None, reason="no Asterisk here; infra/asterisk_of_debian brings one"),
]


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Asterisk]:
    async with asterisk(tmp_path / "asterisk") as running:
        yield running


@pytest.fixture(params=["ari", "ami"])
def speaks(request: Any) -> str:
    return str(request.param)


class _At:
    """What a bridge is started at."""

    def __init__(self, url: str) -> None:
        self.url = url


async def test_a_call_of_two_legs_opens_and_closes_what_it_should(
    mcp: Cluster, real: Asterisk, bridging: Bridging, speaks: str
):
    await mcp.start()
    await mcp.start()
    await bridging(mcp, _At(real.urls[speaks]))
    await real.call("dial", channel="a")  # each leg is a local channel, of two halves
    await mcp.until(lambda: len(mcp.of("created")) == 4)
    channels = await real.channels()
    assert {event.data["session_id"] for event in mcp.of("created")} == channels > {"a", "a-other"}
    if speaks == "ami":
        parents = {e.data["session_id"]: e.data["metadata"]["call"]["parent_call_id"] for e in mcp.of("created")}
        assert parents == dict.fromkeys(channels, "a") | {"a": None}
    await real.hang_up("a")
    await mcp.until(lambda: len(mcp.of("closed", reason="call_ended")) == 4)
    assert not await real.channels()
    assert not mcp.logged("delivery", outcome="dead_lettered")


async def test_the_gap_is_made_up_for(mcp: Cluster, real: Asterisk, bridging: Bridging, speaks: str):
    await mcp.start()
    async with proxy_to(real.urls[speaks]) as proxy:
        scheme = real.urls[speaks].partition(":")[0]
        bridge = await bridging(mcp, _At(f"{scheme}://{proxy.proxy_host}:{proxy.proxy_port}"))
        await real.call("wait", channel="ends")
        await mcp.event("created", session_id="ends-other")
        await proxy.close()
        await bridge.logged("pbx.lost")
        await real.hang_up("ends")
        await real.call("wait", channel="new")
        async with asyncio.timeout(20):
            while await real.channels() != {"new", "new-other"}:
                await asyncio.sleep(0.05)
        await proxy.start()
        gap = await bridge.logged("pbx.gap", within=60)
        assert gap["made_up"]["ended"] == gap["made_up"]["started"] == 2
        await mcp.event("closed", session_id="ends")
        await mcp.event("created", session_id="new")
        await real.hang_up("new")
        await mcp.event("closed", session_id="new")


async def test_a_channel_that_leaves_the_application_is_followed_to_its_end(
    mcp: Cluster, real: Asterisk, bridging: Bridging
):
    await mcp.start()
    await bridging(
        mcp,
        _At(real.urls["ari"]),
        MCP_SESSIONS_ASTERISK_SUBSCRIBE_ALL="false",
        MCP_SESSIONS_ASTERISK_USER=OPERATOR,
        MCP_SESSIONS_ASTERISK_PASSWORD=OPERATOR,
    )
    await real.call("desk", channel="a")
    created = await mcp.event("created")
    channel = created.data["session_id"]
    await real.leave_application(channel)
    await mcp.until(lambda: mcp.logged("delivery", call_id=channel, type="call.progress"))
    assert not mcp.of("closed")
    await real.hang_up("a")
    await mcp.event("closed", session_id=channel)
    assert len(mcp.of("created")) == 1
