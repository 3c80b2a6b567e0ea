"""The dead-letter queue from the command line, with what a real worker has made dead letters of."""

import asyncio
import os
import pty
from typing import Any

from consumer.broker.message import Message
from tests.cli.conftest import Cli
from tests.harness import Cluster
from tests.programs import PROGRAM, start

UNKNOWN = b'{"what": "is \\u001b[31mthis"}'


async def poison(mcp: Cluster, *bodies: bytes) -> None:
    """Raw events that no worker knows; returns when the worker has made dead letters of them."""
    before = len(mcp.logged("delivery", outcome="dead_lettered"))
    for body in bodies:
        await mcp.client.publish_call_event(body, routing_key="some.key")
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) >= before + len(bodies))


async def unrecognised(cli: Cli) -> list[dict[str, Any]]:
    """The dead letters for this reason, the longest first; two events become dead letters at once, in either order."""
    listed = (await cli("dead-letters", "list", "--reason", "unrecognised", "--json")).json["dead_letters"]
    return sorted(listed, key=lambda one: -one["size"])


async def bad_request(mcp: Cluster, call_id: str) -> None:
    before = len(mcp.logged("delivery", outcome="dead_lettered"))
    await mcp.client._connection._publisher.publish(
        Message(b'{"session_id": 1}', type="session.create", message_id=f"m-{call_id}"),
        mcp.client.names.sessions,
        call_id,
    )
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) > before)


async def test_an_event_that_cannot_be_read_is_found_by_the_call_that_it_names(cli: Cli, mcp: Cluster):
    await poison(mcp, b'{"call_id": "c-7", "kind": "started", "kind')
    assert [one["call_id"] for one in mcp.logged("delivery", outcome="dead_lettered")] == ["c-7"]
    (row,) = [line for line in (await cli("dead-letters", "list")).out.splitlines() if "unrecognised" in line]
    assert "c-7" not in row, "the first line has the type, which is missing here"
    ran = await cli("dead-letters", "list", "--reason", "unrecognized")
    assert ran.code == 2
    assert "did you mean 'unrecognised'?" in " ".join(ran.err.replace("│", "").split())
    for call, found in (("c-7", ["unrecognised"]), ("c-8", [])):
        listed = (await cli("dead-letters", "list", "--call", call, "--json")).json["dead_letters"]
        assert [one["reason"] for one in listed] == found


async def test_dead_letters_are_listed_by_reason_and_call(cli: Cli, mcp: Cluster):
    ran = await cli("dead-letters", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "There are no dead letters" in ran.err

    await poison(mcp, UNKNOWN)
    await bad_request(mcp, "c-1")
    ran = await cli("dead-letters", "list")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    for shown in ("unrecognised", "invalid_message", "session.create", "c-1", f"{mcp.prefix}.calls"):
        assert shown in ran.out.replace("\n", " "), ran.out
    assert "2 messages: 1 unrecognised, 1 invalid_message" in ran.err

    listed = (await cli("dead-letters", "list", "--json")).json
    assert (listed["total"], listed["complete"]) == (2, True)
    unknown, bad = listed["dead_letters"]
    assert (unknown["exchange"], unknown["routing_key"]) == (f"{mcp.prefix}.calls", "some.key")
    assert (bad["type"], bad["call"], bad["size"]) == ("session.create", "c-1", 17)
    for words, fits in (
        (("--call", "c-1"), [bad]),
        (("--since", "1h", "--limit", "1"), [unknown]),
        (("--type", "session.create", "--before", "1h"), []),
    ):
        assert (await cli("dead-letters", "list", *words, "--json")).json["dead_letters"] == fits


async def test_a_long_id_is_shortened_in_the_list_and_whole_when_shown(cli: Cli, mcp: Cluster):
    call = f"{'c' * 150}-the-end"
    await bad_request(mcp, call)
    (listed,) = (await cli("dead-letters", "list", "--json")).json["dead_letters"]
    cli.environment.pop("COLUMNS")
    ran = await cli("dead-letters", "list")
    assert call not in ran.out
    assert "…cccc-the-end" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 200, "also where nothing is folded"
    assert ran.code == 0
    assert call in (await cli("dead-letters", "show", listed["id"])).out


async def test_a_dead_letter_is_shown_whole(cli: Cli, mcp: Cluster):
    await poison(mcp, UNKNOWN, b"\xff\xfe")
    await bad_request(mcp, "c-1")
    unknown, binary = await unrecognised(cli)
    ran = await cli("dead-letters", "show", unknown["id"][:8])
    assert ran.code == 0
    for shown in (unknown["id"], "some.key", "x-mcp-parked-at", r'"what": "is \u001b[31mthis"'):
        assert shown in ran.out
    assert (await cli("dead-letters", "show", binary["id"], "--json")).json["body_base64"] == "//4="
    assert (await cli("dead-letters", "show", "m-c-1", "--json")).json["body"] == '{"session_id": 1}'
    ran = await cli("dead-letters", "show", "no-such-id")
    assert (ran.code, ran.out, ran.err.split(":")[0]) == (1, "", "NO_DEAD_LETTER")


async def test_what_is_dropped_is_named_and_printed(cli: Cli, mcp: Cluster):
    await poison(mcp, UNKNOWN, b"\xff\xfe")
    await bad_request(mcp, "c-1")
    unknown, binary = await unrecognised(cli)
    ran = await cli("dead-letters", "drop", binary["id"])
    assert (ran.code, "Dropped 1 message." in ran.err) == (0, True)
    assert binary["id"] in ran.out
    assert unknown["id"] not in ran.out
    ran = await cli("dead-letters", "drop", "--reason", "unrecognised", "--json")
    assert ran.json["dropped"] == [unknown]
    left = (await cli("dead-letters", "list", "--json")).json["dead_letters"]
    assert [one["reason"] for one in left] == ["invalid_message"]


async def test_a_replayed_message_is_handled_again(cli: Cli, mcp: Cluster):
    """What a worker of today does not know, one of tomorrow may."""
    await poison(mcp, UNKNOWN)
    start = Message(
        b'{"call_id": "c-9", "kind": "started"}',
        headers={
            "x-mcp-reason": "unrecognised",
            "x-mcp-exchange": f"{mcp.prefix}.calls",
            "x-mcp-routing-key": "k",
            "x-mcp-placement": "w/1",
        },
    )
    await mcp.client._connection._publisher.publish(start, f"{mcp.prefix}.dead", "")
    before = len(mcp.logged("delivery", outcome="dead_lettered"))
    ran = await cli("dead-letters", "replay", "--all", "--watch", "10")
    assert ran.code == 1, ran.err
    assert "Replayed 2 messages." in ran.err
    assert "1 message could not be handled this time either, and is back among the dead letters." in ran.err
    assert f"{mcp.prefix}.calls" in ran.out
    await mcp.event("created", call_id="c-9")
    await mcp.until(lambda: len(mcp.logged("delivery", outcome="dead_lettered")) > before)
    listed = (await cli("dead-letters", "list", "--json")).json
    assert [one["reason"] for one in listed["dead_letters"]] == ["unrecognised"]
    ran = await cli("dead-letters", "replay", "--reason", "defect", "--json")
    assert ran.json == {"replayed": [], "kept": []}


async def test_what_became_of_each_replayed_message_is_told(cli: Cli, mcp: Cluster):
    await poison(mcp, UNKNOWN, UNKNOWN)
    first, second = await unrecognised(cli)
    ran = await cli("dead-letters", "replay", first["id"], "--watch", "60", "--json")
    assert ran.code == 1
    (told,) = ran.json["replayed"]
    listed = (await cli("dead-letters", "list", "--json")).json["dead_letters"]
    assert told["id"] == first["id"]
    assert [one["id"] for one in listed] == [second["id"], told["dead_letter_again"]["id"]]
    assert (told["dead_letter_again"]["reason"], told["dead_letter_again"]["error"]) == (
        first["reason"],
        first["error"],
    )

    start = Message(
        b'{"call_id": "c-9", "kind": "started"}',
        headers={"x-mcp-reason": "unrecognised", "x-mcp-exchange": f"{mcp.prefix}.calls"},
    )
    await mcp.client._connection._publisher.publish(start, f"{mcp.prefix}.dead", "")
    ran = await cli("dead-letters", "replay", start.message_id, "--watch", "1")
    assert (ran.code, "None became a dead letter again within 1 s." in ran.err) == (0, True)
    await mcp.event("created", call_id="c-9")


async def test_what_has_no_place_to_go_to_stays_and_no_place_is_named(cli: Cli, mcp: Cluster):
    stray = Message(b"x", headers={"x-mcp-reason": "defect", "x-mcp-exchange": f"{mcp.prefix}.events"})
    await mcp.client._connection._publisher.publish(stray, f"{mcp.prefix}.dead", "")
    ran = await cli("dead-letters", "replay", stray.message_id)
    assert "its origin is unknown" in " ".join(ran.out.split())
    assert "(default)" not in ran.out
    assert "1 message stay" in ran.err or "1 messages stay" in ran.err or "stay dead letters" in ran.err


async def test_dropping_asks_on_a_terminal(cli: Cli, mcp: Cluster):
    await poison(mcp, UNKNOWN)
    for answer, left in ((b"n\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        process = await start(
            PROGRAM,
            "dead-letters",
            "drop",
            "--all",
            env=cli.environment,
            cwd=cli.folder,
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(theirs)
        os.write(ours, answer)
        async with asyncio.timeout(45):
            out, err = await process.communicate()
        os.close(ours)
        assert b"Drop 1 message for good?" in err
        assert process.returncode == left
        assert (b"unrecognised" in out) == (not left), "what was dropped is printed"
        assert len((await cli("dead-letters", "list", "--json")).json["dead_letters"]) == left
