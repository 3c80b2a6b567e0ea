"""The seam below the client: what carries requests can be put in front of the broker."""

from typing import Any

import pytest

from consumer.client import OnInterim, Outgoing, Requester, SessionClient
from schemas.errors import SessionNotFound
from schemas.interim import ToolsProgress
from schemas.replies import Reply, failed, succeeded
from schemas.requests import ToolsCall, parse_request
from tests.harness import Cluster


class OwnCall:
    """Answers for one call itself, as a process does that owns it; everything else goes on."""

    def __init__(self, onward: Requester) -> None:
        self._onward = onward
        self.asked: list[Any] = []

    async def ask(self, request: Outgoing, on_interim: OnInterim | None = None) -> Reply:
        if request.call_id != "mine":
            return await self._onward.ask(request, on_interim)
        asked = parse_request(request.type, request.body)
        self.asked.append((asked, request.reply_timeout))
        if not isinstance(asked, ToolsCall):
            return failed(SessionNotFound("it is somewhere else"))
        if on_interim is not None:
            await on_interim(ToolsProgress(session_id=asked.session_id, progress=1.0))
        return succeeded({"session_id": asked.session_id, "text": "here", "content": []})


async def test_requests_for_an_own_call_need_no_broker_and_others_take_it(mcp: Cluster):
    await mcp.start()
    made: list[OwnCall] = []

    def middleware(onward: Requester) -> Requester:
        made.append(OwnCall(onward))
        return made[0]

    heard: list[float] = []
    async with SessionClient(mcp.url, prefix=mcp.prefix, middleware=middleware) as client:
        answer = await client.call_tool(
            "mine#echo", "echo", {"text": "x"}, timeout=7, on_progress=lambda told: heard.append(told.progress)
        )
        assert (answer.text, answer.session_id, heard) == ("here", "mine#echo", [1.0])
        with pytest.raises(SessionNotFound, match="somewhere else"):
            await client.get("mine")
        await client.create("other", "echo")
        assert (await client.call_tool("other", "echo", {"text": "over there"})).text == "over there"
    (first, timeout), _ = made[0].asked
    assert (first.name, first.arguments, first.timeout, timeout) == ("echo", {"text": "x"}, 7, 8)
    assert mcp.logged("delivery", call_id="mine") == []
