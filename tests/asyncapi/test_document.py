"""The document and the schemas: whole, closed where we refuse, open where we tell, and the same from the command."""

import ast
import gzip
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft7Validator
from pydantic import BaseModel, ValidationError

from consumer.asyncapi import Server, as_json, as_yaml, document, header_schemas, schema_files
from consumer.asyncapi.header_schemas import HEADERS
from consumer.asyncapi.payloads import message_types, schema_name
from consumer.broker import dead_letter, message
from consumer.broker.topology import CallExchange, Names, cluster_topology
from consumer.calls.messages.parsing import no_session
from consumer.processes.service import MCPService
from consumer.settings import WorkerSettings
from schemas import headers, interim, internal
from schemas.errors import ErrorCode, InvalidMessage, UnknownType
from schemas.event_data import EVENTS
from schemas.events import EndReason, SessionEventType, WorkerEventType
from schemas.interim import INTERIM
from schemas.internal import ANSWERS, INTERNAL
from schemas.json_values import MAX_VALUES
from schemas.replies import RESULTS
from schemas.requests import (
    MADE_OF_EVENTS,
    REQUESTS,
    InputAnswer,
    SessionCreate,
    SessionsList,
    ToolsCall,
    parse_request,
)
from schemas.text import in_seconds, problem_of
from tests.harness import ROOT
from tests.programs import PROGRAM

NAMES = Names("p")
MADE = document(NAMES, cluster_topology(NAMES))
FILES = schema_files()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def at(whole: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        whole = whole[step]
    return whole


def test_every_reference_leads_somewhere():
    for whole in (MADE, *FILES.values()):
        for reference in references(whole):
            assert reference.startswith("#/")
            assert at(whole, reference)


def test_nothing_that_there_is_is_missing():
    assert set(MADE["components"]["messages"]) == set(message_types())
    assert set(FILES) == {f"{kind}.json" for kind in message_types()}
    assert set(RESULTS) == set(REQUESTS)
    events = {f"mcp.session.{one.value}" for one in SessionEventType}
    assert set(EVENTS) == events | {f"mcp.worker.{one}" for one in get_args(WorkerEventType)}
    models = {one for one in vars(internal).values() if isinstance(one, type) and issubclass(one, BaseModel)}
    typed = {one for one in models if one.__module__ == internal.__name__ and hasattr(one, "type")}
    assert typed == {*INTERNAL, *ANSWERS}
    assert set(INTERIM.values()) == set(get_args(interim.Interim))


def test_every_exchange_and_queue_is_a_channel_with_its_type_and_arguments():
    foreign = CallExchange("TAP.Events", "topic", "#")
    topology = cluster_topology(NAMES, grace=7, call_exchanges=[foreign])
    made = document(NAMES, topology)
    bindings = [channel["bindings"]["amqp"] for channel in made["channels"].values()]
    exchanges = {one["exchange"]["name"]: one["exchange"] for one in bindings if one["is"] == "routingKey"}
    queues = {one["queue"]["name"]: one["queue"] for one in bindings if one["is"] == "queue"}
    assert set(exchanges) == {"", *(one.name for one in topology.exchanges)}
    for exchange in topology.exchanges:
        told = exchanges[exchange.name]
        assert (told["type"], told.get("x-arguments", {})) == (exchange.type, exchange.arguments)
    own = {"p.inbox.{worker_id}", "p.requests.{worker_id}.{connection}", "p.workers.{worker_id}.{connection}"}
    assert set(queues) == own | {one.name for one in topology.queues}
    for queue in topology.queues:
        assert queues[queue.name]["x-arguments"] == queue.arguments
    assert queues["p.orphans"]["x-arguments"]["x-message-ttl"] == 7000
    assert {"exchange": "TAP.Events", "routing_key": "#"} in queues["p.calls"]["x-bindings"]
    assert made["operations"]["calls.TAP.Events"]["action"] == "receive"


def test_every_request_is_received_and_answered_where_it_asks():
    for kind in REQUESTS:
        operation = MADE["operations"][kind]
        assert operation["action"] == "receive"
        assert operation["reply"]["address"]["location"] == "$message.header#/reply_to"
        (answer,) = operation["reply"]["messages"]
        assert at(MADE, answer["$ref"]) == {"$ref": f"#/components/messages/{kind}.reply"}


def test_every_message_is_in_a_channel_and_every_channel_but_a_queue_in_an_operation():
    used = {one for channel in MADE["channels"].values() for one in channel["messages"]}
    assert used == set(message_types())
    operated = {operation["channel"]["$ref"].rpartition("/")[2] for operation in MADE["operations"].values()}
    passing = {"exchange.unowned", "exchange.orphans"}  # where messages get by themselves
    assert {name for name in MADE["channels"] if not name.startswith("queue.")} - passing <= operated | {"replies"}


def test_what_passes_between_workers_is_marked():
    between = {one.type for one in (*INTERNAL, *ANSWERS)}
    for part in ("channels", "operations"):
        for name, one in MADE[part].items():
            public = set(re.findall(r"messages/([\w.]+)", json.dumps(one))) - between
            assert one.get("x-internal") or public, name
    assert MADE["components"]["messages"]["call.recipe"]["x-internal"]
    assert MADE["channels"]["queue.inbox"]["x-internal"]
    assert "x-internal" not in MADE["channels"]["exchange.sessions"]


def test_every_reply_has_an_example_of_a_failure_and_a_tool_call_one_of_its_content():
    examples = {kind: one["examples"] for kind, one in MADE["components"]["messages"].items()}
    for kind in REQUESTS:
        good, failed = (one["payload"] for one in examples[f"{kind}.reply"])
        assert (good["ok"], failed["ok"]) == (True, False)
    content = examples["tools.call.reply"][0]["payload"]["result"]["content"]
    assert content == [{"type": "text", "text": "call back"}]


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        ("session.get", {"session_id": "#x"}, "session_id: must begin with the id of a call, before the '#'"),
        ("tools.call", {"session_id": "c", "name": "x", "timeout": 0}, "timeout: must be greater than 0"),
        ("tools.call", {"session_id": "c", "name": 5}, "name: must be a valid string"),
        ("session.create", {"session_id": "c", "service_name": "x y"}, "service_name: must match pattern '"),
    ],
)
def test_a_fault_of_a_request_is_told_in_our_words(kind: str, body: dict[str, Any], problem: str):
    with pytest.raises(InvalidMessage) as refused:
        parse_request(kind, json.dumps(body).encode())
    assert refused.value.message.startswith(f"{kind}: {problem}")


def test_what_a_list_lacks_is_told_in_our_words():
    assert problem_of("Value should have at least 1 item after validation, not 0") == "must have at least 1 item, not 0"


def test_an_example_of_a_failure_says_what_a_worker_would_say():
    for kind, model in REQUESTS.items():
        error = MADE["components"]["messages"][f"{kind}.reply"]["examples"][1]["payload"]["error"]
        if error["code"] == ErrorCode.SESSION_NOT_FOUND:
            required: dict[str, Any] = {name: "c-1" for name, one in model.model_fields.items() if one.is_required()}
            request: Any = model.model_construct(None, **required)
            assert error["message"] == no_session(request).message, kind


def test_a_refusal_has_the_type_of_what_was_refused():
    told = MADE["components"]["messages"]["unknown.reply"]
    type_ = Draft7Validator(told["headers"]["properties"]["type"])
    assert type_.is_valid("unknown.reply")
    assert type_.is_valid("no.such.type.reply")
    assert not type_.is_valid("no.such.type")
    assert "messageType" not in told["bindings"]["amqp"]


def test_the_size_limit_of_messages_is_told():
    told = {kind: one.get("x-max-bytes") for kind, one in MADE["components"]["messages"].items()}
    assert told["call.event"] == told["prompts.get"] == WorkerSettings().max_message
    assert told["tools.call"] == MCPService(name="any", command=["any"]).max_arguments
    assert told["tools.call.reply"] == message.MAX_BODY
    assert [kind for kind, limit in told.items() if limit is None] == ["dead_letter"]
    assert "100,000" in MADE["info"]["description"]
    assert MAX_VALUES == 100_000


def test_both_documents_say_the_same_of_a_deadline():
    page = " ".join((ROOT / "docs" / "wire.md").read_text().split())
    assert header_schemas.DEADLINE_MEANS in page
    assert HEADERS["RequestHeaders"]["properties"][headers.DEADLINE]["description"] == header_schemas.DEADLINE_MEANS


def test_the_defaults_of_durations_are_told():
    told = " ".join(MADE["info"]["description"].split())
    for default in ("`session.default_timeout`, by default 300 s", "`call_timeout`, by default 30 s"):
        assert default in told
    assert "`max_call_timeout`, by default 600 s" in told


def test_each_error_code_says_whether_the_request_was_executed():
    codes = MADE["components"]["schemas"]["ErrorCode"]
    assert set(codes["x-executed"]) == set(codes["enum"])
    assert (codes["x-executed"]["TOOL_TIMEOUT"], codes["x-executed"]["CAPACITY"]) == ("unknown", "no")


@pytest.mark.parametrize("kind", ["call.starte", "tools.cal", None])
def test_who_names_an_unknown_type_is_offered_no_type_of_workers_only(kind: str | None):
    with pytest.raises(UnknownType) as refused:
        parse_request(kind, b"{}")
    assert "tools.call" in refused.value.message
    assert not [one for one in MADE_OF_EVENTS if one in refused.value.message]


def test_a_compressed_body_is_refused_by_name():
    with pytest.raises(InvalidMessage, match="body: is compressed with gzip"):
        parse_request("tools.call", gzip.compress(b'{"session_id": "c-1", "name": "t"}'))


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_duration_is_a_finite_number(number: str):
    body = f'{{"session_id": "c-1", "name": "t", "timeout": {number}}}'
    with pytest.raises(InvalidMessage, match="timeout: must be a finite number"):
        parse_request("tools.call", body.encode())


@pytest.mark.parametrize(
    ("duration", "told"),
    [(0.0, "0.001 s"), (0.0009, "0.001 s"), (0.0125, "0.0125 s"), (2.0, "2 s"), (600.256, "600.26 s")],
)
def test_no_duration_is_written_as_nothing(duration: float, told: str):
    assert in_seconds(duration) == told


def test_every_reason_of_a_worker_for_a_dead_letter_is_described():
    told = header_schemas.DEAD_LETTER_HEADERS[dead_letter.REASON_HEADER]
    assert set(re.findall(r"`([a-z_]+)`", told)) == dead_letter.WORKER_REASONS
    deaths = HEADERS["DeadLetterHeaders"]["properties"]["x-death"]["items"]["properties"]["reason"]["description"]
    assert set(re.findall(r"`([a-z_]+)`", deaths)) == dead_letter.REASONS - dead_letter.WORKER_REASONS


def test_the_details_of_every_invalid_message_are_described():
    """In both documents: whoever raises the error with another detail has to describe it."""
    calls = [
        node
        for folder in ("consumer", "schemas")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == InvalidMessage.__name__
    ]
    given = {str(one.arg) for node in calls for one in node.keywords}
    assert {"faults", "header", "limit"} <= given
    page = (ROOT / "docs" / "wire.md").read_text().partition("The `details` of `INVALID_MESSAGE`")[2]
    body = MADE["components"]["schemas"]["ErrorBody"]["description"]
    for told in (page.partition("| none |")[0], body):
        beside = {"ok", "error", "details", "field", "problem", "retryable"}
        assert given == set(re.findall(r"`([a-z_]+)`", told)) - beside


def test_both_documents_say_the_same_of_who_gave_a_message_up():
    page = " ".join((ROOT / "docs" / "wire.md").read_text().split())
    assert header_schemas.DEAD_LETTER_MEANS in page
    by_rabbitmq = {"type": "tools.call", "reply_to": "q", "x-death": [{"reason": "expired", "queue": "mcp.unowned"}]}
    schema = Draft7Validator(HEADERS["DeadLetterHeaders"])
    assert schema.is_valid(by_rabbitmq)
    assert not schema.is_valid({"type": "tools.call", dead_letter.REASON_HEADER: "defect"})


def test_every_header_is_described():
    told = {name for one in HEADERS.values() for name in one["properties"]}
    ours = {value for value in vars(headers).values() if isinstance(value, str) and value.startswith("x-mcp-")}
    of_dead_letters = {value for name, value in vars(dead_letter).items() if name.endswith("_HEADER")}
    assert ours | of_dead_letters | {message.CALL_HEADER, "traceparent", "tracestate"} <= told


def test_errors_and_reasons_are_told_with_their_meaning():
    codes = MADE["components"]["schemas"]["ErrorCode"]
    assert codes["enum"] == [one.value for one in ErrorCode]
    assert all(codes["x-enum-descriptions"])
    assert {"CAPACITY", "SHUTTING_DOWN"} <= set(codes["x-retryable"])
    told = {
        reason
        for what in ("Closed", "Expired", "Died", "Lost")
        for reason in MADE["components"]["schemas"][f"Session{what}Data"]["properties"]["reason"]["enum"]
    }
    assert told == {one.value for one in EndReason}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_schema_file_stands_alone_and_names_no_place(name: str):
    schema = FILES[name]
    Draft7Validator.check_schema(schema)
    assert schema["$id"] == f"urn:mcp-sessions:schema:{name.removesuffix('.json')}"
    assert re.findall(r"https?://[^\s\"]+", json.dumps(schema)) == [schema["$schema"]]
    assert schema["title"] == schema_name(name.removesuffix(".json"))
    assert set(references(schema)) == {f"#/definitions/{one}" for one in schema.get("definitions", {})}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (SessionCreate, {"session_id": "c", "service_name": "echo"}),
        (SessionCreate, {"session_id": "c", "service_name": "echo", "timeout": 0}),
        (SessionCreate, {"session_id": "c", "service_name": "not a word"}),
        (SessionCreate, {"session_id": "", "service_name": "echo"}),
        (SessionCreate, {"session_id": "c", "service_name": "echo", "if_exists": "perhaps"}),
        (ToolsCall, {"session_id": "c", "name": "echo", "arguments": {"a": [1]}, "timeout": 2.5, "progress": True}),
        (ToolsCall, {"session_id": "c", "name": "echo", "argument": {}}),
        (ToolsCall, {"session_id": "c", "name": "echo", "progress": "yes"}),
        (ToolsCall, {"session_id": "c"}),
        (InputAnswer, {"session_id": "c", "input_id": "x", "action": "accept", "content": None}),
        (SessionsList, {"limit": 10_001}),
        (SessionsList, {"limit": 10, "cursor": "x"}),
    ],
)
def test_a_schema_takes_and_refuses_what_we_do(model: type[BaseModel], body: dict[str, Any]):
    schema = FILES[f"{model.type}.json"]  # type: ignore[attr-defined]
    try:
        model.model_validate_json(json.dumps(body))
    except ValidationError:
        taken = False
    else:
        taken = True
    assert Draft7Validator(schema).is_valid(body) == taken


def test_what_we_tell_may_grow_and_what_we_are_told_may_not():
    info = {"services": {"echo": {"description": "", "enabled": True, "a newer worker": "says more"}}}
    reply = Draft7Validator(FILES["services.list.reply.json"])
    assert reply.is_valid({"ok": True, "result": info, "more": 1})
    assert not reply.is_valid({"ok": False, "result": info})
    assert not Draft7Validator(FILES["services.list.json"]).is_valid({"more": 1})


def test_json_and_yaml_are_the_same():
    assert json.loads(as_json(MADE)) == yaml.safe_load(as_yaml(MADE)) == MADE


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("amqp://guest:guest@localhost:5672/", Server("localhost:5672", "/")),
        ("amqps://u:p@broker.test/a%2Fb", Server("broker.test:5671", "a/b", tls=True)),
        ("amqp://[::1]/%2F", Server("[::1]:5672", "/")),
    ],
)
def test_a_server_has_neither_user_nor_password(url: str, server: Server):
    assert Server.of_url(url) == server


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, "asyncapi", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_command_prints_the_committed_document(tmp_path: Path):
    url = "amqp://secret:secret@localhost:5672/"
    printed = run(tmp_path, "--json", "--url", url)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout == (ROOT / "docs" / "asyncapi.json").read_text(encoding="utf-8")
    plain = run(tmp_path, "--url", url)
    assert yaml.safe_load(plain.stdout) == json.loads(printed.stdout)
    assert plain.stdout == run(tmp_path, "--yaml", "--url", url).stdout


def test_the_command_writes_a_file_under_another_prefix(tmp_path: Path):
    wrote = run(tmp_path, "--prefix", "other", "--url", "amqp://localhost", "--output", "made.json")
    assert wrote.returncode == 0
    assert wrote.stdout == ""
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["channels"]["queue.calls"]["address"] == "other.calls"


def test_the_command_says_what_it_cannot(tmp_path: Path):
    both = run(tmp_path, "--json", "--yaml")
    assert both.returncode == 2
    assert "exclude each other" in both.stderr
    nowhere = run(tmp_path, "--output", "no/such/folder.yaml")
    assert nowhere.returncode == 2
    assert "cannot be written" in nowhere.stderr


def whole(schema: dict[str, Any]) -> Draft7Validator:
    """A validator of a part of the document, with the document's schemas at hand."""
    return Draft7Validator({**schema, "components": {"schemas": MADE["components"]["schemas"]}})


@pytest.mark.parametrize("kind", message_types())
def test_a_message_has_an_example_that_fits_its_schemas_and_says_something(kind: str):
    told = MADE["components"]["messages"][kind]
    assert told["description"]
    for one in told["examples"]:
        assert one["payload"] or "required" not in MADE["components"]["schemas"][schema_name(kind)]
        whole(told["payload"]).validate(one["payload"])
        whole(told["headers"]).validate(one["headers"])


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_example_of_a_request_is_one_that_a_worker_takes(kind: str):
    (one,) = MADE["components"]["messages"][kind]["examples"]
    assert parse_request(one["headers"]["type"], json.dumps(one["payload"]).encode())
