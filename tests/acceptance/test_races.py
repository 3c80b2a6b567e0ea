"""Races between events, commands and workers: the outcome is always one that somebody could have wanted."""

import asyncio
import random
from collections import Counter

import pytest

from schemas.events import TERMINAL
from schemas.sessions import SessionInfo
from tests.harness import ECHO, FORKED, Cluster, config

ENDS = {kind.value for kind in TERMINAL}


def lives(mcp: Cluster) -> tuple[Counter, Counter]:
    """How many lives each session began and ended.

    Of a worker that dies in a life's first moments, a placer tells `created` as well: the same event.
    """
    began = Counter(session for session, _ in {(event.subject, event.id) for event in mcp.of("created")})
    ended: Counter = Counter()
    for event in mcp.events:
        what = event.type.rpartition(".")[2]
        if what in ENDS and event.type.startswith("mcp.session."):
            ended[event.subject] += 1
    return began, ended


async def test_a_start_repeated_on_several_workers_opens_one_session(mcp: Cluster):
    await mcp.start()
    await mcp.start()
    start = {"call_id": "often", "kind": "started"}
    await asyncio.gather(*(mcp.client.publish_call_event(start) for _ in range(20)))
    await mcp.until(lambda: len(mcp.logged("delivery", queue=f"{mcp.prefix}.calls")) == 20)
    await mcp.client.publish_call_event({"call_id": "often", "kind": "ended"})
    await mcp.event("closed", session_id="often")
    assert len(mcp.of("created")) == 1
    assert len(mcp.of("closed")) == 1


async def test_a_start_behind_its_end_opens_nothing(mcp: Cluster):
    await mcp.start()
    await mcp.client.publish_call_event({"call_id": "late", "kind": "ended"})
    await mcp.until(lambda: mcp.logged("delivery", queue=f"{mcp.prefix}.calls", outcome="translated", kind="ended"))
    await mcp.client.publish_call_event({"call_id": "late", "kind": "started"})
    await mcp.until(lambda: mcp.logged("delivery", outcome="ended_before"))
    assert lives(mcp) == (Counter(), Counter())


async def test_a_hundred_calls_at_once_on_two_workers(mcp: Cluster):
    await mcp.start(FORKED)
    await mcp.start(FORKED)
    calls = [f"call-{number}" for number in range(100)]
    await asyncio.gather(*(mcp.client.publish_call_event({"call_id": c, "kind": "started"}) for c in calls))
    await mcp.until(lambda: len(mcp.of("created")) == 100, within=40)
    by_worker = Counter(event.data["worker_id"] for event in mcp.of("created"))
    assert sorted(by_worker) == sorted(worker.worker_id for worker in mcp.workers)
    assert min(by_worker.values()) >= 30, by_worker
    listed = await mcp.client.list_sessions()
    assert sorted(listed.sessions) == sorted(calls)
    assert listed.complete
    await asyncio.gather(*(mcp.client.publish_call_event({"call_id": c, "kind": "ended"}) for c in calls))
    await mcp.until(lambda: len(mcp.of("closed")) == 100)
    assert (await mcp.client.list_sessions()).sessions == {}


async def test_replacing_under_load_leaves_one_session_and_ends_every_other_once(mcp: Cluster):
    await mcp.start()
    answers = await asyncio.gather(*(mcp.client.create("same", "echo") for _ in range(20)))
    assert {answer.session_id for answer in answers} == {"same"}
    await mcp.until(lambda: len(mcp.of("created")) == 20)
    await mcp.until(lambda: len(mcp.of("closed", reason="replaced")) == 19)
    assert list((await mcp.client.list_sessions()).sessions) == ["same"]


async def test_the_placer_is_killed_in_mid_flight_and_no_call_is_lost(mcp: Cluster):
    for _ in range(3):
        await mcp.start(FORKED)
    calls = [f"call-{number}" for number in range(60)]
    await asyncio.gather(*(mcp.client.publish_call_event({"call_id": c, "kind": "started"}) for c in calls))
    await mcp.until(lambda: mcp.logged("placer.elected"))
    placer = next(w for w in mcp.workers if any(one.get("event") == "placer.elected" for one in w.records))
    await mcp.until(lambda: len(mcp.of("created")) > 5)
    await placer.kill()

    def everybody_lives() -> bool:
        began, ended = lives(mcp)
        return all(began[call] - ended[call] == 1 for call in calls)

    await mcp.until(everybody_lives, within=40)
    survivors = {worker.worker_id for worker in mcp.workers if worker is not placer}
    listed = await mcp.client.list_sessions()
    assert sorted(listed.sessions) == sorted(calls)
    assert {info.worker_id for info in listed.sessions.values()} <= survivors
    await asyncio.gather(*(mcp.client.publish_call_event({"call_id": c, "kind": "ended"}) for c in calls))
    await mcp.until(lambda: lives(mcp)[0] == lives(mcp)[1])


@pytest.mark.timeout(240)
async def test_two_hundred_calls_with_races_have_exactly_one_terminal_event_each(mcp: Cluster):
    limits = {"default_timeout": 1.0, "max_sessions_per_service": 200}
    await mcp.start(config(session=limits, **FORKED))
    await mcp.start(config(session=limits, **FORKED))
    chance = random.Random(7)
    room = asyncio.Semaphore(40)

    async def live(number: int) -> None:
        call = f"race-{number}"

        async def event(kind: str) -> None:
            await mcp.client.publish_call_event({"call_id": call, "kind": kind})

        async def quietly(work) -> None:
            await asyncio.gather(work, return_exceptions=True)

        steps = [event("started"), event("progress")]
        match chance.randrange(6):
            case 0:
                steps += [event("ended"), event("ended")]
            case 1:
                steps += [quietly(mcp.client.close(call)), event("ended")]
            case 2:
                steps += [quietly(mcp.client.create(call, "echo")), quietly(mcp.client.create(call, "echo"))]
            case 3:
                steps += [quietly(mcp.client.call_tool(call, "die", service_name="echo", timeout=5))]
            case 4:
                steps += [quietly(mcp.client.call_tool(call, "echo", {"text": "x"}, service_name="echo", timeout=10))]
            case _:
                pass  # expires by itself
        chance.shuffle(steps)
        async with room:
            await asyncio.gather(*steps)

    await asyncio.gather(*(live(number) for number in range(200)))

    def all_over() -> bool:
        began, ended = lives(mcp)
        return len(began) > 160 and began == ended

    await mcp.until(all_over, within=50)
    began, ended = lives(mcp)
    assert began == ended
    reasons = Counter(str(event.data.get("reason")) for event in mcp.events)
    print(f"{sum(began.values())} lives of {len(began)} calls, reasons: {dict(reasons)}")  # noqa: T201
    assert {"idle", "call_ended", "replaced", "process_exit"} <= set(reasons)
    assert (await mcp.client.list_sessions()).sessions == {}


async def test_a_start_that_comes_after_a_tool_call_opens_what_is_missing_and_adopts_what_is_there(mcp: Cluster):
    await mcp.start({"services": {"first": {"command": ECHO}, "second": {"command": ECHO}}})
    answer = await mcp.client.call_tool("early", "counter", service_name="second")
    assert answer.session_id == "early"
    await mcp.client.publish_call_event({"call_id": "early", "kind": "started", "from": "+15550100"})
    await mcp.event("created", session_id="early#first")
    opened = (await mcp.client.list_sessions(call_id="early")).sessions
    assert {session_id: info.service_name for session_id, info in opened.items()} == {
        "early": "second",
        "early#first": "first",
    }
    assert {info.metadata["call"]["from"] for info in opened.values()} == {"+15550100"}
    # Its state was kept, and a second start opens nothing.
    answer = await mcp.client.call_tool("early", "counter", service_name="second")
    assert answer.structured_content["count"] == 2
    await mcp.client.publish_call_event({"call_id": "early", "kind": "started"})
    await mcp.client.publish_call_event({"call_id": "early", "kind": "ended"})
    await mcp.until(lambda: len(mcp.of("closed", reason="call_ended")) == 2)
    assert len(mcp.of("created")) == 2


async def test_of_a_hundred_starts_with_a_tool_call_just_before_each_none_has_the_wrong_timeout(mcp: Cluster):
    route = {"services": ["echo"], "timeout": 777, "metadata": {"tenant": "acme"}}
    await mcp.start(config(routes=[route], session={"max_sessions_per_service": 200}, **FORKED))

    async def one(call: str) -> None:
        calling = asyncio.create_task(mcp.client.call_tool(call, "counter", service_name="echo", timeout=20))
        await asyncio.sleep(0)  # it is on its way; its owner is asked for first, so the start may still overtake it
        await mcp.client.publish_call_event({"call_id": call, "kind": "started", "from": "+15550100"})
        await calling

    async def settled(call: str) -> SessionInfo:
        """What the call has, when its start has been carried out."""
        async with asyncio.timeout(45):
            while True:
                found = (await mcp.client.list_sessions(call_id=call)).sessions
                if "call" in (info := found[call]).metadata:
                    return info
                await asyncio.sleep(0.01)

    for batch in range(0, 100, 20):
        calls = [f"call-{number}" for number in range(batch, batch + 20)]
        await asyncio.gather(*map(one, calls))
        for info in await asyncio.gather(*map(settled, calls)):
            assert (info.timeout, info.metadata["tenant"]) == (777, "acme")
        for call in calls:
            await mcp.client.publish_call_event({"call_id": call, "kind": "ended"})
    overtaken = [event for event in mcp.of("created") if "call" not in event.data["metadata"]]
    assert overtaken, "no tool call was faster than its start: this run shows nothing"
    assert len(mcp.of("created")) == 100


async def test_what_a_command_has_said_goes_before_the_route_of_the_start_that_follows(mcp: Cluster):
    await mcp.start({"services": {"echo": {"command": ECHO}}, "routes": [{"services": ["echo"], "timeout": 777}]})
    await mcp.client.create("said", "echo", timeout=55)
    await mcp.client.create("not-said", "echo")
    for call, timeout in (("said", 55), ("not-said", 777)):
        await mcp.client.publish_call_event({"call_id": call, "kind": "started"})
        async with asyncio.timeout(45):
            while "call" not in (info := await mcp.client.get(call)).metadata:
                await asyncio.sleep(0.01)
        assert info.timeout == timeout
