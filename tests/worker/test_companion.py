"""What runs beside a worker in its process: when it listens, connects, refuses and closes. The broker is simulated."""

import asyncio
from functools import partial
from typing import Any, cast

import pytest

from consumer.observability.listening import CannotListen
from consumer.settings import Settings
from consumer.worker.exit_codes import WorkerExit
from consumer.worker.worker import RECONNECT_PAUSE, Worker, _accompanied
from schemas.errors import CannotConnect
from tests.calls.asked_server import simulated_servers
from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.broker.node import Node
from tests.virtual_time import in_virtual_time, moment, passes

DRAIN = 7.0
LEAVING = 3.0
"""How long (s) the companion's own requests take when it leaves."""


class Beside:
    """A companion of a worker that notes when it is asked for what; ``refused`` times the broker refuses it."""

    def __init__(self, worker: Worker, *, refused: int = 0, takes_port: bool = True) -> None:
        self._worker = worker
        self._refused = refused
        self._takes_port = takes_port
        self.story: list[str] = []
        self.tries: list[float] = []

    def _note(self, what: str) -> None:
        self.story.append(f"{what}: {self._worker._parts.state}")

    async def listen(self) -> None:
        if not self._takes_port:
            raise CannotListen("gateway.port: cannot listen")
        self._note("listen")

    async def connect(self) -> None:
        self.tries.append(moment())
        if len(self.tries) <= self._refused:
            raise CannotConnect("RabbitMQ refuses it")
        self._note("connect")

    async def leave(self, timeout: float) -> bool:
        self.story.append(f"leave within {timeout:g} s")
        await asyncio.sleep(LEAVING)
        self._note("left")
        return True

    async def close(self) -> None:
        self._note("close")


def worker_on(node: Node, **more: Any) -> Worker:
    settings = Settings.model_validate(
        {"services": {"echo": {"url": "http://simulated/mcp"}}, "worker": {"worker_id": "w-1", **more}}
    )
    connection = cast("Any", partial(SimulatedConnection, node))
    return Worker(settings, connection=connection, starter=simulated_servers())


async def lives_beside(worker: Worker, companion: Beside) -> WorkerExit:
    async with _accompanied(worker, companion, DRAIN):
        return await worker.run()


@in_virtual_time
async def test_it_listens_before_the_worker_begins_and_connects_when_that_is_ready():
    worker = worker_on(Node())
    companion = Beside(worker)
    running = asyncio.create_task(lives_beside(worker, companion))
    await passes(5)
    assert companion.story == ["listen: starting", "connect: ready"]
    worker.leave()
    assert await running is WorkerExit.DRAINED


@in_virtual_time
async def test_it_does_not_connect_while_the_worker_has_no_broker():
    node = Node()
    node.up = False
    worker = worker_on(node, connect_timeout=60)
    companion = Beside(worker)
    running = asyncio.create_task(lives_beside(worker, companion))
    await passes(10)
    assert companion.story == ["listen: starting"]
    node.up = True
    await passes(10)
    assert companion.story == ["listen: starting", "connect: ready"]
    worker.leave()
    await running


@in_virtual_time
async def test_it_tries_again_in_a_while_if_the_broker_refuses_it_although_the_worker_is_connected():
    worker = worker_on(Node())
    companion = Beside(worker, refused=3)
    running = asyncio.create_task(lives_beside(worker, companion))
    await passes(5 * RECONNECT_PAUSE)
    assert companion.story == ["listen: starting", "connect: ready"]
    pauses = [after - before for before, after in zip(companion.tries, companion.tries[1:], strict=False)]
    assert pauses == pytest.approx([RECONNECT_PAUSE] * 3, abs=0.01)
    worker.leave()
    await running


@in_virtual_time
async def test_it_refuses_requests_from_the_first_signal_on_and_closes_when_the_worker_has_stopped():
    worker = worker_on(Node(), drain="wait", drain_timeout=4 * LEAVING)
    companion = Beside(worker)
    running = asyncio.create_task(lives_beside(worker, companion))
    await passes(5)
    parts = worker._parts
    await parts.sessions.open_session(cast("Any", "c-1"), cast("Any", "echo"), lambda: parts.mcp.create_client("echo"))
    worker.leave()
    assert await running is WorkerExit.DRAINED
    assert companion.story[2:] == ["leave within 7 s", "left: draining", "close: stopped"]


@in_virtual_time
async def test_a_worker_that_leaves_sooner_than_it_does_not_wait_for_it():
    worker = worker_on(Node())
    companion = Beside(worker)
    running = asyncio.create_task(lives_beside(worker, companion))
    await passes(5)
    worker.leave()
    assert await running is WorkerExit.DRAINED
    assert companion.story[2:] == ["leave within 7 s", "close: stopped"]


@in_virtual_time
async def test_what_cannot_listen_keeps_the_worker_from_beginning():
    node = Node()
    worker = worker_on(node)
    companion = Beside(worker, takes_port=False)
    with pytest.raises(CannotListen):
        await lives_beside(worker, companion)
    await passes(1)
    assert companion.story == []
    assert not node.clients, "it has asked for no connection"


@in_virtual_time
async def test_it_closes_with_a_worker_that_reaches_no_broker():
    node = Node()
    node.up = False
    worker = worker_on(node, connect_timeout=10)
    companion = Beside(worker)
    assert await lives_beside(worker, companion) is WorkerExit.BROKER_UNREACHABLE
    assert companion.story == ["listen: starting", "close: starting"]
