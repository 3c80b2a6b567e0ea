"""A worker's id is one process's: a second process under it goes, and a restart after a crash does not wait."""

import asyncio

from tests.harness import START, Cluster, config

ID = {"MCP_SESSIONS_WORKER_ID": "worker-1"}


async def test_a_worker_whose_id_is_alive_elsewhere_exits_with_2_and_says_so(mcp: Cluster):
    first = await mcp.start(config(), **ID)
    await mcp.client.create("c", "echo")
    second = await mcp.spawn(config(), **ID)
    taken = await second.logged("worker.id_taken", within=START)
    assert (taken["level"], taken["worker_id"], taken["pid"]) == ("error", "worker-1", first.process.pid)
    assert "a different worker_id" in taken["hint"]
    assert await second.ended() == 2
    wrong = {"worker.ready", "broker.not_there", "broker.not_usable"}
    assert not wrong.intersection(record["event"] for record in second.records)
    # Nothing of it has touched the first one.
    answer = await mcp.client.call_tool("c", "counter")
    assert answer.structured_content == {"count": 1}
    assert [worker.pid for worker in (await mcp.client.list_workers()).workers] == [first.process.pid]


async def test_of_two_that_start_at_the_same_time_one_stays(mcp: Cluster):
    both = [await mcp.spawn(config(), **ID) for _ in range(2)]
    ends = [asyncio.create_task(worker.process.wait()) for worker in both]
    done, left = await asyncio.wait(ends, timeout=START, return_when=asyncio.FIRST_COMPLETED)
    for waiting in left:
        waiting.cancel()
    assert [task.result() for task in done] == [2]
    (stays,) = (worker for worker, ended in zip(both, ends, strict=True) if ended not in done)
    await stays.logged("worker.ready", within=START)
    await mcp.client.create("c", "echo")
    assert [worker.pid for worker in (await mcp.client.list_workers()).workers] == [stays.process.pid]


async def test_a_restart_under_the_same_id_after_a_crash_takes_calls_at_once(mcp: Cluster):
    first = await mcp.start(config(), **ID)
    await mcp.client.create("c", "echo")
    await first.kill()
    again = await mcp.start(config(), **ID)
    ready = again.records.index(await again.logged("worker.ready"))
    assert not [one for one in again.records[:ready] if one["level"] in ("warning", "error")]
    await mcp.client.create("new", "echo", timeout=60)
    assert [event.subject for event in mcp.of("created", worker_id="worker-1")].count("new") == 1
