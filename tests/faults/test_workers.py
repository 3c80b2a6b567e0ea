"""Workers die, freeze and leave: no call is without a session for long, and none has two."""

import asyncio
import time

import pytest

from tests.faults.checker import check
from tests.faults.stage import GRACE, HEARTBEAT, Stage

pytestmark = pytest.mark.timeout(240)


async def test_sigkill_of_one_of_two_workers_with_fifty_live_sessions(scene: Stage):
    first, second = await scene.start(), await scene.start()
    calls = [f"call-{number}" for number in range(50)]
    await scene.start_calls(calls)
    before = await scene.sessions()
    assert set((await scene.counts(calls)).values()) == {1}
    victims = {call for call, info in before.items() if info.worker_id == first.worker_id}
    others = set(calls) - victims
    assert victims
    assert others

    await scene.kill_worker(first)
    killed_at = time.monotonic()
    await scene.until(lambda: {e.subject for e in scene.of("created", restored=True)} == victims, within=GRACE + 15)
    took = time.monotonic() - killed_at
    await scene.until(lambda: {e.subject for e in scene.of("lost", reason="worker_gone")} == victims)
    print(f"\n{len(victims)} of 50 restored {took:.1f} s after the SIGKILL (grace {GRACE:g} s)")  # noqa: T201

    after = await scene.sessions()
    assert set(after) == set(calls)
    assert {info.worker_id for info in after.values()} == {second.worker_id}
    assert {call: after[call].created_at for call in others} == {call: before[call].created_at for call in others}
    assert all(after[call].restored for call in victims)
    counts = await scene.counts(calls)
    assert {counts[call] for call in others} == {2}, "the other worker's sessions were touched"
    assert {counts[call] for call in victims} == {1}
    assert not scene.of("closed")
    await scene.end_calls(calls)
    report = await check(scene, "SIGKILL of one of two")
    assert report.counts["lost"] == len(victims)


async def test_a_worker_that_is_frozen_for_longer_than_the_heartbeat_is_superseded(scene: Stage):
    first, second = await scene.start(), await scene.start()
    calls = [f"call-{number}" for number in range(30)]
    await scene.start_calls(calls)
    victims = await scene.calls_of(first)
    scene.freeze(first)
    frozen_at = time.monotonic()
    # What comes for its calls meanwhile: some end, all others are asked something.
    ending = sorted(victims)[:5]
    await scene.end_calls(ending)
    living = victims - set(ending)
    await scene.until(lambda: {e.subject for e in scene.of("created", restored=True)} >= living, within=60)
    print(f"\nrestored {time.monotonic() - frozen_at:.1f} s after SIGSTOP (heartbeat {HEARTBEAT} s)")  # noqa: T201
    scene.thaw(first)
    # It lets go of all of them, and tells nobody a second time: they were reported lost.
    await scene.until(lambda: {r["call_id"] for r in scene.logged("owner.ends_left_to_placer")} == victims, within=30)
    assert {e.subject for e in scene.of("lost")} == victims
    assert not scene.of("closed", worker_id=first.worker_id)
    after = await scene.sessions_are(set(calls) - set(ending))  # ends that came as orphans take their time
    assert {after[call].worker_id for call in living} == {second.worker_id}
    counts = await scene.counts(sorted(living))
    assert set(counts.values()) == {1}
    # It is a full member again.
    more = [f"more-{number}" for number in range(20)]
    await scene.start_calls(more)
    assert {info.worker_id for info in (await scene.sessions()).values()} == {first.worker_id, second.worker_id}
    await scene.end_calls([*sorted(set(calls) - set(ending)), *more])
    await check(scene, "SIGSTOP and SIGCONT")


@pytest.mark.long
@pytest.mark.parametrize("count", [40, 200])
async def test_a_rolling_restart_under_live_calls_and_tool_calls(scene: Stage, count: int):
    for _ in range(3):
        await scene.start()
    calls = [f"call-{number}" for number in range(count)]
    for part in range(0, count, 50):
        await scene.start_calls(calls[part : part + 50])
    done = asyncio.Event()
    failures: list[tuple[str, Exception]] = []
    answered = 0

    async def ask(mine: list[str]) -> None:
        nonlocal answered
        while not done.is_set():
            for call in mine:
                answer = await scene.try_tool(call, "sleep", {"seconds": 0.05}, timeout=10)
                if isinstance(answer, Exception):
                    failures.append((call, answer))
                else:
                    answered += 1

    asking = [asyncio.create_task(ask(calls[one::8])) for one in range(8)]
    took = []
    try:
        for worker in list(scene.workers):
            began = time.monotonic()
            scene.look()
            code = await worker.terminate()
            took.append(round(time.monotonic() - began, 1))
            assert code == 0
            await scene.start()
        await scene.until(lambda: len(scene.of("started")) == 6)
    finally:  # without a link they would ask for ever, and never wait
        done.set()
        await asyncio.gather(*asking)
    kinds = {type(error).__name__: sum(type(e) is type(error) for _, e in failures) for _, error in failures}
    print(f"\n{answered} tool calls answered, {len(failures)} failed {kinds}; leaving took {took} s")  # noqa: T201
    await scene.until(lambda: len(scene.of("created")) - len(scene.of("closed")) == count, within=20)
    after = await scene.sessions()
    assert set(after) == set(calls), "calls without a session"
    assert not scene.of("lost")
    assert len(failures) <= count * 0.05
    await scene.end_calls(calls)
    await check(scene, "rolling restart")
