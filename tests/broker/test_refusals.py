"""A broker that lets nobody in is told from one that is not there: at once, and by what it does not know."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from consumer.broker.errors import InvalidBrokerUrl
from consumer.broker.link import Link
from consumer.client import SessionClient
from infra.broker import PrivateBroker, find_server
from schemas.errors import AccessRefused, Disconnected, InvalidUrl
from tests import programs
from tests.broker.conftest import running
from tests.broker_users import define

TIMEOUT = 60.0
pytestmark = pytest.mark.skipif(
    find_server() is None, reason="no rabbitmq-server here: the broker comes from elsewhere"
)


ALL = {"configure": ".*", "write": ".*", "read": ".*"}
DEFINITIONS = {
    "vhosts": [{"name": "phones"}, {"name": "full"}],
    "users": [
        {"name": "mallory", "password": "hunter2", "tags": ""},
        {"name": "carol", "password": "first", "tags": ""},
    ],
    "permissions": [{"vhost": "full", "user": "guest", **ALL}, {"vhost": "/", "user": "carol", **ALL}],
}


@pytest.fixture(scope="module")
def node(own_broker: PrivateBroker) -> PrivateBroker:
    """A node with vhosts, a user that has no rights in them, and one that has all in the first."""
    define(own_broker, DEFINITIONS)
    return own_broker


REFUSED = [
    ("guest:guest@", "nowhere", "there is no vhost 'nowhere'"),
    ("guest:guest@", "a%2Fb", "there is no vhost 'a/b'"),
    ("mallory:hunter2@", "phones", "the user 'mallory' has no rights in the vhost 'phones'"),
    ("mallory:hunter3@", "", "the user 'mallory' or the password is wrong"),
    ("nobody:hunter3@", "", "the user 'nobody' or the password is wrong"),
    ("guest:guest@", "?auth=external", "does not support the mechanism of ?auth="),
]


def url_of(node: PrivateBroker, user: str, path: str) -> str:
    return node.url.replace("guest:guest@", user).rstrip("/") + f"/{path}"


@pytest.mark.parametrize(("user", "path", "says"), REFUSED)
async def test_a_client_is_told_at_once_by_whom_and_why(node: PrivateBroker, user: str, path: str, says: str):
    began = time.monotonic()
    with pytest.raises(AccessRefused) as refused:
        async with SessionClient(url_of(node, user, path), connect_timeout=TIMEOUT):
            pass
    assert time.monotonic() - began < TIMEOUT / 2
    assert says in str(refused.value)
    assert f"127.0.0.1:{node.port}/" in str(refused.value)
    assert "hunter" not in str(refused.value)
    assert "object at 0x" not in str(refused.value)
    assert "<" not in str(refused.value)


@pytest.mark.parametrize(("user", "path", "says"), REFUSED[:4])
async def test_a_worker_ends_at_once(node: PrivateBroker, tmp_path: Path, user: str, path: str, says: str):
    process = await programs.start(
        *programs.WORKER,
        env=os.environ | {"AMQP_URL": url_of(node, user, path), "MCP_SESSIONS_CONNECT_TIMEOUT": "600"},
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await programs.output_of(process, TIMEOUT)
    assert process.returncode == 3
    assert b"broker.refused" in told
    assert says.encode() in told
    assert b"hunter" not in told


async def test_a_vhost_that_is_full_for_the_moment_is_tried_again(node: PrivateBroker):
    node.rabbitmqctl("set_vhost_limits", "-p", "full", '{"max-connections": 0}')
    async with running(waiting_for(url_of(node, "guest:guest@", "full"))) as up:
        await asyncio.sleep(1)
        assert not up.done()
        node.rabbitmqctl("clear_vhost_limits", "-p", "full")
        async with asyncio.timeout(TIMEOUT):
            await up


async def waiting_for(url: str) -> None:
    async with SessionClient(url, connect_timeout=TIMEOUT):
        pass


async def test_whoever_was_let_in_once_goes_on_trying(node: PrivateBroker):
    """A password that is changed while calls are up costs the connection, and not the worker."""
    async with SessionClient(url_of(node, "carol:first@", "")) as client:
        node.rabbitmqctl("change_password", "carol", "second")
        node.rabbitmqctl("close_all_connections", "--vhost", "/", "test")
        async with asyncio.timeout(TIMEOUT):
            while client.connected:
                await asyncio.sleep(0.01)
        with pytest.raises(Disconnected):
            await client.count_dead_letters()
        node.rabbitmqctl("change_password", "carol", "first")
        async with asyncio.timeout(TIMEOUT):
            while not client.connected:
                await asyncio.sleep(0.01)


async def test_no_heartbeats_are_no_reason_to_give_a_link_up(node: PrivateBroker):
    link = Link(f"{node.url}?heartbeat=0", "test")
    try:
        await link.open()
        async with link.scratch():
            pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.shield(link.lost)
    finally:
        await link.close()


@pytest.mark.parametrize("url", ["amqp://user:12/hunter2@host", "amqp://host/?heartbeat=hunter2"])
def test_a_url_that_cannot_be_used_is_refused_where_it_is_given(url: str):
    for made in (lambda: SessionClient(url), lambda: Link(url, "test")):
        with pytest.raises((InvalidBrokerUrl, InvalidUrl)) as refused:
            made()
        assert "hunter2" not in str(refused.value)
    with pytest.raises(ValueError, match="the broker's URL"):
        SessionClient(url)
