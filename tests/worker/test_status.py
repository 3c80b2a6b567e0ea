"""What a worker says of itself to who scrapes it: whether it is ready, and its gauges."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from structlog.testing import capture_logs

from consumer.broker.message import Message
from consumer.observability import metrics
from consumer.observability.listening import CannotListen
from consumer.sessions import SessionLimits
from consumer.settings import Settings
from consumer.worker.status import WorkerStatus
from consumer.worker.wiring import Parts
from schemas.events import EndReason
from schemas.ids import CallId
from schemas.sessions import WorkerState
from tests.calls.asked_server import simulated_servers
from tests.virtual_time import in_virtual_time, passes
from tests.worker.attached import CALL, attached


def status_of(parts: Parts, *, link: bool = True, probe: bool = True) -> WorkerStatus:
    return WorkerStatus(
        parts.settings.worker, parts.own_report, parts.ownership, parts.placer, presence=parts.presence,
        outbox=parts.outbox, phase=lambda: parts.state, link_up=lambda: link, probe=lambda: probe,
    )  # fmt: skip


@asynccontextmanager
async def unattached(**worker: object) -> AsyncIterator[Parts]:
    """The parts of a worker that has no broker."""
    settings = Settings.model_validate({"services": {"echo": {"command": ["x"]}}, "worker": worker})
    parts = Parts(settings, starter=simulated_servers())
    yield parts
    await parts.mcp.shutdown()


@pytest.mark.parametrize(
    ("state", "link", "probe", "told"),
    [
        ("ready", True, True, "ready"),
        ("ready", True, False, "stalled"),
        ("ready", False, True, "connecting"),
        ("ready", False, False, "connecting"),
        ("starting", True, True, "starting"),
        ("starting", False, False, "starting"),
        ("draining", True, True, "draining"),
        ("draining", False, True, "draining"),
        ("stopped", True, False, "stopped"),
    ],
)
@in_virtual_time
async def test_a_worker_is_ready_if_it_takes_calls_and_its_link_and_its_probes_are_well(
    state: WorkerState, link: bool, probe: bool, told: str
):
    async with unattached() as parts:
        parts.state = state
        readiness = status_of(parts, link=link, probe=probe).readiness()
        assert readiness == {"ready": told == "ready", "state": told, "link": link, "probe": probe}


@in_virtual_time
async def test_the_gauges_are_those_of_its_sessions_its_requests_and_its_peers():
    async with attached({"admission_wait": 5.0}, session={"max_sessions_per_service": 1}) as scene:
        await scene.open()
        await scene.call_tool(takes=60)
        await scene.send("session.create", {"session_id": "c-2", "service_name": "echo"}, call=CallId("c-2"))
        await passes(1)
        state = status_of(scene.parts).state()
        assert (state.open, state.capacity, state.warm) == ({"echo": 1}, {"echo": 1}, {"echo": 0})
        assert (state.tool_calls_in_flight, state.admission_waiting, state.events_waiting) == (1, 1, 0)
        assert (state.link_up, state.placer, state.healthy) == (True, True, True)
        assert state.workers == {"ready": 1}
        await scene.other_reports()
        assert status_of(scene.parts).state().workers == {"ready": 2}
        for link, probe in ((True, False), (False, True)):
            state = status_of(scene.parts, link=link, probe=probe).state()
            assert (state.link_up, state.healthy) == (link, False)
        await scene.parts.placer.detach()
        assert not status_of(scene.parts).state().placer
        call = scene.parts.ownership.owned_calls.calls[CALL]
        call.check.link_lost()
        scene.wire.node.set_alarm(on=True)
        scene.parts.outbox.put(Message(b"{}"), scene.wire.names.events, "x")
        assert status_of(scene.parts).state().events_waiting == 1, "RabbitMQ does not take it"
        await scene.parts.ownership.closing.close_all(call, EndReason.REQUESTED)
        assert status_of(scene.parts).state().events_waiting == 2, "nobody knows whose it is to tell"
        scene.wire.node.set_alarm(on=False)
        call.check.confirmed(0.0)


async def test_no_service_may_have_more_sessions_than_its_worker():
    async with unattached() as parts:
        parts.sessions.limits = SessionLimits(max_total_sessions=4, per_service={"echo": 9})
        state = status_of(parts).state()
        assert (state.capacity, state.limit) == ({"echo": 4}, 4)
        parts.sessions.limits = SessionLimits(max_total_sessions=4, per_service={"echo": 3})
        state = status_of(parts).state()
        assert (state.capacity, state.limit) == ({"echo": 3}, 4)


def gauges_have_values() -> bool:
    """Whether a scrape shows the gauges of a worker."""
    return any(gauge.samples for gauge in metrics.STATE.collect())


@pytest.mark.parametrize("exposed", [True, False])
@in_virtual_time
async def test_the_gauges_are_looked_at_while_somebody_can_ask_for_them(exposed: bool):
    async with unattached() as parts:
        status = status_of(parts)
        async with status.running(exposed=exposed):
            assert gauges_have_values() is exposed
            await passes(2)
        assert not gauges_have_values()


async def test_a_worker_with_a_port_answers_there():
    async with unattached(http_port=0) as parts, httpx2.AsyncClient() as client:
        parts.state = "ready"
        with capture_logs() as logs:
            async with status_of(parts).running():
                (port,) = [one["port"] for one in logs if one["event"] == "http.listening"]
                ready = await client.get(f"http://127.0.0.1:{port}/readyz")
                assert (ready.status_code, ready.json()["state"]) == (200, "ready")
                told = await client.get(f"http://127.0.0.1:{port}/metrics")
                assert 'mcp_sessions_capacity{service="echo"}' in told.text
                other = parts.settings.worker.model_copy(update={"http_port": port})
                parts.settings = parts.settings.model_copy(update={"worker": other})
                with pytest.raises(CannotListen, match=f"port {port}"):
                    async with status_of(parts).running():
                        raise AssertionError("it is another's")
        assert not gauges_have_values()
