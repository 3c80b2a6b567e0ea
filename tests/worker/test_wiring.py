"""What holds a worker's parts together: its id, what a reload changes, and who hears of sessions."""

import asyncio
import re
import socket
from typing import Any

import pytest

from consumer.broker.topology import Names
from consumer.settings import Settings
from consumer.worker.wiring import Parts, new_worker_id
from schemas.errors import LimitReached, ServiceNotFound
from schemas.events import EndReason
from schemas.ids import ServiceName, SessionId
from tests.calls.asked_server import simulated_servers
from tests.virtual_time import in_virtual_time
from tests.worker.attached import CALL, attached


@pytest.mark.parametrize(
    ("host", "begins"),
    [("web-1", "web-1"), ("web.1_example", "web-1-example"), ("x" * 100, "x" * 40), ("häuschen", "häuschen"), ("", "")],
)
def test_a_new_id_names_the_host_and_is_nobody_elses(monkeypatch: pytest.MonkeyPatch, host: str, begins: str):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    ids = [new_worker_id() for _ in range(50)]
    assert len(set(ids)) == 50
    for one in ids:
        assert re.fullmatch(rf"{begins}-\d+-[0-9a-f]{{8}}", one)
        assert Names().worker_of_inbox(Names().inbox(one)) == one


def settings(worker: dict[str, Any] | None = None, **more: Any) -> Settings:
    services = more.pop("services", {"echo": {"command": ["x"]}})
    return Settings.model_validate({"services": services, "worker": {"worker_id": "w-1", **(worker or {})}, **more})


RESTART = [
    (settings(), []),
    (settings({"worker_id": "w-2"}), ["worker.worker_id"]),
    (settings({"grace": 9, "admission_wait": 9}), ["worker.grace"]),
    (settings({"prefix": "p", "heartbeat": 20}), ["worker.prefix", "worker.heartbeat"]),
    (settings(session={"max_metadata": 100_000}), ["session.max_metadata"]),
    (settings(amqp_url="amqp://elsewhere/"), ["AMQP_URL"]),
    (settings({"drain": "wait", "drain_timeout": 5, "ring_timeout": 7}, session={"max_total_sessions": 7}), []),
]


@pytest.mark.parametrize(("new", "restart"), RESTART, ids=[str(number) for number in range(len(RESTART))])
@in_virtual_time
async def test_what_a_reload_cannot_change_is_named_and_stays(new: Settings, restart: list[str]):
    old = settings()
    parts = Parts(old, starter=simulated_servers())
    assert sorted(parts.reload(new)) == sorted(restart)
    for name in ("worker_id", "grace", "prefix", "heartbeat"):
        assert getattr(parts.settings.worker, name) == getattr(old.worker, name)
    assert parts.settings.session.max_metadata == old.session.max_metadata
    assert parts.settings.amqp_url == old.amqp_url
    for name in ("admission_wait", "drain", "drain_timeout", "ring_timeout"):
        assert getattr(parts.settings.worker, name) == getattr(new.worker, name)
    assert parts.configured.timings is parts.settings.worker
    assert parts.sessions.limits.max_total_sessions == new.session.max_total_sessions
    assert parts.news.is_set(), "the others should know its capacity"
    assert parts.reload(new) == parts.reload(new), "the first configuration is what it is compared with"
    await parts.mcp.shutdown()


@in_virtual_time
async def test_a_reload_holds_for_what_starts_from_then_on():
    async with attached() as scene:
        await scene.open()
        (session,) = scene.parts.ownership.owned_calls.calls[CALL].sessions.values()
        configured = scene.parts.configured
        scene.parts.reload(
            settings(
                services={"todo": {"command": ["y"]}},
                routes=[{"services": ["todo"]}],
                session={"max_total_sessions": 1},
            )
        )
        assert scene.parts.configured is configured, "everybody has it"
        assert list(configured.services) == list(scene.parts.mcp.services) == ["todo"]
        assert [route.services for route in configured.routes] == [("todo",)]
        assert not session.has_ended
        with pytest.raises(ServiceNotFound):
            configured.service(session.service_name)
        with pytest.raises(LimitReached):
            await scene.parts.sessions.open_session(SessionId("c-2"), ServiceName("todo"), nothing_starts)


async def nothing_starts() -> Any:
    raise AssertionError("there is no room")


@in_virtual_time
async def test_the_others_hear_of_each_session_and_of_each_place_that_is_free_again():
    async with attached() as scene:
        parts = scene.parts
        await scene.open()
        parts.room_freed.clear()
        parts.news.clear()
        session = parts.ownership.owned_calls.calls[CALL].sessions[SessionId(CALL)]
        ending = asyncio.create_task(parts.ownership.closing.close(session.session_id, EndReason.REQUESTED))
        while not parts.news.is_set():
            await asyncio.sleep(0)
        assert session.has_ended
        await ending
        assert parts.room_freed.is_set()


@in_virtual_time
async def test_an_id_that_is_configured_is_the_workers_and_otherwise_a_new_one():
    for configured in ("w-1", None):
        parts = Parts(settings({"worker_id": configured}), starter=simulated_servers())
        assert (parts.worker_id == "w-1") is (configured is not None)
        assert parts.state == "starting"
        await parts.mcp.shutdown()
