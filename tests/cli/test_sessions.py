"""Sessions and tools from the command line, on a real worker."""

import pytest

from tests.cli.conftest import Cli
from tests.harness import Cluster

CALL = "c3f1b5d3-98db-45a6-a20b-2cf0dd311efa"


async def test_when_nothing_is_open_a_sentence_says_so_and_what_to_do_next(cli: Cli):
    ran = await cli("sessions", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "No session is open" in ran.err
    assert "sessions create" in ran.err
    ran = await cli("sessions", "list", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {"sessions": {}, "complete": True, "missing_workers": []}


async def test_a_session_is_created_listed_looked_at_and_closed(cli: Cli, mcp: Cluster):
    created = await cli("sessions", "create", CALL, "todo", "--timeout", "600", "--metadata", '{"n": 1}', "--json")
    assert (created.code, created.err) == (0, "")
    assert created.json["session_id"] == CALL
    assert created.json["timeout"] == 600
    assert created.json["metadata"] == {"n": 1}

    listed = await cli("sessions", "list")
    assert listed.code == 0
    assert CALL in listed.out, "an id must be copyable at 80 columns"
    assert max(map(len, listed.out.splitlines())) <= 80

    got = await cli("sessions", "get", CALL)
    assert got.code == 0
    for shown in (CALL, "todo", mcp.workers[0].worker_id, "alive", '"n": 1'):
        assert shown in got.out

    await cli("sessions", "create", f"{CALL}#echo", "echo")
    page = (await cli("sessions", "list", "--limit", "1", "--json")).json
    assert list(page["sessions"]) == [CALL]
    page = (await cli("sessions", "list", "--cursor", page["next_cursor"], "--json")).json
    assert list(page["sessions"]) == [f"{CALL}#echo"]
    only = await cli("sessions", "list", "--service", "echo", "--json")
    assert list(only.json["sessions"]) == [f"{CALL}#echo"]
    none = await cli("sessions", "list", "--service", "nothing")
    assert (none.out, "No open session matches" in none.err) == ("", True)

    closed = await cli("sessions", "close", CALL, "--json")
    assert closed.json == {"closed": True, "sessions": [CALL, f"{CALL}#echo"]}
    again = await cli("sessions", "close", CALL)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith(f"SESSION_NOT_FOUND: no session is open under the id '{CALL}'\n")
    assert (await cli("sessions", "close", CALL, "--json")).error["code"] == "SESSION_NOT_FOUND"


async def test_options_stand_before_the_command_or_behind_it(cli: Cli, amqp_url: str, mcp: Cluster):
    cli.environment["MCP_SESSIONS_PREFIX"] = "nobody-here"
    cli.environment["AMQP_URL"] = "amqp://127.0.0.1:1/"
    before = await cli("--json", "--url", amqp_url, "--prefix", mcp.prefix, "workers")
    behind = await cli("workers", "--url", amqp_url, "--prefix", mcp.prefix, "--json")
    for ran in (before, behind):
        assert ran.code == 0, ran.err
        assert [worker["worker_id"] for worker in ran.json["workers"]] == [mcp.workers[0].worker_id]


async def test_tools_are_listed_and_called_with_arguments_as_the_schema_has_them(cli: Cli):
    called = await cli("tools", "call", CALL, "add_todo", "text=42", "--service", "todo")
    assert (called.code, called.err) == (0, "")
    assert '"text": "42"' in called.out, "a number is text where the tool wants text"
    called = await cli("tools", "call", CALL, "complete_todo", "id=1", "--json")
    assert called.code == 0, "and a number where it wants one"
    assert called.json["structuredContent"] == {"id": 1, "text": "42", "done": True}
    assert called.json["session_id"] == CALL
    called = await cli("tools", "call", CALL, "add_todo", '{"text": "é [bold]\\u001b[31m"}')
    assert called.code == 0
    assert "é [bold]" in called.out

    listed = await cli("tools", "list", CALL)
    assert "add_todo(text)" in listed.out
    assert "complete_todo(id)" in listed.out
    listed = await cli("tools", "list", CALL, "--json")
    assert {tool["name"] for tool in listed.json["tools"]} >= {"add_todo", "list_todos"}


async def test_a_tool_that_answers_with_an_error_makes_the_exit_code_1(cli: Cli):
    await cli("sessions", "create", CALL, "todo")
    ran = await cli("tools", "call", CALL, "complete_todo", "id=7")
    assert ran.code == 1
    assert "There is no todo 7" in ran.out
    assert "answered with an error" in ran.err
    ran = await cli("tools", "call", CALL, "complete_todo", "id=7", "--json")
    assert (ran.code, ran.err, ran.json["isError"]) == (1, "", True)


async def test_errors_of_the_workers_are_told_by_code_and_sentence(cli: Cli):
    ran = await cli("sessions", "create", CALL, "nothing")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("SERVICE_NOT_FOUND: ")
    assert "services list" in ran.err
    ran = await cli("sessions", "create", CALL, "nothing", "--json")
    assert (ran.code, ran.err) == (1, "")
    assert ran.error["code"] == "SERVICE_NOT_FOUND"
    assert ran.error["details"]["service_name"] == "nothing"

    ran = await cli("tools", "call", "no-such-call", "add_todo", "text=x")
    assert (ran.code, ran.err.split(":")[0]) == (1, "SESSION_NOT_FOUND")
    await cli("sessions", "create", CALL, "todo")
    ran = await cli("tools", "call", CALL, "no_such_tool")
    assert (ran.code, ran.err.split(":")[0]) == (1, "TOOL_NOT_FOUND")
    ran = await cli("sessions", "create", CALL, "todo", "--if-exists", "reject", "--json")
    assert (ran.code, ran.error["code"]) == (1, "SESSION_EXISTS")
    ran = await cli("sessions", "list", "--cursor", "made-up")
    told = "INVALID_MESSAGE: sessions.list: cursor: was not returned with an earlier page\n"
    assert (ran.code, ran.out, ran.err) == (1, "", told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", CALL, "todo", "--timeout", "-3"), "timeout: must be greater than 0"),
        (("get", "#todo"), "session_id: must begin with the id of a call, before the '#'"),
    ],
    ids=["timeout", "id"],
)
async def test_an_argument_that_no_worker_would_take_is_wrong_usage(
    cli: Cli, arguments: tuple[str, ...], told: str
) -> None:
    ran = await cli("sessions", *arguments)
    assert (ran.code, ran.out, ran.err) == (2, "", f"INVALID_ARGUMENT: {told}\n")


async def test_an_event_with_a_letter_in_another_encoding_is_sent_and_opens_its_call(cli: Cli, mcp: Cluster):
    event = cli.folder / "latin.json"
    event.write_bytes(b'{"Event-Name": "CHANNEL_CREATE", "Unique-ID": "lat-1", "Caller-Caller-ID-Name": "Jos\xe9"}')
    sent = (await cli("calls", "send", str(event), "--json")).json["sent"][0]
    assert (sent["kind"], sent["call_id"], sent["note"]) == ("started", "lat-1", "")
    created = await mcp.event("created", session_id="lat-1")
    assert created.data["metadata"]["call"]["attributes"]["caller_name"] == "Jos\ufffd"
