"""What is pinned cannot be had otherwise, whatever a tool's schema looks like and whatever a client says of a call."""

import sys

import pytest

from consumer.calls.requests.pinned_arguments import bound_arguments, public_tools
from schemas.errors import InvalidMessage
from tests.harness import Cluster, config

CALLER = {"type": "string"}
OBJECT = {"type": "object", "properties": {"caller": CALLER, "date": CALLER}, "required": ["caller", "date"]}
METADATA = {"call": {"call_id": "c", "kind": "started", "from": "+1555", "attributes": {"queue": "sales"}}}

SCHEMAS = {
    "properties": OBJECT,
    "allOf": {"type": "object", "allOf": [OBJECT]},
    "anyOf": {"anyOf": [{"type": "object", "properties": {"date": CALLER}}, OBJECT]},
    "then": {"type": "object", "if": {"required": ["date"]}, "then": OBJECT},
    "ref": {"$ref": "#/$defs/Arguments", "$defs": {"Arguments": OBJECT}},
    "ref in ref": {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"allOf": [{"$ref": "#/$defs/B~1C"}]}, "B/C": OBJECT},
    },
    "endless ref": {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}, OBJECT]}}},
    "elsewhere": {"$ref": "https://example.com/schema.json"},
    "additional": {"type": "object", "additionalProperties": True},
    "additional of a kind": {"type": "object", "additionalProperties": {"type": "string"}},
    "patterns": {"type": "object", "patternProperties": {"^c": CALLER}, "additionalProperties": False},
    "a thousand branches": {"anyOf": [{"anyOf": [{"anyOf": [OBJECT] * 20}] * 20}] * 20},
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_a_tool_that_may_take_the_argument_gets_the_pinned_one_and_does_not_show_it(schema):
    tool = {"name": "book", "inputSchema": schema}
    given = bound_arguments({"caller": "{from}"}, METADATA, [tool], "book", {"caller": "+1666", "date": "today"})
    assert given == {"caller": "+1555", "date": "today"}
    (shown,) = public_tools({"caller": "{from}"}, [tool])
    without_definitions = {key: value for key, value in shown["inputSchema"].items() if key != "$defs"}
    assert "caller" not in str(without_definitions)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "properties": {}}, True, None, {"allOf": 3}])
def test_a_tool_that_does_not_name_the_argument_gets_nobodys(schema):
    tool = {"name": "book", "inputSchema": schema}
    given = bound_arguments({"caller": "{from}"}, METADATA, [tool], "book", {"caller": "+1666", "date": "today"})
    assert given == {"date": "today"}


def test_what_only_telephony_says_no_other_metadata_says():
    tools = [{"name": "book", "inputSchema": OBJECT}]
    given = bound_arguments({"caller": "{from}"}, METADATA | {"from": "+1666"}, tools, "book", {})
    assert given == {"caller": "+1555"}
    for metadata in ({"from": "+1666"}, {"call": {"call_id": "c", "from": None}, "from": "+1666"}):
        with pytest.raises(InvalidMessage, match=r"bound to \{from\}.*\{from\|default\}"):
            bound_arguments({"caller": "{from}"}, metadata, tools, "book", {})
    assert bound_arguments({"caller": "{from|}"}, {}, tools, "book", {}) == {"caller": ""}
    assert bound_arguments({"caller": "{{from}}"}, {}, tools, "book", {}) == {"caller": "{from}"}


SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("who", log_level="ERROR")

@server.tool()
def who(caller: str = "nobody", tenant: str = "nobody", queue: str = "nobody") -> str:
    return f"{caller} of {tenant} in {queue}"

@server.prompt()
def greet(caller: str = "nobody") -> str:
    return f"greet {caller}"

server.run()
"""


async def test_a_client_cannot_speak_for_another_caller(mcp: Cluster):
    bind = {"caller": "{from}", "tenant": "{tenant}", "queue": "{queue}"}
    service = {"command": [sys.executable, "-c", SERVER], "bind": bind}
    await mcp.start(
        config(
            services={"who": service, "other": service},
            routes=[{"services": ["who"], "metadata": {"tenant": "acme"}}],
        )
    )
    started = {"call_id": "c", "kind": "started", "from": "+1555", "attributes": {"queue": "sales"}}
    await mcp.client.publish_call_event(started)
    await mcp.event("created", session_id="c")
    lie = {"from": "+1666", "tenant": "evil", "queue": "vip", "kept": 1}
    lies = {"caller": "+1666", "tenant": "evil", "queue": "vip"}
    assert (await mcp.client.call_tool("c", "who", lies)).text == "+1555 of acme in sales"

    # Another session of the same call, one in place of the first, and one that a tool call opens.
    await mcp.client.create("c#other", "other", metadata=lie)
    assert (await mcp.client.call_tool("c#other", "who", lies)).text == "+1555 of acme in sales"
    replaced = await mcp.client.create("c", "who", metadata=lie)
    assert replaced.metadata["kept"] == 1
    assert (await mcp.client.call_tool("c", "who", lies)).text == "+1555 of acme in sales"
    await mcp.client.close("c#other")
    assert (await mcp.client.call_tool("c", "who", lies, service_name="other")).text == "+1555 of acme in sales"
    prompt = await mcp.client.request(
        "prompts.get", {"session_id": "c", "name": "greet", "arguments": {"caller": "+1666"}}, call_id="c"
    )
    assert prompt["messages"][0]["content"]["text"] == "greet +1555"

    # A session of a call that telephony has said nothing of, and one that was there before telephony spoke.
    with pytest.raises(InvalidMessage, match=r"metadata\.call"):
        await mcp.client.create("d", "who", metadata={"call": {"from": "+1666"}})
    await mcp.client.create("d", "who", metadata=lie)
    with pytest.raises(InvalidMessage, match=r"bound to \{from\}"):
        await mcp.client.call_tool("d", "who", lies)
    await mcp.client.publish_call_event(started | {"call_id": "d"})
    await mcp.until(lambda: mcp.logged("delivery", type="call.started", call_id="d"))
    assert (await mcp.client.call_tool("d", "who", lies)).text == "+1555 of acme in sales"
