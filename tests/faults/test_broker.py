"""The broker goes and comes back: calls keep their processes and their state."""

import asyncio
import time

import pytest

from tests.faults.checker import check
from tests.faults.stage import Stage, faulty

pytestmark = pytest.mark.timeout(240)


async def fifty_calls_through(scene: Stage, down: str, up: str, *, seconds: float) -> None:
    configuration = faulty(session={"default_timeout": 300})
    for _ in range(2):
        await scene.start(configuration)
    calls = [f"call-{number}" for number in range(50)]
    await scene.start_calls(calls)
    short = [f"short-{number}" for number in range(5)]
    await asyncio.gather(*(scene.client.create(one, "echo", timeout=4) for one in short))
    assert set((await scene.counts(calls)).values()) == {1}
    before = await scene.sessions()
    pids = {process.pid for worker in scene.workers for process in worker.children()}

    if "kill" in down:
        await asyncio.to_thread(scene.broker.sync)
    await scene.break_down(down)
    down_at = time.monotonic()
    await asyncio.sleep(seconds)  # the length of the outage is what is tested
    rising = asyncio.create_task(scene.break_down(up))
    # Published as soon as the broker takes it: the workers are still finding their way back.
    ending = calls[:10]
    await scene.end_calls(ending)
    published_at = time.monotonic()
    await rising
    await scene.until(lambda: {e.subject for e in scene.of("closed", reason="call_ended")} >= set(ending), within=40)
    honoured = time.monotonic() - published_at
    await scene.until(lambda: {e.subject for e in scene.of("expired", reason="idle")} >= set(short), within=20)
    living = calls[10:]
    after = await scene.sessions_are(living)
    for call in living:
        assert (after[call].worker_id, after[call].created_at) == (
            before[call].worker_id,
            before[call].created_at,
        )
        assert not after[call].restored
    assert set((await scene.counts(living)).values()) == {2}, "a session has lost its state"
    kept = {process.pid for worker in scene.workers for process in worker.children()}
    assert kept <= pids
    assert not scene.of("lost")
    print(f"\n{time.monotonic() - down_at:.1f} s from outage to end; ends honoured after {honoured:.1f} s")  # noqa: T201
    # Everything works as before.
    more = [f"more-{number}" for number in range(10)]
    await scene.start_calls(more)
    await scene.end_calls([*living, *more])
    await check(scene, f"broker {down}")


async def test_a_broker_that_is_away_for_ten_seconds_costs_no_session(scene: Stage):
    await fifty_calls_through(scene, "stop_app", "start_app", seconds=10)


@pytest.mark.long
async def test_a_broker_that_is_killed_and_started_again_costs_no_session(scene: Stage):
    await fifty_calls_through(scene, "kill", "start", seconds=1)
