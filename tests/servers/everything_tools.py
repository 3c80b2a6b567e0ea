"""The tools of the everything server: those that answer at once, and those that ask."""

import base64
import hashlib
import hmac
import json
import queue
import time
from collections.abc import Callable, Generator
from typing import Any

from everything_wire import (  # type: ignore[import-not-found]
    CLIENT,
    META,
    WAITING,
    WAV,
    announce,
    log,
    picture,
    resource,
    said,
    text,
)
from json_rpc import Failure, send  # type: ignore[import-not-found]

Json = dict[str, Any]
Asking = Generator[Json, Json, Json]

SECRET = b"one process, one key"


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
