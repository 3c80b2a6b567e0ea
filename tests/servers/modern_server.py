"""A small MCP server of the 2026-07-28 revision, in the standard library: no handshake, every request stands alone.

``initialize`` is refused with the error that names its version, as the revision wants. Questions are asked by
answering ``input_required``. Switches::

    --slow-start SECONDS    sleep before reading anything
    --versions A,B          the versions that it says it supports (default 2026-07-28)
    --ttl MS                how long its tools may be kept (default 0, which is what the SDKs write)
"""

import argparse
import json
import sys
import threading
import time
from typing import Any

from json_rpc import Failure, send  # type: ignore[import-not-found]

Json = dict[str, Any]

META = "io.modelcontextprotocol/"
VERSION = "2026-07-28"
CANCELLED: list[Any] = []
IN_FLIGHT: dict[Any, threading.Event] = {}
ADDED: list[str] = []
TTL_MS = [0]
TOOLS = (
    "echo",
    "meta",
    "ask",
    "ask_forever",
    "wait",
    "sample",
    "sleep",
    "cancelled",
    "add_tool",
    "progress",
    "log",
    "touch",
)
LISTENERS: dict[Any, list[str]] = {}


def text(words: str, **more: Any) -> Json:
    return {"resultType": "complete", "content": [{"type": "text", "text": words}], **more}


def question(key: str, method: str, params: Json, state: str) -> Json:
    return {
        "resultType": "input_required",
        "inputRequests": {key: {"method": method, "params": params}},
        "requestState": state,
    }


def call(request_id: Any, params: Json) -> Json:
    name, arguments, meta = params["name"], params.get("arguments") or {}, params["_meta"]
    state, given = params.get("requestState"), params.get("inputResponses")
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    if name == "echo" or name in ADDED:
        return text(arguments.get("text", ""))
    if name == "meta":
        return text("meta", structuredContent={"meta": meta})
    if name == "ask" and given is None:
        asked = {"mode": "form", "message": arguments.get("question", "Really?"), "requestedSchema": schema}
        return question("q1", "elicitation/create", asked, "state of the first round")
    if name == "ask":
        return text("answered", structuredContent={"answers": given, "state": state})
    if name == "ask_forever":
        return question("again", "elicitation/create", {"message": "?", "requestedSchema": schema}, "s")
    if name == "wait":
        rounds = int(state or 0)
        if rounds < arguments.get("rounds", 2):
            return {"resultType": "input_required", "requestState": str(rounds + 1)}
        return text(f"waited {rounds} rounds")
    if name == "sample" and given:
        return text("sampled", structuredContent={"answers": given})
    if name == "sample":
        return question("s1", "sampling/createMessage", {"messages": [], "maxTokens": 1}, "s")
    if name == "sleep":
        IN_FLIGHT[request_id].wait(arguments.get("seconds", 1))
        return text("slept")
    if name == "progress":
        for step in range(1, arguments.get("steps", 3) + 1):
            told = {"progressToken": meta["progressToken"], "progress": step, "total": 3, "message": f"step {step}"}
            send({"method": "notifications/progress", "params": told})
        return text("done")
    if name == "log":
        level = meta.get(META + "logLevel")
        if level is not None:
            send({"method": "notifications/message", "params": {"level": level, "data": {"text": "hello"}}})
        return text("logged")
    if name == "touch":
        for listener, uris in list(LISTENERS.items()):
            if arguments["uri"] in uris:
                told = {"uri": arguments["uri"], "_meta": {META + "subscriptionId": listener}}
                send({"method": "notifications/resources/updated", "params": told})
        return text("touched")
    if name == "cancelled":
        return text("cancelled", structuredContent={"ids": CANCELLED})
    if name == "add_tool":
        ADDED.append(arguments["name"])
        for listener in list(LISTENERS):  # announced to those who listen
            meta = {META + "subscriptionId": listener}
            send({"method": "notifications/tools/list_changed", "params": {"_meta": meta}})
        return text("added")
    raise Failure(-32602, f"Unknown tool: {name}")


def answer(request_id: Any, method: str, params: Json, versions: list[str]) -> Json:
    meta = params.get("_meta") or {}
    wanted = meta.get(META + "protocolVersion")
    if wanted not in versions or not isinstance(meta.get(META + "clientCapabilities"), dict):
        raise Failure(-32022, "Unsupported protocol version", {"supported": versions, "requested": wanted or "none"})
    if method == "server/discover":
        return {
            "resultType": "complete",
            "supportedVersions": versions,
            "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "completions": {}},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {META + "serverInfo": {"name": "modern", "version": "1.0"}},
        }
    if method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in (*TOOLS, *ADDED)]
        bad = {"name": "bad_header", "inputSchema": {"type": "object", "properties": {"a": {"x-mcp-header": 1}}}}
        return {"resultType": "complete", "tools": [*tools, bad], "ttlMs": TTL_MS[-1], "cacheScope": "private"}
    if method == "completion/complete":
        values = [params["argument"]["value"] + ending for ending in ("-one", "-two")]
        return {"resultType": "complete", "completion": {"values": values, "total": 2, "hasMore": False}}
    if method == "subscriptions/listen":
        LISTENERS[request_id] = params["notifications"].get("resourceSubscriptions") or []
        told = {"notifications": params["notifications"], "_meta": {META + "subscriptionId": request_id}}
        send({"method": "notifications/subscriptions/acknowledged", "params": told})
        IN_FLIGHT[request_id].wait()
        LISTENERS.pop(request_id, None)
        return {"resultType": "complete"}
    if method == "tools/call":
        return call(request_id, params)
    raise Failure(-32601, f"Method not found: {method}")


def serve(request_id: Any, method: str, params: Json, versions: list[str]) -> None:
    try:
        outcome: Json = {"result": answer(request_id, method, params, versions)}
    except Failure as fault:
        outcome = {"error": {"code": fault.code, "message": str(fault), "data": fault.data}}
    if not IN_FLIGHT.pop(request_id).is_set():
        send({"id": request_id, **outcome})


def main() -> None:
    """Serve stdin until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow-start", type=float, default=0)
    parser.add_argument("--versions", default=VERSION)
    parser.add_argument("--ttl", type=int, default=0)
    options = parser.parse_args()
    TTL_MS.append(options.ttl)
    time.sleep(options.slow_start)
    for line in sys.stdin:
        message = json.loads(line)
        method, params, request_id = message.get("method"), message.get("params") or {}, message.get("id")
        if method == "notifications/cancelled":
            CANCELLED.append(params["requestId"])
            LISTENERS.pop(params["requestId"], None)
            if params["requestId"] in IN_FLIGHT:
                IN_FLIGHT[params["requestId"]].set()
        elif request_id is not None:
            IN_FLIGHT[request_id] = threading.Event()
            work = (request_id, method, params, options.versions.split(","))
            threading.Thread(target=serve, args=work, daemon=True).start()


if __name__ == "__main__":
    main()
