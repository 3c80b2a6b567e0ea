"""An MCP server with what the official conformance scenarios ask for, in the standard library, in both eras.

Which tools, resources and prompts there are, and what they say, is the scenarios' (@modelcontextprotocol/conformance
0.2.0-alpha.12). A tool that asks is a generator of questions: in the era with ``initialize`` each question is a
request to the client; in the era of 2026-07-28 the tool is run anew, with the answers that the client sends along.
With ``--handshake`` it speaks the older era only.
"""

import base64
import hashlib
import hmac
import json
import queue
import re
import struct
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

Json = dict[str, Any]
Asking = Generator[Json, Json, Json]

META = "io.modelcontextprotocol/"
STATELESS = "2026-07-28"
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
INFO = {"name": "everything", "version": "1.0"}
CAPABILITIES: Json = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"subscribe": True},
    "completions": {},
    "logging": {},
}
SECRET = b"one process, one key"
HANDSHAKE_ONLY = "--handshake" in sys.argv
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="  # one pixel
WAV = base64.b64encode(
    b"RIFF" + struct.pack("<I4s4sIHHIIHH4sI", 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", 0)
).decode()
LOCK = threading.Lock()
WAITING: dict[str, "queue.Queue[Json]"] = {}
CLIENT: Json = {}
SUBSCRIBED: set[str] = set()
LISTENERS: dict[Any, tuple[Json, threading.Event]] = {}
"""What each ``subscriptions/listen`` wants, by its id, and its end."""


class Failure(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.data = code, data


def send(message: Json) -> None:
    with LOCK:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def said(*content: Json, **more: Any) -> Json:
    return {"content": list(content), **more}


def resource(uri: str, mime: str, words: str) -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": words}}


def picture() -> Json:
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def announce(method: str, wanted: str, uri: str | None = None) -> None:
    """Say that something has changed: to everybody after a handshake, else to those who listen for it."""
    params = {} if uri is None else {"uri": uri}
    if "stateless" not in CLIENT and (uri is None or uri in SUBSCRIBED):
        send({"method": method, "params": params})
    for listener, (notifications, _) in list(LISTENERS.items()):
        asked = notifications.get(wanted)
        if asked is True or (isinstance(asked, list) and uri in asked):
            send({"method": method, "params": {**params, "_meta": {f"{META}subscriptionId": listener}}})


def listen(request_id: Any, params: Json) -> Json:
    notifications, over = params.get("notifications") or {}, threading.Event()
    LISTENERS[request_id] = notifications, over
    told = {"notifications": notifications, "_meta": {f"{META}subscriptionId": request_id}}
    send({"method": "notifications/subscriptions/acknowledged", "params": told})
    over.wait()
    return {}


def log(words: str) -> None:
    send({"method": "notifications/message", "params": {"level": "info", "data": words}})


# Tools that answer at once.


def logging(_: Json, meta: Json) -> Json:
    if "stateless" in CLIENT and f"{META}logLevel" not in meta:
        return said(text("nobody wants to know"))
    log("Tool execution started")
    time.sleep(0.05)
    log("Tool processing data")
    time.sleep(0.05)
    log("Tool execution completed")
    return said(text("logged"))


def progress(_: Json, meta: Json) -> Json:
    for done in (0, 50, 100):
        if "progressToken" in meta:
            told = {"progressToken": meta["progressToken"], "progress": done, "total": 100}
            send({"method": "notifications/progress", "params": told})
        time.sleep(0.05)
    return said(text("done"))


def change_tools(_: Json, __: Json) -> Json:
    announce("notifications/tools/list_changed", "toolsListChanged")
    return said(text("changed"))


def change_prompts(_: Json, __: Json) -> Json:
    announce("notifications/prompts/list_changed", "promptsListChanged")
    return said(text("changed"))


def touch(arguments: Json, _: Json) -> Json:
    announce("notifications/resources/updated", "resourceSubscriptions", str(arguments.get("uri")))
    return said(text("touched"))


def needs_sampling(_: Json, __: Json) -> Json:
    if "sampling" not in CLIENT["capabilities"]:
        data: Json = {"requiredCapabilities": {"sampling": {}}}
        raise Failure(-32021, "the client does not offer sampling", data)
    return said(text("sampling is offered"))


def unknown_tool(name: str) -> Failure:
    return Failure(-32602, f"Unknown tool: {name}")


DIRECT: dict[str, Callable[[Json, Json], Json]] = {
    "test_simple_text": lambda _, __: said(text("This is a simple text response for testing.")),
    "test_image_content": lambda _, __: said(picture()),
    "test_audio_content": lambda _, __: said({"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
    "test_embedded_resource": lambda _, __: said(
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ),
    "test_multiple_content_types": lambda _, __: said(
        text("Multiple content types test:"),
        picture(),
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ),
    "test_error_handling": lambda _, __: said(
        text("This tool intentionally returns an error for testing"), isError=True
    ),
    "test_tool_with_logging": logging,
    "test_tool_with_progress": progress,
    "test_logging_tool": logging,
    "test_trigger_tool_change": change_tools,
    "test_trigger_prompt_change": change_prompts,
    "test_missing_capability": needs_sampling,
    "touch_resource": touch,
    "test_reconnection": lambda _, __: said(text("Reconnection test completed")),
    "test_custom_header": lambda arguments, _: said(text(f"region {arguments.get('region')}")),
    "json_schema_2020_12_tool": lambda arguments, _: said(text(json.dumps(arguments))),
}


# Tools that ask. Each question is {key: request}; its answers come back under the same keys.


def form(message: str, properties: dict[str, Json], *, required: bool = True) -> Json:
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(properties)
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def sampling(prompt: str, most: int = 100) -> Json:
    messages = [{"role": "user", "content": text(prompt)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": most}}


ROOTS: Json = {"method": "roots/list", "params": {}}
STRING: Json = {"type": "string"}


def sampled(answer: Json) -> str:
    content = answer.get("content") or {}
    return str(content.get("text") if isinstance(content, dict) else content)


def whole(answer: Json) -> str:
    return f"action={answer.get('action')}, content={json.dumps(answer.get('content') or {})}"


def ask_model(arguments: Json) -> Asking:
    answers = yield {"model": sampling(arguments.get("prompt", ""))}
    return said(text(f"LLM response: {sampled(answers['model'])}"))


def ask_user(arguments: Json) -> Asking:
    properties: dict[str, Json] = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    answers = yield {"user": form(arguments.get("message", ""), properties)}
    return said(text(f"User response: {whole(answers['user'])}"))


def ask_defaults(_: Json) -> Asking:
    properties: dict[str, Json] = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    answers = yield {"form": form("Please check these values", properties, required=False)}
    return said(text(f"Elicitation completed: {whole(answers['form'])}"))


def ask_enums(_: Json) -> Asking:
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second"), 1)]
    properties: dict[str, Json] = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    answers = yield {"form": form("Please choose", properties, required=False)}
    return said(text(f"Elicitation completed: {whole(answers['form'])}"))


def named(answer: Json) -> str:
    return str((answer.get("content") or {}).get("name"))


def name_form() -> Json:
    return form("What is your name?", {"name": STRING})


def input_elicitation(_: Json) -> Asking:
    answers = yield {"user_name": name_form()}
    return said(text(f"Hello, {named(answers['user_name'])}!"))


def input_sampling(_: Json) -> Asking:
    answers = yield {"capital_question": sampling("What is the capital of France?")}
    return said(text(sampled(answers["capital_question"])))


def input_roots(_: Json) -> Asking:
    answers = yield {"client_roots": ROOTS}
    return said(text(json.dumps(answers["client_roots"].get("roots"))))


def input_state(_: Json) -> Asking:
    yield {"confirm": form("Please confirm", {"ok": {"type": "boolean"}})}
    return said(text("state-ok"))


def input_several(_: Json) -> Asking:
    answers = yield {"user_name": name_form(), "greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS}
    roots = json.dumps(answers["client_roots"].get("roots"))
    return said(text(f"{sampled(answers['greeting'])} {named(answers['user_name'])} {roots}"))


def input_rounds(_: Json) -> Asking:
    first = yield {"step1": form("Step 1: What is your name?", {"name": STRING})}
    second = yield {"step2": form("Step 2: What is your favorite color?", {"color": STRING})}
    return said(text(f"{named(first['step1'])} likes {(second['step2'].get('content') or {}).get('color')}"))


def input_capabilities(_: Json) -> Asking:
    can = CLIENT["capabilities"]
    offered = {"elicitation": ("user_name", name_form()), "sampling": ("greeting", sampling("Generate a greeting", 50))}
    answers = yield dict(question for capability, question in offered.items() if capability in can)
    return said(text(json.dumps(answers)))


def input_prompt(_: Json) -> Asking:
    answers = yield {"user_context": form("What context should the prompt use?", {"context": STRING})}
    context = (answers["user_context"].get("content") or {}).get("context")
    return {"messages": [{"role": "user", "content": text(f"Use the context {context}.")}]}


ASKING: dict[str, Callable[[Json], Asking]] = {
    "test_sampling": ask_model,
    "test_elicitation": ask_user,
    "test_streaming_elicitation": ask_user,
    "test_elicitation_sep1034_defaults": ask_defaults,
    "test_elicitation_sep1330_enums": ask_enums,
    "test_input_required_result_elicitation": input_elicitation,
    "test_input_required_result_sampling": input_sampling,
    "test_input_required_result_list_roots": input_roots,
    "test_input_required_result_request_state": input_state,
    "test_input_required_result_multiple_inputs": input_several,
    "test_input_required_result_multi_round": input_rounds,
    "test_input_required_result_tampered_state": input_state,
    "test_input_required_result_capabilities": input_capabilities,
}


def seal(answers: Json) -> str:
    body = base64.urlsafe_b64encode(json.dumps(answers).encode()).decode()
    return f"{body}.{hmac.new(SECRET, body.encode(), hashlib.sha256).hexdigest()}"


def unseal(state: Any) -> Json:
    if state is None:
        return {}
    body, _, mac = str(state).partition(".")
    if not hmac.compare_digest(mac, hmac.new(SECRET, body.encode(), hashlib.sha256).hexdigest()):
        raise Failure(-32602, "requestState is not what this server gave")
    found: Json = json.loads(base64.urlsafe_b64decode(body))
    return found


def stateless_round(asking: Asking, params: Json) -> Json:
    """One round: the result, or what has to be answered for it."""
    given = params.get("inputResponses")
    known = unseal(params.get("requestState"))
    known |= {key: value for key, value in (given or {}).items() if isinstance(value, dict)}
    try:
        questions = next(asking)
        while all(key in known for key in questions):
            questions = asking.send({key: known[key] for key in questions})
    except StopIteration as ended:
        done: Json = ended.value
        return done
    missing = {key: question for key, question in questions.items() if key not in known}
    return {"resultType": "input_required", "inputRequests": missing, "requestState": seal(known)}


def asked_of_client(asking: Asking) -> Json:
    """The result, with each question as a request to the client."""
    try:
        questions = next(asking)
        while True:
            questions = asking.send({key: request(question) for key, question in questions.items()})
    except StopIteration as ended:
        done: Json = ended.value
        return done


def request(question: Json) -> Json:
    request_id = f"s-{len(WAITING)}-{time.monotonic_ns()}"
    WAITING[request_id] = queue.Queue()
    send({"id": request_id, **question})
    answer = WAITING[request_id].get(timeout=60)
    del WAITING[request_id]
    if "error" in answer:
        raise Failure(-32603, str(answer["error"].get("message")))
    found: Json = answer["result"]
    return found


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
