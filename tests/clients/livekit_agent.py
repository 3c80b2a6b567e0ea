"""LiveKit's ``MCPServerHTTP``, as a job of an agent has it. Run with the Python that has LiveKit; prints JSON.

Usage: ``livekit_agent.py <url of the list> <url of the other service> <token> <text to put on the list>``
"""

import asyncio
import json
import sys
from typing import Any

from livekit.agents import mcp


class Reply:
    """Where an agent's session would hear what a tool tells meanwhile."""

    def __init__(self) -> None:
        self.updates: list[str] = []

    async def update(self, message: str) -> None:
        self.updates.append(message)


async def main(todo_url: str, other_url: str, token: str, item: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    todo, other = (
        mcp.MCPServerHTTP(url, headers=headers, client_session_timeout_seconds=30) for url in (todo_url, other_url)
    )
    reply = Reply()
    for server in (todo, other):
        await server.initialize()
    try:
        tools = {tool.info.name: tool for tool in await todo.list_tools()}
        await tools["add_todo"](raw_arguments={"text": item})
        listed = await tools["list_todos"](raw_arguments={})
        others = await other.list_tools(tool_options={"progress": {"report_progress": True}})
        (progress,) = (tool for tool in others if tool.info.name == "progress")
        await progress(reply, raw_arguments={"steps": 3})
    finally:
        for server in (todo, other):
            await server.aclose()
    return {"tools": sorted(tools), "listed": listed, "progress": reply.updates}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(*sys.argv[1:]))) + "\n")
