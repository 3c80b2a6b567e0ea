"""An MCP server with what the official conformance scenarios ask for, in the standard library, in both eras.

Which tools, resources and prompts there are, and what they say, is the scenarios' (@modelcontextprotocol/conformance
0.2.0-alpha.12). A tool that asks is a generator of questions: in the era with ``initialize`` each question is a
request to the client; in the era of 2026-07-28 the tool is run anew, with the answers that the client sends along.
With ``--handshake`` it speaks the older era only.
"""

import json
import re
import sys
import threading
from typing import Any

from everything_tools import (  # type: ignore[import-not-found]
    ASKING,
    DIRECT,
    STRING,
    asked_of_client,
    input_prompt,
    stateless_round,
    unknown_tool,
)
from everything_wire import (  # type: ignore[import-not-found]
    CAPABILITIES,
    CLIENT,
    HANDSHAKE,
    INFO,
    LISTENERS,
    META,
    PNG,
    STATELESS,
    SUBSCRIBED,
    WAITING,
    listen,
    picture,
    resource,
    text,
)
from json_rpc import Failure, send  # type: ignore[import-not-found]

Json = dict[str, Any]

HANDSHAKE_ONLY = "--handshake" in sys.argv

# Resources and prompts.

TEMPLATE = re.compile(r"test://template/([^/]+)/data")


def read(uri: str) -> Json:
    if uri == "test://static-text":
        words = "This is the content of the static text resource."
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": words}]}
    if uri == "test://static-binary":
        return {"contents": [{"uri": uri, "mimeType": "image/png", "blob": PNG}]}
    if uri == "test://watched-resource":
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": "watched"}]}
    if found := TEMPLATE.fullmatch(uri):
        words = json.dumps({"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"})
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": words}]}
    raise Failure(-32602, "Resource not found", {"uri": uri})


def user(*content: Json) -> Json:
    return {"messages": [{"role": "user", "content": one} for one in content]}


def prompt(name: str, arguments: Json) -> Json:
    if name == "test_simple_prompt":
        return user(text("This is a simple prompt for testing."))
    if name == "test_prompt_with_arguments":
        return user(text(f"Prompt with arguments: arg1='{arguments.get('arg1')}', arg2='{arguments.get('arg2')}'"))
    if name == "test_prompt_with_embedded_resource":
        embedded = resource(arguments.get("resourceUri", ""), "text/plain", "Embedded resource content for testing.")
        return user(embedded, text("Please process the embedded resource above."))
    if name == "test_prompt_with_image":
        return user(picture(), text("Please analyze the image above."))
    raise Failure(-32602, f"Unknown prompt: {name}")


SCHEMAS: dict[str, Json] = {
    "test_custom_header": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        "required": ["region"],
    },
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}
        },
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
}


def listed() -> dict[str, Json]:
    schema = {"type": "object"}
    names = [*DIRECT, *ASKING]
    tools = [{"name": n, "description": f"Tests {n}", "inputSchema": SCHEMAS.get(n, schema)} for n in names]
    resources = [
        {"uri": f"test://{name}", "name": name, "mimeType": mime}
        for name, mime in (
            ("static-text", "text/plain"),
            ("static-binary", "image/png"),
            ("watched-resource", "text/plain"),
        )
    ]
    two = [{"name": "arg1", "required": True}, {"name": "arg2", "required": True}]
    prompts: list[Json] = [
        {"name": "test_simple_prompt", "description": "A simple prompt"},
        {"name": "test_prompt_with_arguments", "description": "A prompt with arguments", "arguments": two},
        {
            "name": "test_prompt_with_embedded_resource",
            "description": "A prompt with a resource",
            "arguments": [{"name": "resourceUri", "required": True}],
        },
        {"name": "test_prompt_with_image", "description": "A prompt with an image"},
        {"name": "test_input_required_result_prompt", "description": "A prompt that asks"},
    ]
    template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return {
        "tools/list": {"tools": tools},
        "resources/list": {"resources": resources},
        "resources/templates/list": {"resourceTemplates": [template]},
        "prompts/list": {"prompts": prompts},
    }


def answer(method: str, params: Json, stateless: bool) -> Json:
    name, arguments = str(params.get("name")), params.get("arguments") or {}
    if (lists := listed()).get(method):
        return lists[method]
    match method:
        case "server/discover" if stateless:
            return {"supportedVersions": [STATELESS, *HANDSHAKE], "capabilities": CAPABILITIES}
        case "initialize" if not stateless:
            version = params.get("protocolVersion")
            CLIENT["capabilities"] = params.get("capabilities") or {}
            agreed = version if version in HANDSHAKE else HANDSHAKE[-1]
            return {"protocolVersion": agreed, "capabilities": CAPABILITIES, "serverInfo": INFO}
        case "resources/subscribe" if not stateless:
            SUBSCRIBED.add(str(params.get("uri")))
            return {}
        case "resources/unsubscribe" if not stateless:
            SUBSCRIBED.discard(str(params.get("uri")))
            return {}
        case "ping" | "logging/setLevel" if not stateless:
            return {}
        case "tools/call" if name in DIRECT:
            return DIRECT[name](arguments, params.get("_meta") or {})
        case "tools/call" if name in ASKING:
            asking = ASKING[name](arguments)
            return stateless_round(asking, params) if stateless else asked_of_client(asking)
        case "tools/call":
            raise unknown_tool(name)
        case "prompts/get" if name == "test_input_required_result_prompt":
            return stateless_round(input_prompt({}), params) if stateless else asked_of_client(input_prompt({}))
        case "prompts/get":
            return prompt(name, arguments)
        case "resources/read":
            return read(str(params.get("uri")))
        case "completion/complete":
            typed = str((params.get("argument") or {}).get("value", ""))
            values = [word for word in ("paris", "park", "party") if word.startswith(typed)]
            return {"completion": {"values": values, "total": len(values), "hasMore": False}}
    raise Failure(-32601, f"Method not found: {method}")


def serve(request_id: Any, method: str, params: Json) -> None:
    meta = params.get("_meta") or {}
    stateless = f"{META}protocolVersion" in meta and not HANDSHAKE_ONLY
    try:
        if stateless:
            if (version := meta[f"{META}protocolVersion"]) != STATELESS:
                data = {"supported": [STATELESS], "requested": version}
                raise Failure(-32022, "Unsupported protocol version", data)
            CLIENT.update(stateless=True, capabilities=meta.get(f"{META}clientCapabilities") or {})
        listens = stateless and method == "subscriptions/listen"
        result = listen(request_id, params) if listens else answer(method, params, stateless)
        if stateless:
            result = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} | result
            result["_meta"] = {f"{META}serverInfo": INFO}
    except Failure as fault:
        send({"id": request_id, "error": {"code": fault.code, "message": str(fault), "data": fault.data}})
    else:
        send({"id": request_id, "result": result})


def main() -> None:
    """Serve stdin until it ends."""
    for line in sys.stdin:
        message = json.loads(line)
        method, request_id = message.get("method"), message.get("id")
        if method is None and request_id in WAITING:
            WAITING[request_id].put(message)
        elif method == "notifications/cancelled":
            _, over = LISTENERS.pop(message["params"]["requestId"], ({}, threading.Event()))
            over.set()
        elif request_id is not None and method is not None:
            work = (request_id, method, message.get("params") or {})
            threading.Thread(target=serve, args=work, daemon=True).start()


if __name__ == "__main__":
    main()
