"""The OpenAPI document is valid, is the one in the repository, and tells of what the gateway serves."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from consumer.gateway.gateway import Gateway
from consumer.gateway.openapi import STATUSES, document
from consumer.gateway.statuses import status_of
from consumer.settings import Settings
from schemas import errors
from tests.gateway.conftest import NOBODY, Serve, call
from tests.harness import ROOT, Cluster

DOCUMENT = document()


def test_the_document_is_valid_by_the_validator_of_openapi() -> None:
    validate(DOCUMENT)


def test_the_document_in_the_repository_is_the_one_that_is_made() -> None:
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == DOCUMENT


def test_the_document_tells_of_every_route_but_those_of_mcp() -> None:
    served = {
        (method.lower(), route.path)
        for route in Gateway(Settings()).routes
        for method in (route.methods or {"GET"}) - {"HEAD"}
        if not re.search(r"mcp|console", route.path)
    }
    told = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == served


def schema_of(method: str, path: str, status: int, media: str = "application/json") -> Draft202012Validator:
    answer = DOCUMENT["paths"][path][method]["responses"][str(status)]["content"][media]["schema"]
    return Draft202012Validator({**answer, "components": DOCUMENT["components"]})


async def test_what_is_answered_is_what_the_document_says(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve(token_keys=["k" * 32])
    answers: list[tuple[str, str, Any]] = [
        ("post", "/services/{service}/call", await call(http, "echo", "echo", "c-1", arguments={"text": "x"})),
        ("post", "/services/{service}/call", await call(http, "echo", "nope", "c-1")),
        ("post", "/services/{service}/call", await http.post("/services/echo/call", json={})),
        ("get", "/services", await http.get("/services")),
        ("get", "/services/{service}/tools", await http.get("/services/echo/tools")),
        ("get", "/sessions", await http.get("/sessions")),
        ("get", "/health", await http.get("/health")),
        ("get", "/readyz", await http.get("/readyz")),
        ("post", "/calls/{call}/token", await http.post("/calls/c-1/token")),
        (
            "post",
            "/signalwire/swaig",
            await http.post("/signalwire/swaig", json={"function": "echo", "call_id": "c-1"}),
        ),
        ("delete", "/sessions/{session_id}", await http.delete("/sessions/c-1")),
        ("delete", "/sessions/{session_id}", await http.delete("/sessions/c-1")),
    ]
    for method, path, answer in answers:
        schema_of(method, path, answer.status_code).validate(answer.json())
    assert {answer.status_code for _, _, answer in answers} >= {200, 201, 400, 404}


async def test_the_headers_of_a_tool_call_are_in_the_document(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    operation = DOCUMENT["paths"]["/services/{service}/call"]["post"]
    (key,) = (one["name"] for one in operation["parameters"] if one["in"] == "header")
    body = {"tool": "counter", "session_id": "c-1", "unheard": 1}
    first, again = [await http.post("/services/echo/call", json=body, headers={key: "k-1"}) for _ in range(2)]
    assert first.json() == again.json(), "it was executed once"
    other = await http.post("/services/echo/call", json=body)
    assert other.json() != first.json()
    for answer in (first, await http.post("/services/echo/call", json=body | {"tool": "nope"})):
        (name,) = operation["responses"][str(answer.status_code)]["headers"]
        assert answer.headers[name].startswith("'unheard' is unknown")


def test_what_was_certainly_not_executed_is_told_apart_in_the_document():
    found = errors.by_code()
    not_executed = {code for code in errors.ErrorCode if status_of(code) == 424 and found[code].executed is False}
    assert set(re.findall(r"`([A-Z_]+)`", STATUSES[424])) == not_executed
    assert all(found[code].executed is False for code in errors.ErrorCode if status_of(code) == 503)


async def test_a_service_that_is_not_there_has_the_statuses_of_the_document(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    listed = await http.get("/services/nowhere/tools")
    called = await call(http, "nowhere", "echo", "c-1")
    assert (listed.status_code, called.status_code) == (400, 404)
    tools = DOCUMENT["paths"]["/services/{service}/tools"]["get"]["responses"]
    assert "there is no such service" in tools["400"]["description"]
    assert "404" not in tools


@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_who_has_no_credentials_meets_what_the_document_says(mcp: Cluster, serve: Serve, path: str) -> None:
    http = await serve()
    http.auth = NOBODY
    for method, operation in DOCUMENT["paths"][path].items():
        answer = await http.request(
            method, re.sub(r"{\w+}", "twilio", path), json={"call_id": "c-1", "kind": "started"}
        )
        assert str(answer.status_code) in operation["responses"], (method, answer.status_code)
