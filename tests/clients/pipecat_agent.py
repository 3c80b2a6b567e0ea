"""Pipecat's ``MCPClient``, as a pipeline has it. Run with the Python that has Pipecat; prints JSON.

Usage: ``pipecat_agent.py <url of the list> <url of the other service> <token> <text to put on the list>``
"""

import asyncio
import json
import sys
from typing import Any

from mcp.client.session_group import StreamableHttpParameters
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.mcp_service import MCPClient


async def call(tools: dict[str, Any], name: str, **arguments: Any) -> str:
    """Call a tool as the service of a model does; its handler comes with the tool."""
    answers: list[str] = []

    async def answered(result: str, **_: Any) -> None:
        answers.append(result)

    nothing: Any = None  # neither model nor pipeline is needed for it
    await tools[name].handler(FunctionCallParams(name, "call-1", arguments, nothing, nothing, nothing, answered))
    return answers[0]


async def main(todo_url: str, other_url: str, token: str, item: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    todo, other = (MCPClient(StreamableHttpParameters(url=url, headers=headers)) for url in (todo_url, other_url))
    heard: list[str | None] = []

    async def progressed(_: float, __: float | None, message: str | None) -> None:
        heard.append(message)

    async with todo, other:
        tools = {tool.name: tool for tool in (await todo.tools()).standard_tools}
        await call(tools, "add_todo", text=item)
        listed = await call(tools, "list_todos")
        # Pipecat asks for no progress by itself; the session that it has carries it.
        session = other._get_active_session()
        await session.call_tool("progress", {"steps": 3}, progress_callback=progressed)
    return {"tools": sorted(tools), "listed": listed, "progress": heard}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))) + "\n")
