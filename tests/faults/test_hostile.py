"""What is sent to hurt: ids, bodies, floods, and servers that take their worker along."""

import asyncio
import time
from functools import partial
from pathlib import Path

import pytest

from schemas.errors import Capacity, InvalidMessage
from schemas.ids import escape_call_id
from tests.faults.checker import check, everything_is_over
from tests.faults.stage import Stage, faulty
from tests.harness import ECHO, WorkerProcess, worker_id_of

pytestmark = pytest.mark.timeout(240)

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "🙂" * 63 + "abc",
    "é" * 127,
    "#",
    "a#b#c",
    "#echo",
    "'; rm -rf / #",
    '"quoted" and \\backslashed\\',
    "two\nlines\r\nand\ttabs",
    "$(reboot) `reboot` ${IFS}",
    "\x00nul\x00",
    "*.#.*",
    "%23",
    "sha256:0",
    " ",
    "-rf",
    "x" * 255,
    "mcp.inbox.somebody",
    "1741788930.12",
    "a84b4c76e66710@pc33.example.com;tag=[1]+:",
]


async def test_hostile_call_ids_live_a_whole_life(scene: Stage):
    assert all(len(one.encode()) <= 255 for one in HOSTILE)
    first = await scene.start()
    calls = list(dict.fromkeys(escape_call_id(one) for one in HOSTILE))
    await asyncio.gather(*(scene.publish(one, "started") for one in HOSTILE))
    # An id and its escaped form are one call.
    await scene.until(lambda: {e.subject for e in scene.of("created")} == set(calls))
    answers = await asyncio.gather(*(scene.client.call_tool(one, "echo", {"text": one}) for one in calls))
    assert [answer.text for answer in answers] == calls
    assert set((await scene.sessions()).keys()) == set(calls)
    second = await scene.start()
    await scene.kill_worker(first)
    await scene.until(lambda: {e.subject for e in scene.of("created", restored=True)} == set(calls), within=30)
    assert {e.subject for e in scene.of("lost")} == set(calls)
    answers = await asyncio.gather(*(scene.client.call_tool(one, "cwd") for one in calls))
    folders = {answer.structured_content["cwd"] for answer in answers}
    assert len(folders) == len(calls)
    assert all(scene.folder / "sandbox" in Path(folder).resolve().parents for folder in folders)
    assert {info.worker_id for info in (await scene.sessions()).values()} == {second.worker_id}
    scene.accepted = set(calls)
    scene.ended = set()
    await asyncio.gather(*(scene.publish(one, "ended") for one in HOSTILE))
    await scene.until(lambda: {e.subject for e in scene.of("closed", reason="call_ended")} == set(calls))
    await check(scene, "hostile call ids")


async def test_poison_is_dead_lettered_with_its_reason_and_stops_nothing(scene: Stage):
    await scene.start()
    await scene.start()
    names = scene.names
    await scene.start_calls(["healthy"])
    poison = [
        (names.calls, "", None, b"{"),
        (names.calls, "", None, b""),
        (names.calls, "", None, b"\x00\xff" * 1000),
        (names.calls, "", None, b"[" * 100_000),
        (names.calls, "", None, b'{"call_id": null}'),
        (names.sessions, "healthy", "session.create", b"not json"),
        (names.sessions, "healthy", "session.create", b'{"session_id": "healthy"}'),
        (names.sessions, "healthy", "session.destroy", b"{}"),
        (names.sessions, "healthy", "call.recipe", b'{"call_id": "healthy"}'),
        (names.sessions, "nobody", "call.started", b'{"call_id": "x", "kind": "ended"}'),
        (names.requests, "healthy", "tools.call", b"[]"),
        (names.requests, "nobody", None, b"{}"),
        ("", names.queries, "sessions.list", b'{"limit": -1}'),
        ("", names.queries, "session.get", b'{"session_id": "x"}'),
        ("", names.inbox(worker_id_of(scene.workers[0])), "owner.check", b"{}"),  # type: ignore[arg-type]
    ]
    await scene.send_poison(poison)
    await scene.until(lambda: len(scene.logged("delivery", outcome="dead_lettered")) == len(poison))
    assert (await scene.try_tool("healthy", "echo", {"text": "well"})).text == "well"
    await scene.end_calls(["healthy"])
    report = await check(scene, "poison")
    assert report.counts["dead_letters"] == len(poison)


async def test_an_answer_of_any_size_costs_nobody_the_connection(scene: Stage):
    """RabbitMQ takes 16 MiB from 4.0 on, and closes the channel for more."""
    roomy = faulty(session={"max_metadata": "2M"})
    await scene.start({**roomy, "services": {"echo": {"command": ECHO, "max_result": "32M"}}})
    await scene.start_calls(["healthy"])
    # Its text comes twice in the answer.
    with pytest.raises(InvalidMessage, match="too large"):
        await scene.client.call_tool("healthy", "big", {"size": 9 << 20}, timeout=60)
    large = [f"large-{number}" for number in range(17)]
    metadata = {"note": "x" * (1 << 20)}
    await asyncio.gather(*(scene.client.create(one, "echo", metadata=metadata, reply_timeout=60) for one in large))
    with pytest.raises(InvalidMessage, match="request less"):
        await scene.client.list_sessions()
    page = await scene.client.list_sessions(limit=5)
    assert len(page.sessions) == 5
    await scene.end_calls(["healthy", *large])
    await scene.until(lambda: {e.subject for e in scene.of("closed")} == {"healthy", *large})
    assert not scene.logged("broker.lost")
    await check(scene, "answers of any size")


async def test_with_all_workers_full_starts_are_rejected_in_time_and_ends_still_close(scene: Stage):
    wait, room = 3.0, 20
    configuration = faulty(
        session={"max_total_sessions": room, "max_sessions_per_service": room}, worker={"admission_wait": wait}
    )
    for _ in range(2):
        await scene.start(configuration)
    living = [f"live-{number}" for number in range(2 * room)]
    await scene.start_calls(living)
    beyond = [f"beyond-{number}" for number in range(200)]
    began = time.monotonic()
    await asyncio.gather(*(scene.publish(call, "started") for call in beyond))
    published = time.monotonic()
    tool = asyncio.create_task(scene.client.call_tool("live-7", "echo", {"text": "still answered"}))
    with pytest.raises(Capacity):
        await scene.client.create("command", "echo")
    assert (await tool).text == "still answered"
    # Each waits by itself: one after the other they would take ten times as long, however fast the machine is.
    all_at_once = len(beyond) * wait / 10
    await scene.until(
        lambda: {e.data["call_id"] for e in scene.of("rejected")} >= {*beyond, "command"}, within=all_at_once
    )
    took = time.monotonic() - published
    print(f"\n200 starts beyond capacity rejected {took:.1f} s after the last, wait {wait} s")  # noqa: T201
    assert {e.data["code"] for e in scene.of("rejected")} <= {"CAPACITY", "SERVICE_SESSION_LIMIT"}
    assert time.monotonic() - began >= wait
    # What ends makes room, in the same moment for those who wait.
    waiting = [f"patient-{number}" for number in range(5)]
    await asyncio.gather(*(scene.publish(call, "started") for call in waiting))
    began = time.monotonic()
    await scene.end_calls(living[:5])
    await scene.until(lambda: {e.subject for e in scene.of("closed")} >= set(living[:5]))
    print(f"ends took {time.monotonic() - began:.2f} s")  # noqa: T201
    await scene.until(lambda: {e.subject for e in scene.of("created")} >= set(waiting))
    await scene.end_calls([*living[5:], *waiting, *beyond])
    report = await check(scene, "all workers full")
    assert report.counts["rejected"] == len(beyond) + 1


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_ten_thousand_waiting_starts_hold_up_nobody_and_none_vanishes(scene: Stage):
    """With a worker that has fallen silent, and a placer that is replaced while they wait."""
    room, count = 20, 10_000
    configuration = faulty(
        session={"max_total_sessions": room, "max_sessions_per_service": room}, worker={"admission_wait": 120}
    )
    for _ in range(4):
        await scene.start(configuration)
    living = [f"live-{number}" for number in range(4 * room)]
    await scene.start_calls(living)
    frozen = next(worker for worker in scene.alive if not _places(worker))
    its_own = await scene.calls_of(frozen)
    scene.freeze(frozen)
    waiting = [f"waiting-{number}" for number in range(count)]
    began = time.monotonic()
    for part in range(0, count, 500):
        await asyncio.gather(*(scene.publish(call, "started") for call in waiting[part : part + 500]))
    print(f"\n{count} starts published in {time.monotonic() - began:.1f} s")  # noqa: T201

    async def live(calls: list[str]) -> float:
        """Use, close and end live calls while all the others wait; each end makes room for one that waits."""
        began = time.monotonic()
        answers = await asyncio.gather(*(scene.client.call_tool(call, "echo", {"text": "hm"}) for call in calls))
        assert {answer.text for answer in answers} == {"hm"}
        assert (await scene.client.close(calls[0])).closed
        opened = len(scene.of("created"))
        await scene.end_calls(calls[1:])
        await scene.until(lambda: {e.subject for e in scene.of("closed")} >= set(calls), within=60)
        await scene.until(lambda: len(scene.of("created")) >= opened + len(calls), within=60)
        return time.monotonic() - began

    others = [call for call in living if call not in its_own]
    took = [await live(others[:10])]
    for turn in (1, 2):  # whoever places now is replaced, and everything that waits goes to the next one
        placer = next(worker for worker in scene.alive if worker is not frozen and _places(worker))
        await scene.kill_worker(placer)
        await scene.start(configuration)
        await scene.until(lambda: len(scene.of("started")) == 4 + turn)  # noqa: B023
        still = [call for call in await scene.sessions() if call in living and call not in its_own]
        took.append(await live(still[:5]))
    print(f"live calls were served in {[round(one, 1) for one in took]} s beside them")  # noqa: T201
    scene.thaw(frozen)

    undecided, read = set(waiting), 0

    def over() -> bool:
        """Read each event once: reading all again with each of ten thousand takes longer than they take to come."""
        nonlocal read
        new, read = scene.events[read:], len(scene.events)
        undecided.difference_update(e.data["call_id"] for e in new if e.type.endswith((".rejected", ".created")))
        return not undecided

    await scene.until(over, within=300)
    print(f"all were rejected or opened {time.monotonic() - began:.0f} s after the first")  # noqa: T201
    assert {e.data["code"] for e in scene.of("rejected")} <= {"CAPACITY", "SERVICE_SESSION_LIMIT"}
    await scene.end_calls(living)
    for part in range(0, count, 500):
        await scene.end_calls(waiting[part : part + 500])
    await scene.until(lambda: everything_is_over(scene), within=300)  # behind ten thousand ends of what never began
    await check(scene, "ten thousand waiting")


def _places(worker: WorkerProcess) -> bool:
    return any(record.get("event") == "placer.elected" for record in worker.records)


@pytest.mark.long
async def test_a_call_that_keeps_killing_its_worker_is_given_up(scene: Stage):
    await scene.start()
    await scene.start_calls(["deadly"])

    def opened(lives: int) -> bool:
        return len(scene.of("created")) == lives

    def over(lives: int) -> bool:
        return len(scene.of("lost")) + len(scene.of("died")) == lives

    for life in range(1, 5):  # opened once, restored three times
        await scene.until(partial(opened, life))
        await scene.start()
        owner = (await scene.sessions())["deadly"].worker_id
        await scene.kill_worker(next(worker for worker in scene.alive if worker_id_of(worker) == owner))
        await scene.until(partial(over, life))
    assert scene.of("died", reason="crash_loop")
    await scene.end_calls(["deadly"])
    report = await check(scene, "crash loop")
    assert (report.counts["created"], report.counts["lost"], report.counts["died"]) == (4, 3, 1)


@pytest.mark.long
async def test_servers_that_die_at_random_take_nobody_along(scene: Stage):
    await scene.start({**faulty(), "services": {"echo": {"command": [*ECHO, "--grandchild"]}}})
    calls = [f"call-{number}" for number in range(30)]
    await scene.start_calls(calls)
    await asyncio.gather(*(scene.try_tool(call, "die", {"signal_number": 9}) for call in calls[::2]))
    await scene.until(lambda: {e.subject for e in scene.of("died")} == set(calls[::2]))
    assert set(await scene.sessions()) == set(calls[1::2])
    assert set((await scene.counts(calls[1::2])).values()) == {1}
    await scene.end_calls(calls)
    await check(scene, "servers die")
