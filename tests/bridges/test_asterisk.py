"""``mcp-sessions bridge asterisk``: what a PBX tells reaches the workers, whoever goes away in between."""

import asyncio

import httpx2
import pytest

from infra.broker import PrivateBroker
from tests.bridges.conftest import Bridging, spawned
from tests.bridges.standin import BUSY, Ami, Ari
from tests.faults.stage import faulty
from tests.harness import START, Cluster, cluster, config

pytestmark = pytest.mark.timeout(240)


async def test_each_leg_of_a_call_opens_a_session_and_closes_it(mcp: Cluster, pbx: Ari | Ami, bridging: Bridging):
    await mcp.start()
    await mcp.start()
    bridge = await bridging(mcp, pbx)
    await pbx.begin("1772446500.41", to="+15556463421")
    await pbx.noise()
    await pbx.begin("1772446503.42", parent="1772446500.41")
    first = await mcp.event("created", session_id="1772446500.41")
    second = await mcp.event("created", session_id="1772446503.42")
    call = first.data["metadata"]["call"]
    assert (call["source"], call["to"]) == ("asterisk", "+15556463421")
    if isinstance(pbx, Ami):
        assert second.data["metadata"]["call"]["parent_call_id"] == "1772446500.41"
    await pbx.answer("1772446500.41")
    await pbx.hang_up("1772446503.42", BUSY)
    await mcp.event("closed", session_id="1772446503.42", reason="call_ended")
    assert not mcp.of("closed", session_id="1772446500.41")
    await pbx.hang_up("1772446500.41")
    await mcp.event("closed", session_id="1772446500.41", reason="call_ended")
    assert await bridge.terminate() == 0
    assert len(mcp.of("created")) == len(mcp.of("closed")) == 2
    assert not mcp.logged("delivery", outcome="dead_lettered")


async def test_one_session_for_a_call_of_two_legs(mcp: Cluster, ami: Ami, bridging: Bridging):
    routes = [{"match": {"parent_call_id": "*"}, "services": []}, {"services": ["echo"]}]
    await mcp.start(config(routes=routes))
    await bridging(mcp, ami)
    await ami.begin("a.1")
    await ami.begin("b.1", parent="a.1")
    await ami.answer("b.1")
    await mcp.event("created", session_id="a.1")
    await ami.hang_up("b.1")
    await ami.hang_up("a.1")
    await mcp.event("closed", session_id="a.1")
    assert {event.data["session_id"] for event in mcp.of("created")} == {"a.1"}


async def test_the_gap_is_told_and_made_up_for(mcp: Cluster, pbx: Ari | Ami, bridging: Bridging):
    routes = [{"match": {"to": "late"}, "services": ["echo"], "start": "answered"}, {"services": ["echo"]}]
    await mcp.start(config(routes=routes))
    bridge = await bridging(mcp, pbx)
    for channel, to in (("stays", "1"), ("ends", "1"), ("rings", "late")):
        await pbx.begin(channel, to=to)
    await mcp.event("created", session_id="ends")
    await mcp.event("created", session_id="stays")
    await pbx.go()
    lost = await bridge.logged("pbx.lost")
    await pbx.hang_up("ends")
    await pbx.answer("rings")
    await pbx.begin("new")
    await pbx.begin("nobody hears of it")
    await pbx.hang_up("nobody hears of it")
    await pbx.come()
    gap = await bridge.logged("pbx.gap")
    assert gap["made_up"] == {"started": 1, "changed": 1, "ended": 1}
    assert lost["last_heard"] == gap["since"] < gap["until"]
    assert gap["level"] == "warning"
    await mcp.event("closed", session_id="ends", reason="call_ended")
    await mcp.event("created", session_id="new")
    await mcp.event("created", session_id="rings")
    for channel in ("stays", "new", "rings"):
        await pbx.hang_up(channel)
        await mcp.event("closed", session_id=channel)
    assert {event.data["session_id"] for event in mcp.of("created")} == {"stays", "ends", "rings", "new"}


async def test_what_cannot_be_made_up_is_said(mcp: Cluster, pbx: Ari | Ami, bridging: Bridging):
    await mcp.start()
    pbx.refuse_lists = True
    bridge = await bridging(mcp, pbx)
    await pbx.go()
    await bridge.logged("pbx.lost")
    await pbx.come()
    gap = await bridge.logged("pbx.gap")
    assert "403" in gap["not_made_up"] or "write = reporting" in gap["not_made_up"]
    await pbx.begin("goes on")
    await mcp.event("created", session_id="goes on")


async def test_calls_that_live_when_the_bridge_comes_are_told(mcp: Cluster, pbx: Ari | Ami, bridging: Bridging):
    await mcp.start()
    await pbx.begin("earlier")
    await bridging(mcp, pbx)
    await mcp.event("created", session_id="earlier")
    await pbx.hang_up("earlier")
    await mcp.event("closed", session_id="earlier")


async def test_the_broker_may_go_away(own_broker: PrivateBroker, prefix: str, pbx: Ari | Ami, bridging: Bridging):
    async with cluster(own_broker.url, prefix) as mcp:
        await mcp.start(faulty())
        await bridging(mcp, pbx)
        for number in range(10):
            await pbx.begin(f"before-{number}")
        await mcp.until(lambda: len(mcp.of("created")) == 10)
        restarting = asyncio.create_task(asyncio.to_thread(own_broker.restart))
        for number in range(10):  # while the broker goes, is away, and comes
            await pbx.hang_up(f"before-{number}")
            await pbx.begin(f"meanwhile-{number}")
            await asyncio.sleep(0.3)
        await restarting
        async with asyncio.timeout(60):
            while len(await open_sessions(mcp)) != 10 or not all(
                "meanwhile" in one for one in await open_sessions(mcp)
            ):
                await asyncio.sleep(0.2)
        for number in range(10):
            await pbx.hang_up(f"meanwhile-{number}")
        async with asyncio.timeout(60):
            while await open_sessions(mcp):
                await asyncio.sleep(0.2)


async def open_sessions(mcp: Cluster) -> list[str]:
    from schemas.errors import SessionsError

    try:
        return list((await mcp.client.list_sessions()).sessions)
    except SessionsError:
        return ["the broker is not there"]


async def test_while_the_broker_is_away_what_counts_is_kept_within_the_bound(
    own_broker: PrivateBroker, prefix: str, ami: Ami, bridging: Bridging
):
    async with cluster(own_broker.url, prefix) as mcp:
        await mcp.start(faulty())
        bridge = await bridging(mcp, ami, MCP_SESSIONS_ASTERISK_MAX_KEPT="100")
        await ami.begin("before")
        await mcp.event("created", session_id="before")
        await asyncio.to_thread(own_broker.stop_app)
        try:
            await bridge.logged("broker.lost")
            await ami.hang_up("before")
            await ami.begin("lives")
            for number in range(300):
                await ami.begin(f"short-{number}")
                await ami.hang_up(f"short-{number}")
            told = await bridge.logged("bridge.no_room")
            assert told["lost"] == 0
            assert told["of_calls_over"] > 0
        finally:
            await asyncio.to_thread(own_broker.start_app)
        await mcp.event("closed", session_id="before", within=60)
        await mcp.event("created", session_id="lives", within=60)


async def test_when_it_is_told_to_leave_everything_is_published(mcp: Cluster, pbx: Ari | Ami, bridging: Bridging):
    await mcp.start(config(routes=[{"services": []}]))  # the worker has its messages, and opens no session
    bridge = await bridging(mcp, pbx)
    for number in range(50):
        await pbx.begin(f"c-{number}")
    assert await bridge.terminate() == 0
    await bridge.logged("bridge.stopped")
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="translated", kind="started")) == 50)


async def test_a_wrong_password_ends_it_with_a_sentence(mcp: Cluster, pbx: Ari | Ami):
    await mcp.start()
    bridge = await spawned(mcp, pbx, MCP_SESSIONS_ASTERISK_PASSWORD="not the password")
    assert await bridge.ended() == 2
    refused = await bridge.logged("pbx.refused")
    assert "refuses the user 'bridge'" in refused["error"]
    assert "not the password" not in str(bridge.records)


async def test_a_pbx_that_is_not_there_ends_it_after_a_while(mcp: Cluster, pbx: Ari | Ami):
    await mcp.start()
    await pbx.go()
    bridge = await spawned(mcp, pbx, MCP_SESSIONS_CONNECT_TIMEOUT="1")
    assert await bridge.ended() == 3
    assert (await bridge.logged("pbx.unreachable"))["pbx"] == pbx.url


async def test_without_workers_there_is_nowhere_to_publish_to(mcp: Cluster, ami: Ami):
    prefix = f"{mcp.prefix}-without"
    bridge = await spawned(mcp, ami, MCP_SESSIONS_CONNECT_TIMEOUT="1", MCP_SESSIONS_PREFIX=prefix)
    assert await bridge.ended() == 3
    assert "start a worker" in (await bridge.logged("broker.unreachable"))["error"]


async def test_a_bridge_whose_application_is_taken_gives_way(mcp: Cluster, ari: Ari, bridging: Bridging):
    await mcp.start()
    first = await bridging(mcp, ari)
    second = await bridging(mcp, ari)
    assert await first.ended() == 2
    assert "another program" in (await first.logged("pbx.refused"))["error"]
    await ari.begin("still heard")
    await mcp.event("created", session_id="still heard")
    assert second.process.returncode is None


async def test_of_an_application_only_its_channels_are_heard_to_their_end(mcp: Cluster, ari: Ari, bridging: Bridging):
    await mcp.start()
    bridge = await bridging(mcp, ari, MCP_SESSIONS_ASTERISK_SUBSCRIBE_ALL="false")
    await ari.begin("elsewhere")
    await ari.begin("ours", stasis=True)
    await mcp.event("created", session_id="ours")
    async with asyncio.timeout(45):
        while "ours" not in ari.subscribed:
            await asyncio.sleep(0.02)
    await ari.go()
    await bridge.logged("pbx.lost")
    ari.subscribed.clear()  # they go with the connection
    await ari.come()
    assert "subscribed to all" in (await bridge.logged("pbx.gap"))["not_made_up"]
    async with asyncio.timeout(45):
        while "ours" not in ari.subscribed:
            await asyncio.sleep(0.02)
    await ari.hang_up("ours")
    await mcp.event("closed", session_id="ours")
    assert [event.data["session_id"] for event in mcp.of("created")] == ["ours"]


async def test_it_tells_how_it_is_over_http(mcp: Cluster, pbx: Ari | Ami, bridging: Bridging):
    await mcp.start()
    bridge = await bridging(mcp, pbx, MCP_SESSIONS_HTTP_PORT="0")
    port = (await bridge.logged("http.listening"))["port"]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert (await http.get("/readyz")).json() == {"ready": True, "link": True, "pbx": True}
        await pbx.begin("c-1")
        await pbx.noise()
        await mcp.event("created", session_id="c-1")
        await pbx.go()
        await bridge.logged("pbx.lost")
        assert (await http.get("/readyz")).status_code == 503
        await pbx.hang_up("c-1")
        await pbx.come()
        await bridge.logged("pbx.gap")
        await mcp.event("closed", session_id="c-1")
        told = (await http.get("/metrics")).text
    for line in (
        'mcp_sessions_bridge_events_total{outcome="published"} 2.0',
        'mcp_sessions_bridge_events_total{outcome="ignored"} ',
        'mcp_sessions_bridge_events_total{outcome="made_up"} 1.0',
        "mcp_sessions_bridge_gaps_total 1.0",
        "mcp_sessions_bridge_pbx_up 1.0",
        "mcp_sessions_bridge_calls 0.0",
    ):
        assert line in told


async def test_an_event_without_what_it_needs_becomes_a_dead_letter(mcp: Cluster, ami: Ami, bridging: Bridging):
    await mcp.start()
    await bridging(mcp, ami)
    ami._tell({"Event": "Newchannel", "Privilege": "call,all", "Channel": "PJSIP/x"})
    await mcp.until(lambda: mcp.logged("delivery", outcome="dead_lettered", reason="unrecognised"))


async def test_a_bridge_restarted_beside_living_calls_opens_nothing_twice(
    mcp: Cluster, pbx: Ari | Ami, bridging: Bridging
):
    await mcp.start()
    bridge = await bridging(mcp, pbx)
    await pbx.begin("lives")
    await mcp.event("created", session_id="lives")
    assert await bridge.terminate() == 0
    again = await spawned(mcp, pbx)
    try:
        assert (await again.logged("pbx.attached", within=START))["calls"] == 1
        await pbx.hang_up("lives")
        await mcp.event("closed", session_id="lives")
    finally:
        assert await again.terminate() == 0
    assert len(mcp.of("created")) == 1
