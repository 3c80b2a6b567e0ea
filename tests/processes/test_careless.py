"""Servers that answer carelessly, as real ones have been seen to, over stdio and over HTTP."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.mcp_manager import MCPManager
from consumer.processes.service import MCPService, Warm
from schemas.errors import ErrorCode, McpError, OutcomeUnknown, SessionDied, SessionsError, StartFailed, StartTimeout

from .helpers import Exits, Start, command, text

TIMEOUT = 30.0
"""Far more than anybody here waits: what is told at once is not told by a timeout."""


class Remotes:
    """Starts HTTP servers, clients of them, and stops them all."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []
        self._clients: list[MCPClient] = []

    async def __call__(self, *switches: str, **settings: Any) -> MCPClient:
        process = await asyncio.create_subprocess_exec(
            *command("careless_server", "--http", *switches), stdout=asyncio.subprocess.PIPE
        )
        self._processes.append(process)
        assert process.stdout is not None
        port = int(await asyncio.wait_for(process.stdout.readline(), 45))
        url = f"http://127.0.0.1:{port}/mcp"
        client = MCPClient(MCPService.model_validate({"name": "svc", "url": url, **settings}))
        self._clients.append(client)
        await client.start()
        return client

    async def stop(self) -> None:
        await asyncio.gather(*(client.stop() for client in self._clients))
        for process in self._processes:
            process.kill()
            await process.wait()


@pytest.fixture
async def remote() -> AsyncIterator[Remotes]:
    remotes = Remotes()
    yield remotes
    await remotes.stop()


@pytest.fixture(params=["stdio", "stdio --modern", "http", "http --modern"])
async def careless(request: pytest.FixtureRequest, start: Start, remote: Remotes) -> MCPClient:
    transport, *switches = request.param.split()
    return await (remote(*switches) if transport == "http" else start("careless_server", *switches))


@pytest.mark.parametrize("switches", [(), ("--modern",)], ids=["old", "modern"])
async def test_a_server_that_answers_notifications_serves(start: Start, switches: tuple[str, ...]):
    """As the server that SignalWire's gateway brings as an example does."""
    client = await start("careless_server", "--answer-all", *switches)
    assert text(await client.call_tool("ok", {}, timeout=TIMEOUT)) == "ok"


async def refused(client: MCPClient, name: str, arguments: dict[str, Any]) -> SessionsError:
    """The error of a call that is told at once."""
    with pytest.raises(SessionsError) as caught:
        await asyncio.wait_for(client.call_tool(name, arguments, timeout=TIMEOUT), 45)
    return caught.value


NOT_QUITE = [
    ('{"jsonrpc": "2.0", "id": $ID, "error": "no such customer"}', "no such customer"),
    ('{"jsonrpc": "2.0", "id": $ID, "error": {"code": "E1", "message": "no such customer"}}', "no such customer"),
    ('{"jsonrpc": "2.0", "id": $ID, "error": {"code": 1.5, "message": "no such customer"}}', "no such customer"),
    ('{"jsonrpc": "2.0", "id": $ID, "error": {"message": "no such customer"}}', "no such customer"),
    ('{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "Parse error"}}', "Parse error"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": []}', "[]"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": "fine"}', '"fine"'),
    ('{"jsonrpc": "2.0", "id": $ID}', "neither"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": {"n": ' + "1" * 5000 + "}}", "too many digits"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": {"n": ' + "[" * 5000 + "]" * 5000 + "}}", "nested too deeply"),
    ('[{"jsonrpc": "2.0", "id": $ID, "result": {}}]', "array"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": {"content": "fine"}}', '"fine"'),
]
"""Answers, and what is told of each."""


async def test_an_answer_that_is_not_quite_one_is_told_at_once(careless: MCPClient) -> None:
    for raw, words in NOT_QUITE:
        error = await refused(careless, "say", {"raw": raw})
        assert error.code is ErrorCode.MCP_ERROR, raw
        assert words in error.message, raw
        assert "validation error" not in error.message, raw
        assert careless.is_alive, raw
        assert text(await careless.call_tool("ok")) == "ok", raw


async def test_an_id_may_be_written_as_a_fraction_or_a_text(careless: MCPClient) -> None:
    for written in ("$ID.0", '"$ID"'):
        raw = '{"jsonrpc": "2.0", "id": ID, "result": {"content": []}}'.replace("ID", written)
        assert (await careless.call_tool("say", {"raw": raw}))["content"] == []


async def test_what_is_in_a_result_is_handed_on(careless: MCPClient) -> None:
    result = await careless.call_tool("result", {"json": '{"content": ["bare", null, {"type": "text"}], "n": null}'})
    assert result["content"] == ["bare", None, {"type": "text"}]


async def test_numbers_that_json_does_not_have_go_to_servers_as_null(careless: MCPClient) -> None:
    assert text(await careless.call_tool("ok", {"mean": float("nan"), "most": float("inf")})) == "ok"
    with pytest.raises(SessionsError) as caught:
        await careless.call_tool("ok", {"half": "\ud800"})
    assert caught.value.code is ErrorCode.INVALID_MESSAGE
    assert careless.is_alive


# The start.


@pytest.mark.parametrize("kind", ["php", "php_empty", "true", "nameless"])
async def test_a_careless_introduction_is_good_enough(start: Start, kind: str) -> None:
    client = await start("careless_server", "--start", kind)
    assert text(await client.call_tool("ok")) == "ok"
    if kind == "php":
        tool = client.tools[0]
        assert (tool["inputSchema"]["properties"], tool["annotations"]) == ({}, {})


@pytest.mark.parametrize(
    ("kind", "words"), [("futuristic", "2999-01-01"), ("wrong", "capabilities.tools.listChanged"), ("array", "array")]
)
async def test_an_introduction_that_cannot_be_used_says_why(start: Start, kind: str, words: str) -> None:
    with pytest.raises(StartFailed, match=words) as caught:
        await start("careless_server", "--start", kind)
    assert "validation error" not in caught.value.message


async def test_a_banner_in_the_place_of_mcp_is_quoted(start: Start) -> None:
    with pytest.raises(StartTimeout, match=r'not MCP: "Listening on http://0\.0\.0\.0:3000"'):
        await start("careless_server", "--start", "banner", start_timeout=1.0)


@pytest.mark.parametrize("status", [401, 429, 500, 502])
async def test_the_status_of_a_refusal_is_told(remote: Remotes, status: int) -> None:
    with pytest.raises(StartFailed, match=f"HTTP {status} .*go away") as caught:
        await remote("--status", str(status), "--body", "go away")
    assert caught.value.details["status"] == status


# The end.


@pytest.mark.parametrize("pipe", ["stdin", "stdout"])
async def test_a_server_that_closes_a_pipe_and_lives_on_is_dead(start: Start, pipe: str) -> None:
    client = await start("careless_server")
    exits = Exits()
    client.on_exit(exits)
    error = await refused(client, "close", {"pipe": pipe})
    assert isinstance(error, OutcomeUnknown)
    assert not client.is_alive
    assert f"it closed its {pipe}" in (await exits.first()).stderr


SDK_BODY = '{"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "Session not found"}}'


@pytest.mark.parametrize(
    "how",
    [
        {"raw": SDK_BODY, "type": "application/json"},
        {"raw": SDK_BODY.replace("-32600", "-32001").replace('"server-error"', "null"), "type": "application/json"},
        {"raw": "{}", "type": "application/json"},
        {"raw": "", "type": "text/html"},
        {"raw": "No valid session ID provided", "status": 400},
    ],
)
async def test_a_server_that_forgot_the_session_has_ended_it(remote: Remotes, how: dict[str, Any]) -> None:
    client = await remote()
    exits = Exits()
    client.on_exit(exits)
    await client.call_tool("forget", how)
    error = await refused(client, "ok", {})
    assert isinstance(error, SessionDied)
    assert "no longer knows the session" in error.message
    assert not client.is_alive
    assert "no longer knows the session" in (await exits.first()).stderr
    with pytest.raises(SessionDied, match="no longer knows the session"):
        await client.call_tool("ok")


async def test_a_forgotten_session_is_noticed_before_a_call_is_lost_on_it(remote: Remotes) -> None:
    client = await remote("--listen")
    exits = Exits()
    client.on_exit(exits)
    await client.call_tool("forget", {})
    assert "no longer knows the session" in (await exits.first()).stderr
    assert not client.is_alive


async def test_a_bad_request_is_no_forgotten_session(remote: Remotes) -> None:
    client = await remote()
    error = await refused(client, "say", {"raw": "what?", "status": 400, "type": "text/plain"})
    assert isinstance(error, McpError)
    assert error.message == 'the server answered HTTP 400 Bad Request: "what?"'
    assert error.details["data"] == {"status": 400}
    assert client.is_alive


async def test_a_connection_that_breaks_under_a_call_costs_that_call_only(remote: Remotes) -> None:
    client = await remote()
    error = await refused(client, "drop", {})
    assert isinstance(error, OutcomeUnknown)
    assert "the connection was lost before the response came" in error.message
    assert client.is_alive
    assert text(await client.call_tool("ok")) == "ok"


async def test_a_stream_that_ends_without_the_answer_leaves_open_what_was_executed(remote: Remotes) -> None:
    client = await remote()
    error = await refused(client, "say", {"raw": ": nothing\n\n", "type": "text/event-stream"})
    assert isinstance(error, OutcomeUnknown)
    assert client.is_alive
    assert text(await client.call_tool("ok")) == "ok"


async def test_a_server_at_a_url_that_talks_without_end_is_left_with_its_reason(remote: Remotes) -> None:
    client = await remote()
    exits = Exits()
    client.on_exit(exits)
    with pytest.raises(OutcomeUnknown):
        await client.call_tool("flood", timeout=60)
    assert "kept sending messages that nobody requested" in (await exits.first()).stderr
    assert not client.is_alive


async def test_a_client_whose_server_forgot_it_while_it_waited_is_given_to_nobody(remote: Remotes) -> None:
    first = await remote()
    service = first.service.model_copy(update={"warm": Warm(min=1, max=1)})
    async with MCPManager({"svc": service}) as manager:
        manager.warm_up()
        async with asyncio.timeout(45):
            while not manager.warm("svc"):
                await asyncio.sleep(0.01)
        await first.call_tool("forget")
        client = await manager.create_client("svc")
        assert client.is_alive
        assert text(await client.call_tool("ok")) == "ok"


# Whatever they answer.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def is_late(request_id: Any) -> bool:
    """Whether this is the id of an earlier request, whose answer nobody waits for any more."""
    if isinstance(request_id, bool) or not isinstance(request_id, int | float | str):
        return False
    try:
        return 0 < int(request_id) < 10_000
    except (ValueError, OverflowError):
        return False


def is_answer(members: dict[str, Any]) -> bool:
    """Whether this is no request of the server's own."""
    return "method" not in members or "result" in members or "error" in members


IDS = JSON.filter(lambda request_id: not is_late(request_id))
MEMBERS = st.fixed_dictionaries(
    {}, optional={"result": JSON, "error": JSON, "id": IDS, "method": st.text(max_size=4)}
).filter(is_answer)
ERRORS = st.fixed_dictionaries({}, optional={"code": JSON, "message": JSON, "data": JSON})
RESULTS = st.fixed_dictionaries(
    {}, optional={"content": JSON, "isError": JSON, "structuredContent": JSON, "_meta": JSON}
)
ANSWERS = MEMBERS | st.builds(lambda error: {"error": error}, ERRORS) | st.builds(lambda it: {"result": it}, RESULTS)
FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def told_at_once(client: MCPClient, arguments: dict[str, Any]) -> None:
    """Call ``say``; whatever comes back is told long before the caller gives up, and the session lives on."""
    try:
        result = await asyncio.wait_for(client.call_tool("say", arguments, timeout=TIMEOUT), 45)
    except SessionsError as error:
        if error.code is not ErrorCode.MCP_ERROR:
            raise
        json.loads(error.body().model_dump_json())
    else:
        assert isinstance(result["content"], list)
    assert client.is_alive
    assert client.exit is None
    assert text(await client.call_tool("ok")) == "ok"


def raw_of(members: dict[str, Any]) -> str:
    """An answer to the request at hand, with these members in the place of the right ones."""
    return json.dumps({"jsonrpc": "2.0", "id": "@", **members}).replace('"id": "@"', '"id": $ID', 1)


@pytest.fixture(params=["stdio", "http"])
async def fuzzed(request: pytest.FixtureRequest, start: Start, remote: Remotes) -> MCPClient:
    return await (remote() if request.param == "http" else start("careless_server"))


@FUZZ
@given(members=ANSWERS)
async def test_whatever_stands_in_an_answer_its_caller_has_a_code_at_once(
    fuzzed: MCPClient, members: dict[str, Any]
) -> None:
    await told_at_once(fuzzed, {"raw": raw_of(members)})


@FUZZ
@given(line=st.binary(max_size=60))
async def test_whatever_stands_on_a_line_its_caller_has_a_code_at_once(fuzzed: MCPClient, line: bytes) -> None:
    await told_at_once(fuzzed, {"raw": line.decode("latin-1"), "then": True})


@FUZZ
@given(cut=st.integers(0, 60), junk=st.binary(max_size=8))
async def test_however_an_answer_is_cut_its_caller_has_a_code_at_once(fuzzed: MCPClient, cut: int, junk: bytes) -> None:
    whole = '{"jsonrpc": "2.0", "id": $ID, "result": {"content": []}}'
    await told_at_once(fuzzed, {"raw": whole[:cut] + junk.decode("latin-1") + whole[cut:], "then": True})


async def test_a_line_of_a_log_that_quotes_an_answer_is_none(start: Start) -> None:
    client = await start("careless_server")
    answer = '{"jsonrpc": "2.0", "id": $ID, "result": {"content": []}}'
    for log in ("[INFO] sending ", "[2026-01-01 12:00:00] sent ", "sending: "):
        assert text(await client.call_tool("say", {"raw": log + answer, "then": True})) == "ok"


BESIDE = [
    '{"jsonrpc": 2.0, "id": $ID, "result": {"content": []}, "_meta": {}}',
    '{"jsonrpc": "1.0", "id": $ID, "result": {"content": []}, "error": null, "took": 3}',
    '{"id": $ID, "result": {"content": []}, "server": "mine"}',
    '\0{"jsonrpc": "2.0", "id": $ID, "result": {"content": []}}\0',
    '\x1e{"jsonrpc": "2.0", "id": $ID, "result": {"content": []}}',
]
"""Good answers with something that is not JSON-RPC's, or not JSON's."""


async def test_what_stands_beside_an_answer_does_not_matter(careless: MCPClient) -> None:
    for raw in BESIDE:
        assert (await careless.call_tool("say", {"raw": raw}, timeout=10))["content"] == [], raw


async def test_no_nesting_ends_the_session(careless: MCPClient) -> None:
    """A letter that is mended must not let more levels in than can be written again."""
    for depth, odd in itertools.product([150, 195, 400, 900], ["\\ud800", "\u00e9"]):
        deep = '{"a":' * depth + "1" + "}" * depth
        raw = '{"jsonrpc": "2.0", "id": $ID, "result": {"content": [], "s": "ODD", "deep": DEEP}}'
        try:
            result = await careless.call_tool("say", {"raw": raw.replace("ODD", odd).replace("DEEP", deep)})
        except McpError as error:
            assert "nested too deeply" in error.message  # noqa: PT017 - one of the two
        else:
            json.dumps(result)
            assert depth < 200
        assert careless.is_alive, (depth, odd)
        assert text(await careless.call_tool("ok")) == "ok", (depth, odd)
