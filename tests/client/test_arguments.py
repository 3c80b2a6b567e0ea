"""A wrong argument is refused before anything is sent, by a sentence that names it."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from consumer.client import (
    CallEvent,
    CallKind,
    Disconnected,
    InvalidArgument,
    InvalidKey,
    SessionClient,
    SyncSessionClient,
)
from consumer.client.arguments import naming_arguments

Use = Callable[[SessionClient], Any]


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda client: client.get(7), "session_id: must be a str, is of type int"),
        (lambda client: client.call_tool(None, "echo"), "session_id: must be a str, is None"),
        (lambda client: client.create("c", "todo", reply_timeout="5"), "reply_timeout: must be a number of seconds"),
        (lambda client: client.list_workers(reply_timeout=0), "reply_timeout: must be more than 0 and at most 604800"),
        (lambda client: client.list_workers(reply_timeout=math.nan), "reply_timeout: must be more than 0"),
        (lambda client: client.call_tool("c", "echo", timeout=-1), "timeout: must be more than 0"),
        (lambda client: client.call_tool("c", "echo", timeout=math.inf), "timeout: must be more than 0"),
        (lambda client: client.call_tool("c", "echo", on_progress=3), "on_progress: must be a function or None"),
        (lambda client: client.request("x", {}, call_id=3), "call_id: must be a str, is of type int"),
        (
            lambda client: client.publish_call_event("text"),
            "event: must be a CallEvent, a dict or bytes",
        ),
        (lambda client: client.publish_call_event(b"{}", exchange=3), "exchange: must be a str"),
        (lambda client: client.publish_call_event(b"{}", routing_key=None), "routing_key: must be a str, is None"),
        (lambda client: client.publish_call_event(b"{}", exchange="x" * 256), "exchange: must be 1 to 255 bytes long"),
        (lambda client: client.publish_call_event(b"{}", exchange=""), "exchange: must be 1 to 255 bytes long, is 0"),
        (lambda client: client.publish_call_event(b"{}", routing_key="x" * 256), "routing_key: must be 0 to 255 bytes"),
        (lambda client: client.following("x" * 256).__aenter__(), "pattern: must be 0 to 255 bytes long, is 256"),
        (lambda client: client.request("tools.call", "x"), "body: must be a dict, is of type str"),
        (lambda client: client.request(7, {}), "message_type: must be a str, is of type int"),
        (lambda client: client.publish_call_event({"call_id": b"c"}), "call_id: must be a JSON value"),
        (lambda client: client.following(3).__aenter__(), "pattern: must be a str"),
        (lambda client: client.call_tool("c", "echo", [1]), "arguments: must be an object"),
        (lambda client: client.call_tool("c", "echo", "x"), "arguments: must be an object"),
        (lambda client: client.call_tool("c", None), "name: is required, and must not be None"),
        (lambda client: client.call_tool("c", ""), "name: must have at least 1 character"),
        (lambda client: client.call_tool("", "echo"), "session_id: must be 1 to 255 bytes long, is 0"),
        (lambda client: client.call_tool("c", "echo", open="maybe"), "open: must be 'beside', 'alone' or 'never'"),
        (lambda client: client.call_tool("c", "echo", idempotency_key=5), "idempotency_key: must be a valid string"),
        (lambda client: client.call_tool("c", "echo", idempotency_key=""), "idempotency_key: must have at least 1"),
        (lambda client: client.cancel_tool("c", ""), "idempotency_key: must have at least 1 character"),
        (lambda client: client.create("c", "todo", if_exists="keeep"), "if_exists: must be 'replace', 'keep'"),
        (lambda client: client.create("c", "todo", timeout=-4), "timeout: must be greater than 0"),
        (lambda client: client.create("c", "todo", metadata=[1]), "metadata: must be an object"),
        (lambda client: client.create("c", "to do"), "service_name: must match pattern"),
        (lambda client: client.list_sessions(limit=0), "limit: must be greater than or equal to 1"),
        (lambda client: anext(client.iter_sessions(page_size=0)), "page_size: must be 1 to 10000, is 0"),
        (lambda client: client.get_prompt("c", "greet", {"n": 1}), "arguments.n: must be a valid string"),
        (
            lambda client: client.call_tool("c", "echo", tmeout=3),
            "call_tool: has no argument 'tmeout'; did you mean 'timeout'?",
        ),
        (lambda client: client.call_tool("c"), "call_tool: missing a required argument: 'name'"),
        (
            lambda client: client.call_tool("c", "echo", {}, 3),
            "call_tool: takes 3 arguments without a name (session_id, name, arguments), not 4",
        ),
        (lambda client: client.request("x", {}, timeout=3), "request: has no argument 'timeout'; did you mean"),
        (lambda client: client.following(on_conection=print), "following: has no argument 'on_conection'; did you"),
        (lambda client: client.iter_sessions(pagesize=3), "iter_sessions: has no argument 'pagesize'; did you"),
    ],
)
async def test_an_argument_of_a_method(use: Use, told: str):
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        await use(SessionClient("amqp://localhost"))


@pytest.mark.parametrize("kind", [SessionClient, SyncSessionClient])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"url": None}, "url: must be a str, is None; is the environment variable set"),
        ({"prefix": 3}, "prefix: must be a str"),
        ({"prefix": "m c.p"}, "prefix: must be 1 to 100 letters, digits, '.', '_' or '-'"),
        ({"connect_timeout": 0}, "connect_timeout: must be more than 0"),
        ({"token_keys": "secret"}, "token_keys: must be a list of str, is of type str"),
    ],
)
def test_an_argument_of_a_client(kind: Any, arguments: dict[str, Any], told: str):
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        kind(**arguments)


async def test_what_json_makes_of_an_argument_counts():
    """A model, a tuple or a key that is a number becomes what JSON has, and only then is read as a worker reads it."""
    event = CallEvent.model_validate({"call_id": "c", "kind": "started"})
    for arguments in (event, {"pair": (1, 2)}):
        with pytest.raises(Disconnected):
            await SessionClient("amqp://localhost").call_tool("c", "echo", arguments)  # type: ignore[arg-type]


def test_an_argument_of_the_synchronous_clients_methods():
    with pytest.raises(InvalidArgument, match="mint_token: has no argument 'scope'; did you mean 'scopes'"):
        SyncSessionClient(token_keys=["0" * 64]).mint_token("c", scope=["mcp"])  # type: ignore[call-arg]


def test_a_methods_own_type_error_is_not_told_as_one_of_its_arguments():
    @naming_arguments
    class Broken:
        def method(self, argument: int) -> int:
            return argument + None  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):
        Broken().method(1)


@pytest.mark.parametrize(
    ("scopes", "told"),
    [
        (["mcpp"], "scopes[0]: must be 'mcp' or 'gateway', is 'mcpp'; did you mean 'mcp'?"),
        ([], "scopes: must have at least one of 'mcp', 'gateway'"),
    ],
)
def test_a_token_for_no_scope_that_there_is(scopes: Any, told: str):
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        SessionClient(token_keys=["0" * 64]).mint_token("c", scopes=scopes)


@pytest.mark.parametrize("kind", [SessionClient, SyncSessionClient])
@pytest.mark.parametrize("key", ["", "short", "k" * 31])
def test_a_key_that_the_gateway_refuses_is_refused_at_once(kind: Any, key: str):
    for keys in ([key], ["0" * 64, key]):
        with pytest.raises(InvalidKey, match="a key must have at least 32 bytes"):
            kind(token_keys=keys)
    assert kind(token_keys=["k" * 32]).mint_token("c")


def test_a_token_for_what_is_no_list_of_services():
    with pytest.raises(InvalidArgument, match="services: must be a list of str"):
        SessionClient(token_keys=["0" * 64]).mint_token("c", "todo")


def test_it_is_an_error_of_the_family_and_one_of_pythons():
    assert issubclass(InvalidArgument, TypeError)
    assert issubclass(InvalidArgument, ValueError)


def test_the_kind_of_an_event_may_be_its_text():
    assert CallEvent.model_validate({"call_id": "c", "kind": "started"}).kind is CallKind.STARTED
