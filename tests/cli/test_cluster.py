"""Services, workers, events, call events and topology from the command line, on a real worker."""

import asyncio
import json
import re
import signal
from collections.abc import Callable

import pytest

from consumer.broker.link import Link
from consumer.broker.topology import Names, Queue
from consumer.client.typed_requests import REPEAT_AFTER
from schemas.events import CloudEvent
from tests.cli.conftest import SAMPLES, Cli
from tests.harness import ECHO, Cluster, config, remove_everything
from tests.proxy import proxy_to, standing_still, through

pytestmark = pytest.mark.timeout(240)  # on a busy machine

RELAY = str(SAMPLES / "relay" / "receive_created_phone.json")
RELAY_CALL = "c3f1b5d3-98db-45a6-a20b-2cf0dd311efa"
FORM = str(SAMPLES / "cxml" / "initiated.form.txt")
FORM_CALL = "990cfb21-7c52-4cc7-825c-8e9b40f448db"


async def test_services_and_workers_are_listed(cli: Cli, mcp: Cluster):
    services = await cli("services", "list")
    assert services.code == 0
    assert "Things to do" in services.out
    assert "0/100" in services.out
    assert set((await cli("services", "list", "--json")).json["services"]) == {"todo", "echo"}
    tools = await cli("services", "tools", "todo", "--json")
    assert tools.json["service_name"] == "todo"
    assert "add_todo" in {tool["name"] for tool in tools.json["tools"]}
    about = await cli("services", "describe", "todo")
    assert "protocol" in about.out
    assert (await cli("services", "describe", "todo", "--json")).json["capabilities"]["tools"] is not None

    workers = await cli("workers")
    assert mcp.workers[0].worker_id in workers.out
    assert str(mcp.workers[0].process.pid) in workers.out
    worker = (await cli("workers", "--json")).json["workers"][0]
    assert (worker["state"], worker["pid"]) == ("ready", mcp.workers[0].process.pid)
    for same in (("workers", "list", "--json"), ("workers", "--json", "list")):
        assert (await cli(*same)).json["workers"][0]["worker_id"] == worker["worker_id"]
    one = await cli("workers", "get", worker["worker_id"])
    assert one.code == 0
    for shown in (worker["host"], str(worker["pid"]), "Things to do", "0/100"):
        assert shown in one.out
    assert (await cli("workers", "get", worker["worker_id"], "--json")).json["pid"] == worker["pid"]
    nobody = await cli("workers", "get", "nobody")
    assert (nobody.code, nobody.out) == (1, "")
    assert nobody.err.startswith("NO_WORKER: no worker 'nobody' is present")
    assert "workers list" in nobody.err
    for record in mcp.workers[0].records:  # a question to the cluster is about no call, whatever its routing key
        assert record.get("type") not in {"workers.list", "services.list"} or record["call_id"] is None


async def test_a_service_that_does_not_start_is_listed_as_failing(at: Callable[[str], Cli], mcp: Cluster):
    worker = await mcp.start({"services": {"echo": {"command": ECHO}, "broken": {"command": ["sh", "-c", "exit 3"]}}})
    cli = at(mcp.prefix)
    listed = await cli("services", "list")
    assert (listed.out.count("enabled"), listed.err) == (2, ""), "more is not known before a start"
    assert (await cli("sessions", "create", "c-1", "broken")).code == 1
    for command in (("services", "list"), ("workers", "get", worker.worker_id)):
        listed = await cli(*command)
        assert re.search(r"broken +failing ", listed.out)
        assert re.search(r"echo +enabled ", listed.out)
        assert re.search(
            rf"broken: the latest start failed \d+s ago with START_FAILED, on {worker.worker_id}", listed.err
        )
        services = (await cli(*command, "--json")).json["services"]
        assert services["broken"]["failing"].keys() == {"code", "at", "worker_id"}
        assert "failing" not in services["echo"]


async def test_call_events_are_sent_and_each_is_told_for_what_it_is(cli: Cli, mcp: Cluster):
    ran = await cli("calls", "send", RELAY, FORM)
    assert ran.code == 0
    for shown in ("relay", "started", RELAY_CALL, "cxml", FORM_CALL):
        assert shown in ran.out
    for call_id in (RELAY_CALL, FORM_CALL):
        await mcp.event("created", call_id=call_id)

    ran = await cli("calls", "send", "-", "--json", stdin=b'{"call_id": "c-1", "kind": "started"}')
    assert ran.code == 0
    [sent] = ran.json["sent"]
    assert (sent["source"], sent["kind"], sent["call_id"]) == ("custom", "started", "c-1")
    assert (sent["exchange"], sent["content_type"]) == (f"{mcp.prefix}.calls", "application/json")
    await mcp.event("created", call_id="c-1")

    ran = await cli("calls", "send", RELAY, "--exchange", "nobody-declared-this")
    assert (ran.code, ran.out, ran.err.split(":")[0]) == (1, "", "NO_EXCHANGE")
    ran = await cli("calls", "send", "-", "--force", stdin=b'{"what": "is this"}')
    assert ran.code == 0
    assert "unrecognised" in ran.out
    await mcp.workers[0].logged("delivery", outcome="dead_lettered", reason="unrecognised")

    ran = await cli("calls", "send", FORM, "--json")
    [sent] = ran.json["sent"]
    taking = [look["source"] for look in sent["looks"] if look["refused"] is None]
    assert taking == ["cxml"]
    assert all(look["refused"] for look in sent["looks"] if look["source"] not in taking)
    assert "plivo: not its own: it has no 'CallUUID'" in (await cli("calls", "send", FORM, "--why")).err


async def test_events_are_followed_as_cloud_events_one_a_line(cli: Cli, mcp: Cluster):
    following = await cli.start("events", "closed", "--count", "2", "--json")
    assert following.stdout is not None
    first = asyncio.create_task(following.stdout.readline())
    while not first.done():  # until the follower has bound its queue, what happens is not for it
        await cli("sessions", "create", "c-1", "echo")
        await cli("sessions", "close", "c-1")
        await asyncio.wait({first}, timeout=0.1)
    await cli("sessions", "create", "c-2", "echo")
    await cli("sessions", "close", "c-2")
    async with asyncio.timeout(45):
        second = await following.stdout.readline()
        assert await following.wait() == 0
    events = [CloudEvent.model_validate_json(line) for line in (await first, second)]
    assert {event.type for event in events} == {"mcp.session.closed"}
    assert events[0].subject == "c-1"
    assert (await following.communicate())[1] == b""


async def test_a_follower_says_when_it_loses_the_connection_and_when_it_follows_again(cli: Cli, amqp_url: str):
    async with proxy_to(amqp_url) as proxy, asyncio.timeout(90):
        following = await cli.start("events", "created", "--count", "1", "--url", through(amqp_url, proxy))
        assert following.stderr is not None
        assert b"Following" in await following.stderr.readline()
        await proxy.disconnect_all()
        lost, again = [(await following.stderr.readline()).decode() for _ in range(2)]
        assert lost == "The connection to the broker is lost; reconnecting. Events are missed meanwhile.\n"
        assert again.startswith("Following again. Events of the last ")
        await cli("sessions", "create", "c-1", "echo")
        out, err = await following.communicate()
    assert (following.returncode, err) == (0, b"")
    assert b"created  c-1" in out


async def test_a_broker_that_stands_still_is_told_from_one_that_is_not_there(at: Callable[[str], Cli], amqp_url: str):
    cli = at("nobody")
    async with proxy_to(amqp_url) as proxy:
        with standing_still(proxy):
            for command in ("workers", "topology verify"):  # by a client, and by a link of its own
                ran = await cli(*command.split(), "--url", through(amqp_url, proxy))
                assert (ran.code, ran.out) == (3, "")
                assert ran.err.startswith("BROKER_UNREACHABLE: RabbitMQ at amqp://")
                assert " does not answer: it accepted the connection, and sent nothing for 5 s\n" in ran.err


async def test_ctrl_c_ends_following_without_a_word(cli: Cli):
    following = await cli.start("events")
    assert following.stderr is not None
    async with asyncio.timeout(45):
        assert b"Following" in await following.stderr.readline()
        following.send_signal(signal.SIGINT)
        out, err = await following.communicate()
    assert (following.returncode, out, err) == (130, b"", b"")


async def test_a_reader_that_goes_away_is_no_error(cli: Cli):
    following = await cli.start("events", "--json", anew=True)  # what the interpreter says of it counts, too
    assert following.stdout is not None
    first = asyncio.create_task(following.stdout.readline())
    while not first.done():
        await cli("sessions", "create", "c-1", "echo")
        await asyncio.wait({first}, timeout=0.1)
    following.stdout._transport.close()  # type: ignore[attr-defined]
    while following.returncode is None:
        await cli("sessions", "create", "c-1", "echo")
    assert following.stderr is not None
    assert b"Traceback" not in await following.stderr.read()


async def test_without_any_worker_the_next_step_is_told(at: Callable[[str], Cli], prefix: str, amqp_url: str):
    cli = at(prefix)
    try:
        ran = await cli("sessions", "list")
        assert (ran.code, ran.out) == (1, "")
        assert f"nothing is declared under the prefix '{prefix}' in this vhost; check the prefix" in ran.err
        assert "'mcp-sessions topology apply' if the workers may not declare" in ran.err
        assert (await cli("workers", "--json")).error["code"] == "NOT_ROUTED"
        told = await cli("dead-letters", "list")
        assert (told.code, told.err.startswith("NO_DEAD_LETTER: there is no queue")) == (1, True)
        assert "topology apply" in told.err
        assert "shows the dead letters" not in told.err, "it advises itself"
        assert (await cli("top", "--once", "--json")).error["code"] == "NOT_ROUTED"
        told = await cli("events")
        assert (told.code, told.out) == (1, "")
        assert told.err.startswith(f"NOT_ROUTED: nothing is declared under the prefix '{prefix}' in this vhost")
        found = (await cli("topology", "verify", "--json")).json["findings"]
        assert {one["state"] for one in found} == {"missing"}, "to look declares nothing"
    finally:
        await remove_everything(amqp_url, prefix, [])


async def test_the_topology_is_compared_and_declared(at: Callable[[str], Cli], prefix: str, amqp_url: str):
    cli = at(prefix)
    try:
        ran = await cli("topology", "verify", "--json")
        assert (ran.code, ran.json["ok"]) == (1, False)
        assert {finding["state"] for finding in ran.json["findings"]} == {"missing"}
        assert (await cli("topology", "apply", "--json")).json["applied"] is True
        ran = await cli("topology", "verify")
        assert ran.code == 0
        assert "missing" not in ran.out

        link = Link(amqp_url, "test")
        await link.open()
        channel = await link.channel()
        await channel.delete_queue(Names(prefix).calls)
        await channel.declare_queue(Queue(Names(prefix).calls, "something else"))
        ran = await cli("topology", "verify", "--json")
        different = [finding["name"] for finding in ran.json["findings"] if finding["state"] != "ok"]
        assert (ran.code, different) == (1, [f"{prefix}.calls"])
        ran = await cli("topology", "apply")
        assert ran.code == 1
        assert f"{prefix}.calls" in ran.out
        assert "Not applied" in ran.err
        await link.close()
    finally:
        await remove_everything(amqp_url, prefix, [])


async def test_the_topology_is_shown_without_a_broker(offline: Cli):
    ran = await offline("topology", "show", "--prefix", "acme")
    assert ran.code == 0
    assert "acme.inbox.<worker_id>" in ran.out
    shown = json.loads((await offline("topology", "show", "--prefix", "acme", "--json")).out)
    assert "acme.unowned" in {queue["name"] for queue in shown["queues"]}


async def test_a_worker_that_hangs_is_missing_until_its_sessions_are_lost(at: Callable[[str], Cli], mcp: Cluster):
    short = config(worker={"heartbeat": 4, "grace": 2})
    first, hung = await mcp.start(short), await mcp.start(short)
    calls = [f"c-{number}" for number in range(4)]
    owners = {call: (await mcp.client.create(call, "echo")).worker_id for call in calls}
    its = {call for call, owner in owners.items() if owner == hung.worker_id}
    assert 0 < len(its) < 4
    hung.process.send_signal(signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    began, said = loop.time(), False
    try:
        while True:
            asked_at = loop.time()
            page = await mcp.client.list_sessions()
            assert loop.time() - asked_at < REPEAT_AFTER + 3, "one that hangs may have the first request, and no second"
            assert set(calls) <= set(page.sessions) or page.missing_workers == [hung.worker_id]
            if set(calls) <= set(page.sessions) and page.complete:
                break
            if page.missing_workers and loop.time() - began > 2 and not said:  # it counts as silent
                told = await at(mcp.prefix)("sessions", "list")
                assert (told.code, told.err.strip()) == (0, f"Not complete: no answer from {hung.worker_id}.")
                workers = await at(mcp.prefix)("workers")
                assert hung.worker_id not in workers.out
                assert f"No answer from {hung.worker_id}" in workers.err
                services = await at(mcp.prefix)("services", "list")
                assert f"No answer from {hung.worker_id}" in services.err
                said = True
            await asyncio.sleep(0.2)
        assert said
        assert {page.sessions[call].worker_id for call in its} == {first.worker_id}, "they were opened again"
    finally:
        hung.process.send_signal(signal.SIGCONT)
