"""The life of a worker: when it is ready, what ends it, and with which code. The broker is simulated."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from consumer.broker.topology import Names
from consumer.settings import ConfigurationError, Settings
from consumer.settings.faults import Fault
from consumer.worker.budgets import leaving_time
from consumer.worker.exit_codes import WorkerExit
from consumer.worker.worker import Worker
from schemas.ids import WorkerId
from tests.calls.asked_server import simulated_servers
from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.broker.node import Node
from tests.simulation.broker.stored import Published
from tests.virtual_time import in_virtual_time, moment, passes

ME = WorkerId("w-1")


def settings(**worker: Any) -> Settings:
    return Settings.model_validate(
        {"services": {"echo": {"url": "http://simulated/mcp"}}, "worker": {"worker_id": ME, "heartbeat": 3, **worker}}
    )


@dataclass
class Living:
    """A worker that lives, on a broker."""

    node: Node
    worker: Worker
    running: "asyncio.Task[WorkerExit]"

    @property
    def consumed(self) -> bool:
        queue = self.node.queues.get(Names().inbox(self.worker.worker_id))
        return queue is not None and bool(queue.consumers)


def begun(node: Node, **worker: Any) -> Living:
    connection = cast("Any", partial(SimulatedConnection, node))
    made = Worker(settings(**worker), connection=connection, starter=simulated_servers())
    return Living(node, made, asyncio.create_task(made.run()))


@asynccontextmanager
async def living(**worker: Any) -> AsyncIterator[Living]:
    one = begun(Node(), **worker)
    async with asyncio.timeout(60):
        await one.worker.is_ready()
    yield one
    if not one.running.done():
        one.worker.leave()
        await one.running


@in_virtual_time
async def test_a_worker_is_ready_when_it_consumes_and_healthy_when_its_probe_is_back():
    async with living() as one:
        assert one.consumed
        await passes(1)
        assert one.worker.healthy
        readiness = one.worker.status.readiness()
        assert readiness == {"ready": True, "state": "ready", "link": True, "probe": True}


@in_virtual_time
async def test_a_worker_that_is_told_to_leave_leaves_nothing():
    async with living() as one:
        left = asyncio.create_task(one.worker.left())
        await passes(1)
        assert not left.done()
        one.worker.leave()
        assert await one.running is WorkerExit.DRAINED
        assert left.done()
        assert Names().inbox(ME) not in one.node.queues
        await passes(0.1)
        assert not one.node.connections
        assert one.worker.status.readiness()["state"] == "stopped"


@in_virtual_time
async def test_a_second_signal_hurries_unless_the_platform_repeats_it():
    async with living() as one:
        with capture_logs() as logs:
            one.worker.leave(signal.SIGTERM)
            one.worker.leave(signal.SIGTERM)
            one.worker.leave(signal.SIGINT)
            await one.running
        told = [one["event"] for one in logs if one["event"].startswith(("worker.drain", "worker.hurry"))]
        assert told == ["worker.draining", "worker.draining_already", "worker.hurrying"]


@in_virtual_time
async def test_a_worker_that_reaches_no_broker_gives_up_in_time():
    node = Node()
    node.up = False
    began = moment()
    one = begun(node, connect_timeout=20.0)
    with capture_logs() as logs:
        assert await one.running is WorkerExit.BROKER_UNREACHABLE
    assert moment() - began == pytest.approx(20, abs=6)
    assert "broker.unreachable" in [log["event"] for log in logs]


@in_virtual_time
async def test_a_worker_that_is_told_to_leave_before_it_has_a_broker_was_never_ready_and_owes_its_events():
    node = Node()
    node.up = False
    began = moment()
    one = begun(node, connect_timeout=60.0)
    await passes(2)
    ready = asyncio.create_task(one.worker.is_ready())
    with capture_logs() as logs:
        one.worker.leave()
        assert await one.running is WorkerExit.DRAIN_TIMED_OUT
    assert moment() - began < 2 + leaving_time(0), "it does not wait for a broker"
    told = {log["event"]: log for log in logs}
    assert told["worker.events_unsent"]["count"] == 2, "that it drains, and that it has stopped"
    assert "worker.ready" not in told
    assert not ready.done()
    ready.cancel()


@in_virtual_time
async def test_a_worker_says_that_it_has_started_once_however_often_its_link_is_lost():
    node, started = Node(), list[str]()

    def published(message: Published, _queues: list[str]) -> None:
        if message.properties.message_type == "mcp.worker.started":
            started.append(message.properties.message_type)

    node.on_publish = published
    one = begun(node)
    await one.worker.is_ready()
    for _ in range(2):
        await passes(1)
        for client in list(node.clients):
            client.cut(client_after=0.1, server_after=0.1)
        await passes(20)
        assert one.worker.healthy
    assert started == ["mcp.worker.started"]
    one.worker.leave()
    assert await one.running is WorkerExit.DRAINED


@in_virtual_time
async def test_of_two_workers_of_one_id_the_second_goes_and_the_first_stays():
    async with living() as first:
        await passes(1)  # it is the older one
        second = begun(first.node)
        with capture_logs() as logs:
            assert await second.running is WorkerExit.BAD_CONFIGURATION
        (told,) = [log for log in logs if log["event"] == "worker.id_taken"]
        assert told["worker_id"] == ME
        assert not first.running.done()
        await passes(30)
        assert first.worker.healthy


@in_virtual_time
async def test_a_worker_comes_back_when_its_link_is_lost():
    async with living() as one:

        def own() -> set[str]:
            return {name for name in one.node.queues if name.startswith(f"mcp.requests.{ME}")}

        await passes(1)
        before = own()
        for client in list(one.node.clients):
            client.cut(client_after=0.1, server_after=0.1)
        await passes(20)
        assert one.worker.healthy
        assert one.consumed
        assert len(own()) == len(before) == 1
        assert own() != before, "a new link has a requests queue of its own"


@in_virtual_time
async def test_a_link_that_comes_while_the_worker_waits_brings_what_it_takes_until_it_goes():
    async with living(drain="wait", drain_timeout=40.0) as one:
        parts = one.worker._parts
        session = await parts.sessions.open_session(
            cast("Any", "c-1"), cast("Any", "echo"), lambda: parts.mcp.create_client("echo")
        )
        assert session.created
        one.worker.leave()
        await passes(1)
        for client in list(one.node.clients):
            client.cut(client_after=0.1, server_after=0.1)
        await passes(15)
        assert one.consumed
        names, queues = Names(), one.node.queues
        shared = (names.unowned, names.calls, names.queries)
        assert all(len(queues[name].consumers) == 1 for name in shared), "there may be no other worker"
        await one.running


@in_virtual_time
async def test_a_configuration_that_is_wrong_changes_nothing():
    async with living() as one:

        def wrong() -> Settings:
            raise ConfigurationError([Fault("worker.grace", "is no number")])

        with capture_logs() as logs:
            one.worker.reload(wrong)
        assert [log["event"] for log in logs] == ["settings.fault", "settings.not_reloaded"]
        with capture_logs() as logs:
            one.worker.reload(lambda: settings(grace=9.0))
        assert [log["event"] for log in logs] == ["settings.reloaded", "settings.need_restart"]
        assert logs[1]["settings"] == ["worker.grace"]
        with capture_logs() as logs:
            one.worker.reload(lambda: settings(admission_wait=9.0))
        assert [log["event"] for log in logs] == ["settings.reloaded"]
