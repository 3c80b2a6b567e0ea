"""SIGHUP: another configuration for calls that start from then on."""

import json
import signal

import pytest

from schemas.errors import Capacity, ServiceNotFound, StartFailed
from tests.harness import ECHO, Cluster, WorkerProcess, config


async def reload(mcp: Cluster, worker: WorkerProcess, configuration: dict, *, outcome: str) -> dict:
    told = len([one for one in worker.records if one.get("event") == outcome])
    (mcp.folder / "worker-0.json").write_text(json.dumps(configuration))
    worker.process.send_signal(signal.SIGHUP)
    await mcp.until(lambda: len([one for one in worker.records if one.get("event") == outcome]) > told)
    return [one for one in worker.records if one.get("event") == outcome][-1]


async def test_new_calls_get_the_new_configuration_and_live_calls_keep_theirs(mcp: Cluster):
    worker = await mcp.start(config())
    await mcp.client.create("before", "echo")
    other = {"command": ECHO}
    await reload(
        mcp,
        worker,
        {
            "services": {"other": other},
            "routes": [{"match": {"to": "+1*"}, "services": ["other"], "metadata": {"tenant": "new"}}],
            "session": {"default_timeout": 77},
        },
        outcome="settings.reloaded",
    )
    # The service of a live call is not configured any more, and serves it on.
    assert (await mcp.client.call_tool("before", "echo", {"text": "still here"})).text == "still here"
    assert (await mcp.client.touch("before")).timeout == 300
    with pytest.raises(ServiceNotFound):
        await mcp.client.create("late", "echo")
    await mcp.client.publish_call_event({"call_id": "after", "kind": "started", "to": "+1555"})
    created = await mcp.event("created", session_id="after")
    assert created.data["service_name"] == "other"
    assert created.data["metadata"]["tenant"] == "new"
    assert created.data["timeout"] == 77


async def test_a_service_that_a_reload_has_mended_is_not_called_failing_any_more(mcp: Cluster):
    broken = {"command": ["false"]}
    worker = await mcp.start({"services": {"mended": broken, "left": broken}})

    async def failing() -> set[str]:
        (figures,) = (await mcp.client.worker_figures()).workers
        return set(figures.failing)

    for service in ("mended", "left"):
        with pytest.raises(StartFailed):
            await mcp.client.create(service, service)
    assert await failing() == {"mended", "left"}
    mended = {"services": {"mended": {"command": ECHO}, "left": broken}}
    await reload(mcp, worker, mended, outcome="settings.reloaded")
    assert await failing() == {"left"}
    await reload(mcp, worker, {"services": {"mended": {"command": ECHO}}}, outcome="settings.reloaded")
    assert await failing() == set()


async def test_limits_hold_from_the_next_start_on_and_close_nothing(mcp: Cluster):
    worker = await mcp.start(config())
    for number in range(3):
        await mcp.client.create(f"s-{number}", "echo")
    limited = config(session={"max_total_sessions": 2}, worker={"admission_wait": 0.2})
    await reload(mcp, worker, limited, outcome="settings.reloaded")
    with pytest.raises(Capacity):
        await mcp.client.create("one-more", "echo")
    assert set((await mcp.client.list_sessions()).sessions) == {"s-0", "s-1", "s-2"}
    await reload(mcp, worker, config(session={"max_total_sessions": 9}), outcome="settings.reloaded")
    await mcp.client.create("one-more", "echo")


async def test_a_wrong_configuration_changes_nothing_and_each_fault_is_told(mcp: Cluster):
    worker = await mcp.start(config())
    wrong = {"services": {"echo": {"command": []}}, "session": {"default_timeout": -1}}
    told = await reload(mcp, worker, wrong, outcome="settings.not_reloaded")
    assert told["faults"] == 2
    keys = {record["key"] for record in worker.records if record.get("event") == "settings.fault"}
    assert keys == {"services.echo", "session.default_timeout"}
    await mcp.client.create("works-on", "echo")


async def test_what_needs_a_restart_is_named(mcp: Cluster):
    worker = await mcp.start(config())
    told = await reload(
        mcp, worker, config(worker={"grace": 9, "tombstone": 1, "drain_timeout": 3}), outcome="settings.need_restart"
    )
    assert told["settings"] == ["worker.tombstone", "worker.grace"]
