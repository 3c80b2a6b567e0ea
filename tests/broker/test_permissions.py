"""Least privilege, with real users on a node of our own: each role can do its work, and nothing else."""

import asyncio
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from consumer.broker.dead_letter import DeadLetter, Filter
from consumer.broker.dead_letter_queue import DeadLetterQueue, Replayed
from consumer.broker.declare import apply, verify
from consumer.broker.link import Link
from consumer.broker.permissions import BETWEEN, ROLES, Role, commands, permissions
from consumer.broker.publisher import Publisher
from consumer.broker.topology import Names, cluster_topology, inbox
from consumer.client import SessionClient, ToolCallResult
from consumer.gateway.gateway import Gateway
from consumer.settings import Settings
from infra.broker import PrivateBroker, find_server
from schemas.errors import Forbidden, NotRouted, NotRoutedReason
from schemas.ids import WorkerId
from tests import programs
from tests.broker_users import (
    FOLLOWING,
    NAMES,
    Act,
    bind,
    consume,
    declare,
    define,
    delete,
    give_rights,
    may,
    publish,
    rights,
    url_of,
)
from tests.harness import WAIT, Cluster, cluster, config
from tests.programs import PROGRAM
from tests.proxy import proxy_to, through

DEAD_WORKER = WorkerId("w-dead")
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(find_server() is None, reason="no rabbitmq-server here: the broker comes from elsewhere"),
]


@pytest.fixture(scope="module")
def node(own_broker: PrivateBroker) -> PrivateBroker:
    """A node with one user for each role, whose password is the role."""
    give_rights(own_broker)
    return own_broker


@pytest.fixture
async def mcp(node: PrivateBroker):
    """What an operator has declared, and who looks after it; workers are started as ``worker``."""
    async with cluster(node.url, NAMES.prefix) as made:
        await asyncio.to_thread(give_rights, node)
        link = Link(url_of(node, "operator"), "operator")
        await link.open()
        await apply(await link.channel(), cluster_topology(NAMES), link=link)
        await (await link.channel()).declare_queue(inbox(NAMES, DEAD_WORKER))
        yield made
        await (await link.channel()).delete_queue(NAMES.inbox(DEAD_WORKER))
        await link.close()


REPLIES, FOLLOWER = "replies", "replies|following"
"""What a user may have of its own, as parts of a pattern of permissions."""

INBOX = NAMES.inbox(DEAD_WORKER)
EVENT = "session.created.echo"
FORBIDDEN: dict[Role, dict[str, Act]] = {
    "publisher": {
        "ask": publish(NAMES.cluster),
        "write into a queue": publish("", NAMES.queries),
        "open sessions": publish(NAMES.sessions, "c-1"),
        "call tools": publish(NAMES.requests, "c-1"),
        "make events up": publish(NAMES.events, EVENT),
        "publish a dead letter": publish(NAMES.dead_letters),
        "take calls": consume(NAMES.calls),
        "declare a queue": declare(f"{NAMES.prefix}.replies.x"),
        "delete a queue": delete(NAMES.calls),
    },
    "client": {
        "publish call events": publish(NAMES.calls, "k"),
        "make events up": publish(NAMES.events, EVENT),
        "reach the placer": publish(NAMES.unowned, "c-1"),
        "write into the placer's queue": publish("", NAMES.unowned),
        "write into an inbox": publish("", INBOX),
        "write into the dead-letter queue": publish("", NAMES.dead_letters),
        "write into a queue that is nobody's": publish("", "elsewhere"),
        "publish a dead letter": publish(NAMES.dead_letters),
        "make an orphan": publish(NAMES.orphans),
        "lead events to the questions": bind(NAMES.queries, NAMES.events, "#"),
        "pretend to be a worker": publish(NAMES.workers),
        "listen to calls": bind(FOLLOWING, NAMES.sessions, "c-1"),
        "listen to requests": bind(FOLLOWING, NAMES.requests, "c-1"),
        "listen to raw events": bind(FOLLOWING, NAMES.calls, "#"),
        "listen to workers": bind(FOLLOWING, NAMES.workers, ""),
        "lead calls elsewhere": bind(INBOX, NAMES.events, "#"),
        "take calls": consume(NAMES.calls),
        "take an inbox": consume(INBOX),
        "take the dead letters": consume(NAMES.dead_letters),
        "declare an inbox": declare(NAMES.inbox(WorkerId("w-false"))),
        "delete an inbox": delete(INBOX),
        "declare anything": declare("elsewhere"),
    },
    "gateway": {
        "make events up": publish(NAMES.events, EVENT),
        "reach the placer": publish(NAMES.unowned, "c-1"),
        "write into an inbox": publish("", INBOX),
        "publish a dead letter": publish(NAMES.dead_letters),
        "pretend to be a worker": publish(NAMES.workers),
        "listen to calls": bind(FOLLOWING, NAMES.sessions, "c-1"),
        "listen to raw events": bind(FOLLOWING, NAMES.calls, "#"),
        "lead calls elsewhere": bind(INBOX, NAMES.events, "#"),
        "take calls": consume(NAMES.calls),
        "take an inbox": consume(INBOX),
        "take the dead letters": consume(NAMES.dead_letters),
        "delete an inbox": delete(INBOX),
        "declare anything": declare("elsewhere"),
    },
    "worker": {
        "publish call events": publish(NAMES.calls, "k"),
        "publish other keys": publish(NAMES.events, "else.what"),
        "follow events": bind(INBOX, NAMES.events, "#"),
        "take the dead letters": consume(NAMES.dead_letters),
        "take orphans": consume(NAMES.orphans),
        "delete the dead-letter queue": delete(NAMES.dead_letters),
        "declare anything": declare("elsewhere"),
    },
    "operator": {
        "declare beside the prefix": declare("acme.mcpx"),
        "publish beside the prefix": publish("amq.topic", "k"),
        "consume beside the prefix": consume("elsewhere"),
    },
}


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_can_do_nothing_else(node: PrivateBroker, mcp: Cluster, role: Role):
    allowed = [what for what, act in FORBIDDEN[role].items() if await may(url_of(node, role), act)]
    assert allowed == []


async def test_each_role_does_its_part_of_whole_calls(node: PrivateBroker, mcp: Cluster):
    first = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    async with (
        SessionClient(url_of(node, "publisher"), prefix=NAMES.prefix) as publisher,
        SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client,
        client.following("#") as events,
    ):
        await publisher.publish_call_event(b'{"call_id": "c-1", "kind": "started"}')
        created = await events.get()
        assert (created.type, created.subject) == ("mcp.session.created", "c-1")
        await client.create("c-2", "echo")
        assert (await client.call_tool("c-1", "echo", {"text": "hello"})).text == "hello"
        assert set((await client.list_sessions()).sessions) == {"c-1", "c-2"}
        assert (await client.list_tools("c-2")).tools
        assert list((await client.list_services()).services) == ["echo"]
        assert len((await client.list_workers()).workers) == 1

        second = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
        await first.kill()  # the placer has to take the dead worker's bindings away
        for call_id in ("c-1", "c-2"):
            await mcp.event("created", call_id=call_id, restored=True, within=60)
        await publisher.publish_call_event(b'{"call_id": "c-1", "kind": "ended"}')
        await mcp.event("closed", call_id="c-1", reason="call_ended")

        lacks = r"the user 'publisher' lacks the permission configure for queue 'acme\.mcp\.replies"
        with pytest.raises(Forbidden, match=lacks):
            await publisher.list_workers()
        await publisher.publish_call_event(b"no event")
        await mcp.until(lambda: mcp.logged("delivery", outcome="dead_lettered", reason="unrecognised"))
        await operates(url_of(node, "operator"))
        assert (await client.close("c-2")).closed
    assert await second.terminate() == 0
    assert mcp.logged("broker.lost") == []


async def slow_call(client: SessionClient) -> asyncio.Task[ToolCallResult]:
    """Begin a tool call of a second on the session ``c-1``, which is under way then."""
    runs = asyncio.Event()
    slow = {"steps": 20, "interval": 0.05}
    calling = asyncio.create_task(client.call_tool("c-1", "progress", slow, on_progress=lambda _: runs.set()))
    await asyncio.wait_for(runs.wait(), WAIT)
    return calling


async def test_what_a_user_may_not_publish_costs_nothing_else(node: PrivateBroker, mcp: Cluster):
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    async with SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client:
        await client.create("c-1", "echo")
        link, calling = client._connection._link, await slow_call(client)
        lacks = r"the user 'client' lacks the permission write for exchange 'acme\.mcp\.calls' in the vhost '/'"
        with pytest.raises(Forbidden, match=lacks) as caught:
            await client.publish_call_event({"call_id": "c-2", "kind": "started"})
        assert caught.value.executed is False
        assert list((await client.list_sessions()).sessions) == ["c-1"]
        assert not (await asyncio.wait_for(calling, WAIT)).is_error
        assert client._connection._link is link


@pytest.mark.parametrize(
    ("configure", "write", "read", "lacks"),
    [
        (REPLIES, REPLIES, f"{REPLIES}|events", "configure for queue"),
        (FOLLOWER, REPLIES, f"{FOLLOWER}|events", "write for queue"),
        (FOLLOWER, FOLLOWER, FOLLOWER, "read for exchange"),
        (FOLLOWER, FOLLOWER, f"{REPLIES}|events", "read for queue"),
    ],
    ids=["declare", "write", "bind", "consume"],
)
async def test_events_that_a_user_may_not_follow_cost_nothing_else(
    node: PrivateBroker, mcp: Cluster, configure: str, write: str, read: str, lacks: str
):
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    under = r"^acme\.mcp\.({})(\..*)?$"
    permission = {
        "user": "follower",
        "vhost": "/",
        "configure": under.format(configure),
        "write": under.format(f"{write}|sessions|requests|cluster"),
        "read": under.format(read),
    }
    user = {"name": "follower", "password": "follower", "tags": ""}
    await asyncio.to_thread(define, node, {"users": [user], "permissions": [permission]})
    async with SessionClient(url_of(node, "follower"), prefix=NAMES.prefix) as client:
        await client.create("c-1", "echo")
        link, calling = client._connection._link, await slow_call(client)
        for _ in range(2):
            with pytest.raises(Forbidden, match=lacks):
                async with client.following("#"):
                    pass
        assert list((await client.list_sessions()).sessions) == ["c-1"]
        assert not (await asyncio.wait_for(calling, WAIT)).is_error
        assert link is not None
        assert client._connection._link is link
        left = await asyncio.to_thread(node.rabbitmqctl, "list_queues", "name")
        assert f".replies.{link.token}" in left
        assert f".following.{link.token}." not in left


@pytest.mark.parametrize("role", ["client", "gateway"])
async def test_a_client_sees_within_seconds_that_no_worker_is_there(node: PrivateBroker, mcp: Cluster, role: Role):
    worker = await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    async with SessionClient(url_of(node, role), prefix=NAMES.prefix) as client:
        await client.create("c-1", "echo")
        await worker.terminate()
        client._connection.lookout.seen_until = 0.0
        told = await asyncio.wait_for(
            asyncio.gather(
                client.list_workers(reply_timeout=600),
                client.create("c-2", "echo", reply_timeout=600),
                client.call_tool("c-1", "echo", {"text": "a"}, timeout=600),
                return_exceptions=True,
            ),
            WAIT,
        )
        assert [type(one) for one in told] == [NotRouted] * 3
        assert {one.details["reason"] for one in told if isinstance(one, NotRouted)} == {NotRoutedReason.NO_WORKER}
        await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
        assert len((await client.list_workers()).workers) == 1


async def test_a_client_is_told_what_is_not_declared_as_far_as_it_may_look(node: PrivateBroker):
    await asyncio.to_thread(give_rights, node)
    async with SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client:
        for ask in (client.list_workers(), client.create("c-1", "echo"), client.call_tool("c-1", "echo")):
            with pytest.raises(NotRouted, match=r"the prefix 'acme\.mcp'") as caught:
                await asyncio.wait_for(ask, WAIT)
            assert caught.value.details["reason"] == NotRoutedReason.NOT_DECLARED
            assert f"exchange {NAMES.requests}" in caught.value.details["missing"]


async def test_a_gateway_asks_and_publishes_with_one_user(node: PrivateBroker, mcp: Cluster) -> None:
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    settings = Settings(
        amqp_url=url_of(node, "gateway"), worker={"prefix": NAMES.prefix}, gateway={"port": 0, "auth_token": "t"}
    )
    gateway = Gateway(settings)
    await gateway.listen()
    try:
        await gateway.connect()
        address, credentials = f"http://127.0.0.1:{gateway.port}", {"Authorization": "Bearer t"}
        async with httpx2.AsyncClient(base_url=address, headers=credentials, timeout=30) as http:
            sent = await http.post("/signalwire/events", json={"call_id": "c-1", "kind": "started"})
            assert sent.status_code == 204
            await mcp.event("created", call_id="c-1")
            asked = {"tool": "echo", "session_id": "c-1", "arguments": {"text": "hello"}}
            assert (await http.post("/services/echo/call", json=asked)).json()["result"] == "hello"
            assert set((await http.get("/sessions")).json()) == {"c-1"}
            assert (await http.get("/readyz")).status_code == 200
    finally:
        await gateway.close()


async def operates(url: str) -> None:
    """What an operator does with a dead letter."""
    link, publisher = Link(url, "operator"), Publisher()
    await link.open()
    publisher.attach(await link.publishing())
    assert {finding.state for finding in await verify(link, cluster_topology(NAMES))} == {"ok"}
    lot = DeadLetterQueue(link, NAMES)
    (letter,) = await lot.fitting(Filter())
    replayed: list[Replayed] = []
    dropped: list[DeadLetter] = []
    await lot.replay([letter.id], publisher, replayed.append)
    assert [one.problem for one in replayed] == [""]
    await lot.drop({one.id for one in await lot.fitting(Filter())}, dropped.append)
    await link.close()


async def test_a_worker_that_may_not_declare_what_is_missing_says_so(node: PrivateBroker):
    async with cluster(node.url, NAMES.prefix) as mcp:
        worker = await mcp.spawn(config(worker={"connect_timeout": 3}), AMQP_URL=url_of(node, "worker"))
        first = await worker.logged("broker.not_usable")
        assert "topology permissions" in first["hint"], "the broker is there: nobody shall start one"
        told = await worker.logged("broker.not_permitted")
        assert "does not permit" in told["error"]
        assert "lacks the permission configure" in told["error"]
        assert not [record for record in worker.records if record["event"] == "broker.not_there"]
        assert re.search(rf"may not declare .*{re.escape(NAMES.dead_letters)}", told["error"])
        assert "topology apply" in told["error"]
        named = told["error"].partition("may not declare ")[2].partition(":")[0].split(", ")
        assert len(named) == len(set(named)), "an exchange and a queue may have one name"
        assert await worker.ended() == 3


LACKS_WRITE = "lacks the permission write for exchange 'amq.default'"
"""What is said to a worker that may not sign its messages: its first use of a permission."""


async def test_a_worker_with_the_user_of_a_client_is_told_the_permission_that_it_lacks(
    node: PrivateBroker, mcp: Cluster
):
    worker = await mcp.spawn(config(worker={"connect_timeout": 3}), AMQP_URL=url_of(node, "client"))
    first = await worker.logged("broker.not_usable")
    assert f"the user 'client' {LACKS_WRITE}" in first["error"]
    assert "topology permissions" in first["hint"]
    told = await worker.logged("broker.not_permitted")
    assert f"the user 'client' {LACKS_WRITE}" in told["error"]
    assert await worker.ended() == 3


async def test_a_worker_whose_user_loses_its_permissions_names_the_first_that_it_lacks(
    node: PrivateBroker, mcp: Cluster
):
    async with proxy_to(node.url) as proxy:
        worker = await mcp.start(config(), AMQP_URL=through(url_of(node, "worker"), proxy))
        await asyncio.to_thread(node.rabbitmqctl, "set_permissions", "worker", "", "", "")
        try:
            await proxy.disconnect_all()
            told = await worker.logged("broker.reconnecting")
            assert f"the user 'worker' {LACKS_WRITE}" in told["error"]
        finally:
            await asyncio.to_thread(define, node, rights())
        await worker.logged("broker.reconnected")


def test_names_beside_the_prefix_fit_no_role():
    for one in permissions(NAMES, call_exchanges=["TAP.Events"]):
        for pattern in (one.configure, one.write, one.read):
            for name in (
                "acmexmcp.calls",
                "acme.mcp",
                "acme.mcpx.calls",
                "x.acme.mcp.calls",
                "tap.events",
                "TAPxEvents",
            ):
                assert not re.search(pattern, name), (one.role, pattern, name)


def paste(node: PrivateBroker, folder: Path, lines: list[str], **variables: str) -> None:
    """Give the lines to a shell as they are; its ``rabbitmqctl`` talks to this node."""
    program = folder / "rabbitmqctl"
    program.write_text(f'#!/bin/sh\nexec {node.server.with_name("rabbitmqctl")} -n {node.node} "$@"\n')
    program.chmod(0o755)
    assigned = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    environment = node.environment()
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    script = "\n".join(["set -e", *assigned, *lines])
    subprocess.run(["sh"], input=script, text=True, env=environment, check=True, timeout=120)


async def test_the_commands_can_be_pasted_in_their_order(node: PrivateBroker, tmp_path: Path):
    names, user = Names("beta.mcp"), "it's operator"
    (operator,) = [one for one in permissions(names) if one.role == "operator"]
    lines = commands([operator], vhost="/", user="it's {role}")
    before, after = lines[: lines.index(BETWEEN)], lines[lines.index(BETWEEN) + 1 :]
    assert before[0].endswith(" IT_S_OPERATOR_PASSWORD")
    await asyncio.to_thread(paste, node, tmp_path, before, IT_S_OPERATOR_PASSWORD="secret")
    assert "'mcp-sessions topology apply' as operator" in BETWEEN
    link = Link(node.url.replace("guest:guest", f"{quote(user)}:secret"), "operator")
    await link.open()
    await apply(await link.channel(), cluster_topology(names), link=link)
    await link.close()
    await asyncio.to_thread(paste, node, tmp_path, after)
    given = node.rabbitmqctl("list_user_topic_permissions", user, "--silent", "--no-table-headers")
    assert {line.split("\t")[1] for line in given.splitlines()} == {names.calls, names.events}


def test_definitions_bring_the_exchanges_that_their_topic_permissions_need(node: PrivateBroker, mcp: Cluster):
    given = node.rabbitmqctl("list_topic_permissions", "--silent", "--no-table-headers").splitlines()
    assert len([line for line in given if NAMES.prefix in line]) == 2 * len(ROLES)


async def test_a_user_who_may_not_compare_the_topology_is_told_who_may(node: PrivateBroker, mcp: Cluster):
    for action in ("verify", "apply"):
        process = await programs.start(
            *(PROGRAM, "topology", action, "--url", url_of(node, "client"), "--prefix", NAMES.prefix),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, told = await programs.output_of(process, 60)
        assert process.returncode == 1
        assert b"refused" in out
        assert b"'mcp-sessions topology permissions --role operator' prints the commands" in told


async def test_a_command_that_its_user_may_not_run_is_told_so_and_what_is_needed(node: PrivateBroker, mcp: Cluster):
    commands: list[tuple[Role, str, str]] = [
        ("publisher", "sessions list", "configure"),
        ("publisher", "sessions get c-1", "configure"),
        ("publisher", "events", "configure"),
        ("client", "dead-letters list", "read( or write)?"),  # of which there are none
    ]
    for role, command, permission in commands:
        process = await programs.start(
            *(str(PROGRAM), *command.split(), "--url", url_of(node, role), "--prefix", NAMES.prefix),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, told = await programs.output_of(process, 60)
        assert (process.returncode, out) == (1, b""), told
        lacks = f"ACCESS_REFUSED: the user '{role}' lacks the permission {permission} for queue "
        assert re.match(lacks.encode(), told), told
        assert b"topology permissions" in told
        assert b"<" not in told
