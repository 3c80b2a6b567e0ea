"""Messages of MCP over HTTP as a test sends them, without a client in between."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

Json = dict[str, Any]

JSON_ONLY = {"accept": "application/json"}
BOTH = {"accept": "application/json, text/event-stream"}
STATELESS = "2026-07-28"
META = "io.modelcontextprotocol/"
_IDS = itertools.count(1)


def message(method: str, params: Json | None = None, **more: Any) -> Json:
    """A request."""
    return {"jsonrpc": "2.0", "id": next(_IDS), "method": method, "params": params or {}} | more


async def ask(
    http: httpx2.AsyncClient, path: str, method: str, params: Json | None = None, **headers: str
) -> httpx2.Response:
    """Send a request as SignalWire's platform does: it takes JSON and nothing else."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post(path, json=message(method, params), headers=JSON_ONLY | named)


async def call(http: httpx2.AsyncClient, path: str, tool: str, headers: Json | None = None, **arguments: Any) -> Json:
    """Call a tool; returns the result."""
    asked = message("tools/call", {"name": tool, "arguments": arguments})
    answer = await http.post(path, json=asked, headers=JSON_ONLY | (headers or {}))
    said: Json = answer.json()
    assert answer.status_code == 200, said
    assert "result" in said, said
    result: Json = said["result"]
    return result


def text(result: Json) -> str:
    """The text of a tool's result."""
    return "".join(one["text"] for one in result["content"])


def modern(method: str, params: Json | None = None, can: Json | None = None) -> tuple[Json, dict[str, str]]:
    """A request of the stateless era, and its headers."""
    meta = {f"{META}protocolVersion": STATELESS, f"{META}clientCapabilities": can or {}}
    whole = {**(params or {}), "_meta": {**meta, **(params or {}).get("_meta", {})}}
    headers = BOTH | {"mcp-protocol-version": STATELESS, "mcp-method": method}
    if "name" in whole or "uri" in whole:
        headers["mcp-name"] = str(whole.get("name", whole.get("uri")))
    return message(method, whole), headers


async def events(response: httpx2.Response) -> AsyncIterator[Json]:
    """The messages of a stream."""
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))
