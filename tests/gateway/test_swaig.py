"""SWAIG functions as tool calls, hooks as what they are, and sentences for the caller when something is wrong."""

import json
import re
import sys
import time
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel, ValidationError
from structlog.testing import capture_logs

from consumer.gateway import known_services, speech
from tests.gateway.conftest import OPEN_TO_THIS_MACHINE, PASSWORD, USER, Serve, served, soon
from tests.gateway.test_cases import SERVICES
from tests.harness import ROOT, Cluster, config

SAMPLES = ROOT / "tests/samples/call-events/swaig"


async def run(
    http: httpx2.AsyncClient, function: str, call_id: str, path: str = "", **arguments: Any
) -> httpx2.Response:
    """A function's request as the platform sends it."""
    body = json.loads((SAMPLES / "function_get_weather.json").read_text()) | {
        "function": function,
        "call_id": call_id,
        "argument": {"parsed": [arguments], "raw": json.dumps(arguments)},
    }
    return await http.post(f"/signalwire/swaig{path}", json=body)


async def test_a_function_is_a_tool_call_of_the_calls_session(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    http = await serve()
    added = await run(http, "add_todo", "s-1", text="milk")
    assert added.status_code == 200
    assert added.json() == {"response": "added milk"}
    assert (await run(http, "list_todos", "s-1", "/todo")).json() == {"response": "milk"}
    assert (await run(http, "list_todos", "s-2")).json() == {"response": "nothing"}


async def test_the_names_of_signalwires_skill_name_the_service(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"], "todo2": SERVICES["todo2"]}))
    http = await serve()
    assert (await run(http, "mcp_todo2_add_todo", "s-1", text="eggs")).json() == {"response": "added eggs"}
    assert (await run(http, "todo_list_todos", "s-1")).json() == {"response": "nothing"}
    assert (await run(http, "todo2_list_todos", "s-1")).json() == {"response": "eggs"}
    assert (await run(http, "list_todos", "s-1")).json() == {"response": speech.UNKNOWN}


async def test_hooks_open_and_close_the_call(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    hook = json.loads((SAMPLES / "startup_hook.json").read_text())
    assert (await http.post("/signalwire/swaig", json=hook)).status_code == 200
    await mcp.event("created", call_id=hook["call_id"])
    hook = json.loads((SAMPLES / "hangup_hook.json").read_text())
    assert (await http.post("/signalwire/swaig", json=hook)).json() == {"response": "OK"}
    await mcp.event("closed", call_id=hook["call_id"], reason="call_ended")


async def test_signatures_are_the_tools_with_this_address(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    http = await serve(public_url="https://voice.example.com/gateway", allowed_hosts=["127.0.0.1"])
    asked = {"action": "get_signature", "functions": ["add_todo"], "content_type": "text/swaig", "version": "2.0"}
    (told,) = (await http.post("/signalwire/swaig", json=asked)).json()
    assert told["function"] == "add_todo"
    assert told["parameters"] == {"type": "object"}
    assert told["web_hook_url"] == f"https://{USER}:{PASSWORD}@voice.example.com/gateway/signalwire/swaig"


MUTE = {"command": [sys.executable, str(ROOT / "tests/servers/mute.py")]}


async def test_a_service_that_hangs_or_fails_holds_no_other_ones_functions(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"hangs": MUTE, "todo": SERVICES["todo"], "broken": SERVICES["broken"]}))
    http = await serve()
    await soon(lambda: succeeds(http, "todo_list_todos"))
    began = time.monotonic()
    assert (await run(http, "add_todo", "s-1", text="milk")).json() == {"response": "added milk"}
    assert (await run(http, "list_todos", "s-1")).json() == {"response": "milk"}
    assert time.monotonic() - began < known_services.ANSWER_TIMEOUT
    with capture_logs() as logs:
        # It may be one of theirs. They are waited for once, and not by each caller anew.
        assert (await run(http, "dance", "s-1")).json() == {"response": speech.BUSY}
        began = time.monotonic()
        assert (await run(http, "dance", "s-1")).json() == {"response": speech.BUSY}
    assert time.monotonic() - began < known_services.ANSWER_TIMEOUT / 2
    lines = [line for line in logs if line["event"] == "swaig.left_out"]
    assert {(line["service"], line["log_level"]) for line in lines} == {("hangs", "warning"), ("broken", "warning")}
    assert len(lines) == 2


async def succeeds(http: httpx2.AsyncClient, function: str) -> bool:
    return bool((await run(http, function, "s-0")).json() == {"response": "nothing"})


async def test_a_function_of_a_service_that_fails_is_told_its_own_error(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"broken": SERVICES["broken"], "todo": SERVICES["todo"]}))
    http = await serve()
    for function, path in (("broken_dance", ""), ("mcp_broken_dance", ""), ("mcp_broken_dance", "/broken")):
        with capture_logs() as logs:
            assert (await run(http, function, "s-1", path)).json() == {"response": speech.FAILED}
        [line] = [line for line in logs if line["event"] == "swaig.failed"]
        assert (line["service"], line["tool"], line["code"]) == ("broken", "dance", "START_FAILED")


async def test_finding_a_function_and_running_it_share_one_timeout(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"hangs": MUTE, "todo": SERVICES["todo"]}))
    http = await serve(call_timeout=3)
    began = time.monotonic()
    assert (await run(http, "hangs_dance", "s-1")).json() == {"response": speech.LATE}
    assert time.monotonic() - began < 5


async def test_signatures_are_told_of_the_services_that_answer(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"hangs": MUTE, "todo": SERVICES["todo"], "broken": SERVICES["broken"]}))
    http = await serve()
    asked = {"action": "get_signature", "functions": ["add_todo"]}
    with capture_logs() as logs:
        [told] = (await http.post("/signalwire/swaig", json=asked)).json()
    assert told["function"] == "todo_add_todo"
    assert {line["service"] for line in logs if line["event"] == "swaig.left_out"} == {"hangs", "broken"}
    alone = await http.post("/signalwire/swaig/broken", json=asked)
    assert (alone.status_code, alone.json()["code"]) == (424, "START_FAILED")


async def test_the_address_of_a_function_has_the_credentials_it_was_asked_with(mcp: Cluster) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    asked = {"action": "get_signature", "functions": ["add_todo"]}
    password = "one/two:three@four"
    async with served(mcp, auth_user="agent", auth_password=password) as (gateway, http):
        http.auth = ("agent", password)
        [told] = (await http.post("/signalwire/swaig/todo", json=asked)).json()
        place = f"127.0.0.1:{gateway.port}/signalwire/swaig/todo"
        assert told["web_hook_url"] == f"http://agent:one%2Ftwo%3Athree%40four@{place}"
        async with httpx2.AsyncClient(timeout=30) as platform:  # which takes them out of the address
            body = {"function": "add_todo", "call_id": "s-1", "argument": {"parsed": [{"text": "milk"}]}}
            assert (await platform.post(told["web_hook_url"], json=body)).json() == {"response": "added milk"}
    async with served(mcp, **OPEN_TO_THIS_MACHINE) as (gateway, http):
        [told] = (await http.post("/signalwire/swaig/todo", json=asked)).json()
        assert told["web_hook_url"] == f"http://127.0.0.1:{gateway.port}/signalwire/swaig/todo"


async def test_arguments_that_are_no_object_run_nothing(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    http = await serve()
    body = {"function": "list_todos", "call_id": "s-1"}
    for argument in ("milk", 7, ["milk"], {"raw": "not json"}, {"raw": "[1]"}, {"parsed": ["x"]}):
        with capture_logs() as logs:
            told = (await http.post("/signalwire/swaig", json=body | {"argument": argument})).json()
        assert told == {"response": speech.UNREADABLE}, argument
        [line] = [line for line in logs if line["event"] == "swaig.failed"]
        assert (line["code"], line["error"]) == ("INVALID_MESSAGE", "argument: neither parsed nor raw is an object")
    for none in (None, {}, {"parsed": [], "raw": ""}, {"raw": "{}"}, {"parsed": [None]}):
        told = (await http.post("/signalwire/swaig", json=body | {"argument": none})).json()
        assert told == {"response": "nothing"}, none


async def test_a_function_that_swml_includes_and_no_service_has_is_named_in_the_log(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    http = await serve()
    asked = {"action": "get_signature", "functions": ["add_todo", "list_todoes"], "version": "2.0"}
    with capture_logs() as logs:
        (told,) = (await http.post("/signalwire/swaig/todo", json=asked)).json()
    assert told["function"] == "add_todo"
    [line] = [line for line in logs if line["event"] == "swaig.not_found"]
    assert (line["functions"], line["services"]) == (["list_todoes"], ["todo"])


async def test_a_tool_that_fails_says_so_in_its_own_words(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"odd": SERVICES["odd"]}))
    http = await serve()
    assert (await run(http, "iserror", "s-1")).json() == {"response": "no such city"}
    assert (await run(http, "crash", "s-1")).json() == {"response": speech.UNSURE}
    assert (await run(http, "nothing_like_it", "s-1")).json() == {"response": speech.UNKNOWN}


class _Booking(BaseModel):
    day: int
    name: str


def test_what_pydantic_reports_of_a_tools_arguments_is_one_plain_sentence() -> None:
    for given, told in (
        ({"day": 1}, "That did not work: name is missing."),
        ({"day": "soon", "name": "Ann"}, "That did not work: day must be a valid integer."),
        ({}, "That did not work: day is missing and name is missing."),
    ):
        with pytest.raises(ValidationError) as caught:
            _Booking.model_validate(given)
        assert speech.told_by_tool(f"Error executing tool book: {caught.value}") == told
    assert speech.told_by_tool("no such city") == "no such city"
    assert speech.told_by_tool("") == speech.FAILED


async def test_what_is_late_is_told_within_the_timeout(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()  # echo
    http = await serve(call_timeout=0.5)
    assert (await run(http, "sleep", "s-1", seconds=20)).json() == {"response": speech.LATE}


async def test_what_is_no_function_is_refused_with_a_sentence(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    for body in (b"", b"[]", b"{", b'{"function": 7, "call_id": "c"}', b'{"function": "x"}'):
        answer = await http.post("/signalwire/swaig", content=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]


async def test_each_address_is_counted_as_its_own_route(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"todo": SERVICES["todo"]}))
    http = await serve()
    before = await counted(http)
    await run(http, "list_todos", "s-1")
    await run(http, "list_todos", "s-1", "/todo")
    await run(http, "list_todos", "s-1", "/todo")
    after = await counted(http)
    grown = {route: after[route] - before.get(route, 0) for route in after if "swaig" in route}
    assert grown == {"/signalwire/swaig": 1, "/signalwire/swaig/{service}": 2}


async def counted(http: httpx2.AsyncClient) -> dict[str, float]:
    """How many requests each route has answered with 200."""
    told = (await http.get("/metrics")).text
    found = re.findall(r'http_requests_total\{route="([^"]+)",status="200"\} (\S+)', told)
    return {route: float(count) for route, count in found}
