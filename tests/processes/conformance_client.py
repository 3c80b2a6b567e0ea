"""What the official conformance suite runs as an MCP client: the client that a worker has for each ``url`` service.

The suite names the scenario in the environment. Each scenario's part is that of
a requester: which tools are called with what, and what a person answers. The rest is the worker's own client.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService
from consumer.sessions.dialogue import Dialogue
from schemas.errors import SessionsError, ToolNotFound

Json = dict[str, Any]


async def accept(method: str, params: Json) -> Json:
    """A person who fills in nothing that has a default, and says yes."""
    if method == "roots/list":
        return {"roots": [{"uri": "file:///here"}]}
    if method == "sampling/createMessage":
        return {"role": "assistant", "content": {"type": "text", "text": "yes"}, "model": "m"}
    fields = params.get("requestedSchema", {}).get("properties", {})
    likely = {"boolean": True, "integer": 1, "number": 1.0}
    content = {name: one.get("default", likely.get(one.get("type"), "yes")) for name, one in fields.items()}
    return {"action": "accept", "content": content}


ANYTHING = Dialogue(on_question=accept, capabilities={"elicitation": {"form": {}}, "sampling": {}, "roots": {}})


async def nothing(client: MCPClient) -> None:
    """The start has listed the tools."""


async def add(client: MCPClient) -> None:
    await client.call_tool("add_numbers", {"a": 2, "b": 3})


async def every_tool(client: MCPClient) -> None:
    """Call each tool that there is, those of one kind at once."""
    answers = [client.call_tool(tool["name"], {}, dialogue=ANYTHING) for tool in client.tools]
    for answer in await asyncio.gather(*answers, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, SessionsError):
            raise answer


async def named_tools(client: MCPClient) -> None:
    """Call the tools that the suite names, with its arguments."""
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def tools_resources_and_prompts(client: MCPClient) -> None:
    await every_tool(client)
    for one in (await client.call_method("resources/list"))["resources"]:
        await client.call_method("resources/read", {"uri": one["uri"]})
    for one in (await client.call_method("prompts/list"))["prompts"]:
        await client.call_method("prompts/get", {"name": one["name"], "arguments": {}})


INVALID = (
    *(f"invalid_{kind}_header" for kind in ("empty", "object", "array", "null", "number")),
    *(f"invalid_duplicate_{case}_case" for case in ("same", "diff")),
    *(f"invalid_{kind}_name" for kind in ("space_in", "colon_in", "non_ascii", "control_char")),
)
"""Tools of the suite that a client must not call."""


async def valid_and_invalid_tools(client: MCPClient) -> None:
    """Call the tool that may be called, and ask for those that may not."""
    await client.call_tool("valid_tool", {"region": "eu"})
    for name in INVALID:
        with suppress(ToolNotFound):
            await client.call_tool(name, {"value": "x"})


SCENARIOS: dict[str, Callable[[MCPClient], Awaitable[None]]] = {
    "initialize": nothing,
    "tools_call": add,
    "elicitation-sep1034-client-defaults": every_tool,
    "sse-retry": every_tool,
    "request-metadata": every_tool,
    "sep-2322-client-request-state": every_tool,
    "http-standard-headers": tools_resources_and_prompts,
    "http-custom-headers": named_tools,
    "http-invalid-tool-headers": valid_and_invalid_tools,
    "json-schema-ref-no-deref": nothing,
}


async def main(url: str) -> None:
    """Do what a scenario wants."""
    service = MCPService(name="conformance", url=url, offers=("sampling", "roots"))
    client = MCPClient(service)
    await client.start()
    try:
        await SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]](client)
    finally:
        await client.stop()
