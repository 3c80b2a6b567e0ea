"""The matrix of ``docs/operations/security.md``, filled in by trying: what each role can read, write and forge."""

from datetime import UTC, datetime

import pytest
from aiormq.exceptions import ChannelAccessRefused

from consumer.broker.link import Link
from consumer.broker.permissions import ROLES, Role
from consumer.broker.topology import Queue, inbox
from consumer.client import SessionClient
from infra.broker import PrivateBroker
from schemas.ids import WorkerId
from tests.acceptance.recipes import recipe_of
from tests.broker_users import FOLLOWING, NAMES, Act, bind, consume, declare, delete, may, publish, url_of
from tests.harness import ROOT, Cluster, config
from tests.security.broker.attacker import Attacker

pytestmark = pytest.mark.timeout(240)

PAGE = ROOT / "docs" / "operations" / "security.md"
SOMEBODYS = WorkerId("w-somebody")
ANOTHERS_REPLIES = f"{NAMES.prefix}.replies.another"
ANOTHERS_EVENTS = f"{NAMES.prefix}.following.another"

HEARING = f"{NAMES.prefix}.workers.{{mine}}.x"


def listen(exchange: str, key: str = "#") -> tuple[Act, Act]:
    """With a queue as a client may have it, or as a worker may."""
    return bind(FOLLOWING, exchange, key), bind(HEARING, exchange, key)


ACTS: dict[str, Act | tuple[Act, ...]] = {
    "write call events (`mcp.calls`)": publish(NAMES.calls, "k"),
    "write requests (`mcp.sessions`)": publish(NAMES.sessions, "c-1"),
    "write requests (`mcp.requests`)": publish(NAMES.requests, "c-1"),
    "ask the cluster (`mcp.cluster`)": publish(NAMES.cluster),
    "write into any queue (the default exchange)": publish("", "nowhere"),
    "write to the placer (`mcp.unowned`)": publish(NAMES.unowned, "c-1"),
    "write to the workers (`mcp.workers`)": publish(NAMES.workers),
    "write events (`mcp.events`)": publish(NAMES.events, "session.created.echo"),
    "publish dead letters (`mcp.dead`)": publish(NAMES.dead_letters),
    "read call events": consume(NAMES.calls),
    "read requests to the cluster": consume(NAMES.queries),
    "read requests to a worker (its inbox)": consume(NAMES.inbox(SOMEBODYS)),
    "listen to a call's requests": listen(NAMES.requests, "c-1"),
    "listen to call events": listen(NAMES.calls),
    "listen to the workers": listen(NAMES.workers),
    "follow events": listen(NAMES.events),
    "read replies to another client": consume(ANOTHERS_REPLIES),
    "read what another client follows": consume(ANOTHERS_EVENTS),
    "forge a reply to another client": publish("", ANOTHERS_REPLIES),
    "route events into the requests to the cluster": bind(NAMES.queries, NAMES.events),
    "read the dead letters": consume(NAMES.dead_letters),
    "declare a queue for replies": declare(f"{NAMES.prefix}.replies.mine"),
    "declare an inbox": declare(NAMES.inbox(WorkerId("w-false"))),
    "delete the dead-letter queue": delete(f"{NAMES.prefix}.dead"),
}
BELIEVED: dict[str, str] = {
    "have a forged recipe believed": "call.recipe",
    "have a forged end of a call believed": "call.ended",
}


async def can(url: str, ways: Act | tuple[Act, ...]) -> bool:
    """Whether RabbitMQ lets this user, in any of these ways."""
    acts = ways if isinstance(ways, tuple) else (ways,)
    return any([await may(url, act) for act in acts])


async def believed(role: Role, node: PrivateBroker, mcp: Cluster, kind: str) -> bool:
    """Whether a worker does what somebody of this role says with the name of its own user."""
    await mcp.client.create(f"victim-{role}", "echo")
    said = {
        "call.recipe": recipe_of("w-made-up", f"ghost-{role}", at=datetime.now(UTC)).body,
        "call.ended": b'{"call_id": "victim-%s", "kind": "ended"}' % role.encode(),
    }
    key = f"ghost-{role}" if kind == "call.recipe" else f"victim-{role}"
    async with Attacker(url_of(node, role)) as liar:
        before = len(mcp.logged("delivery", type=kind))
        try:
            await liar.send(NAMES.sessions, key, kind, said[kind], user_id=role)
        except ChannelAccessRefused:
            return False
        await mcp.until(lambda: len(mcp.logged("delivery", type=kind)) > before)
    outcomes = {one["outcome"] for one in mcp.logged("delivery", type=kind)[before:]}
    return outcomes != {"dead_lettered"}


async def test_what_each_role_can_do_is_what_the_page_says(node: PrivateBroker, mcp: Cluster):
    keeper = Link(node.url, "keeper")
    await keeper.open()
    channel = await keeper.channel()
    await channel.declare_queue(inbox(NAMES, SOMEBODYS))
    for name in (ANOTHERS_REPLIES, ANOTHERS_EVENTS):  # as every client has them: for its own connection only
        await channel.declare_queue(Queue(name, "", exclusive=True))
    tried: dict[str, list[bool]] = {}
    for what, act in ACTS.items():
        tried[what] = [await can(url_of(node, role), act) for role in ROLES]
    await channel.delete_queue(NAMES.inbox(SOMEBODYS))
    await keeper.close()
    table = "\n".join(_row(what, found) for what, found in tried.items())
    assert table in PAGE.read_text(), f"the page should say:\n{table}"


async def test_whose_words_are_believed_is_what_the_page_says(node: PrivateBroker, mcp: Cluster):
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    tried = {what: [await believed(role, node, mcp, kind) for role in ROLES] for what, kind in BELIEVED.items()}
    table = "\n".join(_row(what, found) for what, found in tried.items())
    assert table in PAGE.read_text(), f"the page should say:\n{table}"


def _row(what: str, found: list[bool]) -> str:
    return f"| {what} | {' | '.join('yes' if one else 'no' for one in found)} |"


async def test_a_client_lives_without_the_default_exchange(node: PrivateBroker, mcp: Cluster):
    """Replies come to direct reply-to and to a queue of its own, and questions have an exchange."""
    await mcp.start(config(), AMQP_URL=url_of(node, "worker"))
    async with (
        SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client,
        Attacker(url_of(node, "client")) as plain,
    ):
        await client.create("c-1", "echo")
        assert (await client.call_tool("c-1", "echo", {"text": "hello"})).text == "hello"
        assert set((await client.list_sessions()).sessions) == {"c-1"}
        assert (await plain.ask(NAMES.cluster, "any", "sessions.list")).ok
        assert (await plain.ask(NAMES.requests, "c-1", "session.get", {"session_id": "c-1"})).ok
        assert await plain.is_refused("", NAMES.queries, "sessions.list")
