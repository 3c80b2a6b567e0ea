"""What SignalWire's gateway was asked, in its order, and what ours answers: its own status, or one that is right."""

import base64
import gzip
import json
import sys
from typing import Any
from urllib.parse import quote

import httpx2

from consumer.gateway.rest import NO_SESSION, NOT_SIGNALWIRES
from tests.gateway.conftest import NOBODY, PASSWORD, TOKEN, USER, Serve
from tests.harness import ROOT, Cluster, config

CASES = [json.loads(line) for line in (ROOT / "tests/samples/gateway/cases.jsonl").read_text().splitlines()]
TODO = [sys.executable, str(ROOT / "tests/servers/todo_server.py")]
SERVICES: dict[str, dict[str, Any]] = {
    "todo": {"command": TODO},
    "todo2": {"command": TODO},
    "off": {"command": TODO, "enabled": False},
    "broken": {"command": [sys.executable, "-c", "raise SystemExit('no')"]},
    "odd": {"command": [sys.executable, str(ROOT / "tests/servers/odd_server.py")]},
}


def authorization(how: str) -> dict[str, str]:
    """The header for what a case calls its credentials."""

    def basic(user: str, password: str, scheme: str = "Basic") -> str:
        return f"{scheme} {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    values = {
        "none": None,
        "basic": basic(USER, PASSWORD),
        "basic, wrong password": basic(USER, "wrong"),
        "basic, wrong user": basic("nobody", PASSWORD),
        "basic, password beyond ascii": basic(USER, "pä$$wörd"),
        "basic, scheme in lower case": basic(USER, PASSWORD, "basic"),
        "bearer": f"Bearer {TOKEN}",
        "bearer, scheme in lower case": f"bearer {TOKEN}",
        "bearer, empty": "Bearer",  # a client strips the space behind it
    }
    value = values[how]
    return {} if value is None else {"authorization": value}


def content(body: Any) -> bytes | None:
    if body is None:
        return None
    if isinstance(body, str):
        if body.startswith("<") and body.endswith(" bytes>"):
            text = "x" * int(body[1:-7])
            return json.dumps({"tool": "list_todos", "session_id": "s-1", "extra": text}).encode()
        return body.encode()
    return json.dumps(body).encode()


def wanted(case: dict[str, Any], status: int) -> bool:
    want = case["want"]
    return 400 <= status < 500 or status == 503 if isinstance(want, str) else status in want


async def ask(http: httpx2.AsyncClient, case: dict[str, Any]) -> httpx2.Response:
    headers = authorization(case["auth"])
    if case["content_type"]:
        headers["content-type"] = case["content_type"]
    return await http.request(case["method"], case["path"], headers=headers, content=content(case["body"]))


async def test_every_case_gets_its_status_and_its_keys(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve()
    http.auth = NOBODY
    for case in CASES:
        answer = await ask(http, case)
        assert wanted(case, answer.status_code), (case["name"], answer.status_code, answer.text)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        if answer.status_code >= 400:
            assert_error(case, answer)
        elif isinstance(case["answer"], list):
            ignored = {"warnings"} if "extra" in (case["body"] or {}) else set()
            assert set(answer.json()) == set(case["answer"]) | ignored, case["name"]
        else:
            assert isinstance(answer.json(), dict), case["name"]


def assert_error(case: dict[str, Any], answer: httpx2.Response) -> None:
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        return
    said = answer.json()
    assert said["error"], case["name"]
    assert said["code"].isupper(), case["name"]
    assert said["retryable"] is (answer.status_code in {429, 503}), case["name"]


async def test_an_unknown_field_is_ignored_and_named(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve()
    body = {"tool": "list_todos", "session_id": "s-1", "argument": {}, "é\r\nx": 1}
    answer = await http.post("/services/todo/call", json=body)
    assert answer.status_code == 200
    first, second = answer.headers.get_list("x-mcp-warning")
    assert first == "'argument' is unknown; did you mean arguments?"
    assert second.startswith(r"'\xe9\r\nx' is unknown; known: arguments, metadata, ")
    assert answer.json()["warnings"] == [first, second], "who reads no headers reads the body"
    unheard = await http.post("/services/todo/call", json={"tool": "add_todo", "session_id": "s-1", "argument": {}})
    assert unheard.status_code == 422
    assert unheard.json()["warnings"] == [first], "what was ignored may be why it failed"
    plain = await http.post("/services/todo/call", json={"tool": "list_todos", "session_id": "s-1"})
    assert "warnings" not in plain.json()
    minted = await http.post("/calls/c-1/token", json={"service": ["todo"]})
    assert minted.status_code == 400
    assert minted.json()["error"] == "'service' is unknown; did you mean services?"


async def test_a_compressed_body_is_refused_by_its_name(mcp: Cluster, serve: Serve) -> None:
    http = await serve()
    body = gzip.compress(json.dumps({"tool": "list_todos", "session_id": "s-1"}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for path in ("/services/todo/call", "/signalwire/swaig", "/signalwire/events", "/todo/mcp"):
        answer = await http.post(path, content=body, headers=headers)
        assert answer.status_code == 415, path
        assert "without Content-Encoding" in answer.text, path


async def test_a_body_in_another_encoding_than_utf_8_is_refused_by_its_name(mcp: Cluster, serve: Serve) -> None:
    """``{"text": "Ã¼"}`` in Latin-1 is a valid body in UTF-8, with another letter in it."""
    http = await serve()
    body = '{"text": "Ã¼"}'.encode("latin-1")
    for path in ("/services/todo/call", "/calls/c-1/token", "/signalwire/swaig", "/todo/mcp"):
        answer = await http.post(path, content=body, headers={"content-type": "application/json; charset=ISO-8859-1"})
        assert answer.status_code == 415, path
        assert "must be in UTF-8, and its content-type says charset=" in answer.text, path
        for harmless in ("application/json", "application/json;charset=UTF-8", 'application/json; Charset="utf8"'):
            answer = await http.post(path, content=body, headers={"content-type": harmless})
            assert answer.status_code != 415, (path, harmless)
    event = {"content-type": "application/json; charset=iso-8859-1"}
    body = b'{"call_id": "c-1", "kind": "ended"}'
    assert (await http.post("/events", content=body, headers=event)).status_code != 415, "no event is lost for it"


async def test_sessions_of_calls_with_other_ids_are_used_and_closed_but_not_opened(mcp: Cluster, serve: Serve) -> None:
    """``v3:`` begins each id of Telnyx, ``#`` is in the id of each further session of a call."""
    await mcp.start(config(services=SERVICES))
    http = await serve()
    ids = ["v3:abc/x@y", "o-1", "o-1#todo2"]
    for one, service in zip(ids, ("todo", "todo", "todo2"), strict=True):
        await mcp.client.create(one, service)
    assert set((await http.get("/sessions")).json()) == set(ids)
    for one, service in ((ids[0], "todo"), (ids[2], "todo2")):
        said = {"tool": "add_todo", "arguments": {"text": "milk"}, "session_id": one}
        answer = await http.post(f"/services/{service}/call", json=said)
        assert (answer.status_code, answer.json().get("session_id")) == (200, one)
        path = f"/sessions/{quote(one, safe='')}"
        assert (await http.delete(path)).status_code == 200
        gone = await http.delete(path)
        assert (gone.status_code, gone.json()["code"]) == (400, "SESSION_NOT_FOUND"), "as SignalWire's gateway has it"
        assert gone.json()["error"] == f"Invalid session ID: {NO_SESSION}"
        answer = await http.post(f"/services/{service}/call", json=said)
        assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_NOT_FOUND")
        assert answer.json()["error"] == NOT_SIGNALWIRES
    assert set((await http.get("/sessions")).json()) == {"o-1"}
    wrong = await http.delete("/sessions/%23todo")
    assert (wrong.status_code, wrong.json()["error"]) == (
        400,
        "Invalid session ID: must begin with the id of a call, before the '#'",
    )


async def test_a_body_of_nine_megabytes_is_taken_where_it_is_allowed(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=SERVICES))
    http = await serve(max_body="10M")
    case = next(case for case in CASES if case["name"] == "call, 9 MiB")
    assert (await ask(http, case)).status_code == 200
