"""What a client finds again when a connection, a gateway or a worker is lost under it; and what nobody waits for."""

import asyncio
from typing import Literal

import httpx2
import pytest

from tests.gateway.conftest import Serve
from tests.gateway.mcp.processes import gateway_process
from tests.gateway.mcp.test_messages import ECHO, initialized
from tests.gateway.mcp.wire import Json, call, events, message, modern
from tests.harness import Cluster

RESTORED = "mcp-sessions/restored"


def counting(seconds: float) -> Json:
    """A tool call that counts itself, says so as progress, and takes its time."""
    given = {"name": "count_slowly", "arguments": {"seconds": seconds}, "_meta": {"progressToken": "p"}}
    return message("tools/call", given)


async def result_of(http: httpx2.AsyncClient, asked: Json, headers: Json) -> Json:
    answer = await http.post(ECHO, json=asked, headers=headers)
    last: Json = answer.json()  # nothing is told any more before it
    assert last["id"] == asked["id"]
    found: Json = last["result"]
    return found


async def count(http: httpx2.AsyncClient) -> int:
    return int((await call(http, ECHO, "counter"))["structuredContent"]["count"])


async def cancelled(http: httpx2.AsyncClient) -> list[object]:
    found: list[object] = (await call(http, ECHO, "cancelled"))["structuredContent"]["ids"]
    return found


async def left_in_mid_call(http: httpx2.AsyncClient, asked: Json, headers: Json) -> None:
    """Go away when the server has told of its progress."""
    async with http.stream("POST", ECHO, json=asked, headers=headers) as answer:
        assert (await anext(events(answer)))["method"] == "notifications/progress"


async def test_a_gateway_is_killed_under_a_call_and_the_same_request_to_another_one_is_not_executed_again(
    mcp: Cluster,
) -> None:
    await mcp.start()
    first, second = await gateway_process(mcp), await gateway_process(mcp)
    asked = counting(2.5)
    async with first.client() as one, second.client() as two:
        headers = await initialized(one, {}, ECHO)
        async with one.stream("POST", ECHO, json=asked, headers=headers) as answer:
            told = events(answer)
            assert (await anext(told))["method"] == "notifications/progress"
            await first.kill()
            with pytest.raises(httpx2.HTTPError):
                await anext(told)
        assert (await result_of(two, asked, headers))["structuredContent"] == {"count": 1}
        assert await count(two) == 2


@pytest.mark.parametrize("era", ["with a session", "without one", "stateless"])
async def test_a_client_that_vanishes_in_mid_call_cancels_it(mcp: Cluster, serve: Serve, era: str) -> None:
    await mcp.start()
    http = await serve()
    asked = counting(60)
    if era == "stateless":
        asked, headers = modern("tools/call", asked["params"])
    else:
        headers = await initialized(http, {}, ECHO)
        if era == "without one":
            del headers["mcp-session-id"]
    await left_in_mid_call(http, asked, headers)
    async with asyncio.timeout(45):
        while not await cancelled(http):
            await asyncio.sleep(0.05)


async def test_a_client_that_comes_back_in_time_gets_the_answer_of_its_call(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    one, two = await serve(), await serve()
    headers = await initialized(one, {}, ECHO)
    asked = counting(5)  # longer than a client has to come back
    await left_in_mid_call(one, asked, headers)
    assert (await result_of(two, asked, headers))["structuredContent"] == {"count": 1}
    assert await cancelled(two) == []


@pytest.mark.parametrize("era", ["handshake", "stateless"])
async def test_who_asks_first_after_a_worker_was_killed_is_told_that_its_memory_is_gone(
    mcp: Cluster, serve: Serve, era: Literal["handshake", "stateless"]
) -> None:
    worker = await mcp.start()
    http = await serve()
    assert await count(http) == 1
    await mcp.start()
    await worker.kill()
    await mcp.event("created", session_id="c-1", restored=True)
    asked = message("tools/call", {"name": "counter", "arguments": {}})
    headers = await initialized(http, {}, ECHO)
    if era == "stateless":
        asked, headers = modern("tools/call", {"name": "counter", "arguments": {}})
    told = (await http.post(ECHO, json=asked, headers=headers)).json()["result"]
    assert told["structuredContent"] == {"count": 1}
    assert told["_meta"][RESTORED] is True
    assert RESTORED not in (await call(http, ECHO, "counter")).get("_meta", {})
