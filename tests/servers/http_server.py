"""A real streamable HTTP server on the SDK's server side; prints its port on stdout once it listens."""

import asyncio
import contextlib
import socket
from collections import defaultdict
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

server = MCPServer("http", log_level="ERROR")
count = 0
remembered: defaultdict[str, list[str]] = defaultdict(list)


class Answer(BaseModel):
    answer: str


@server.tool()
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool()
def counter() -> int:
    """Counts its own calls."""
    global count  # noqa: PLW0603
    count += 1
    return count


@server.tool()
async def sleep(seconds: float) -> str:
    """Answers later."""
    await asyncio.sleep(seconds)
    return f"slept {seconds}"


@server.tool()
def headers(ctx: Context[Any, Any]) -> dict[str, str]:
    """The headers of this very request."""
    return dict(ctx.request_context.request.headers)  # type: ignore[union-attr]


@server.tool()
def remember(item: str, ctx: Context[Any, Any]) -> str:
    """What this MCP session was told, as servers with sessions keep it."""
    session = ctx.request_context.request.headers.get("mcp-session-id", "")  # type: ignore[union-attr]
    remembered[session].append(item)
    return ", ".join(remembered[session])


@server.tool()
async def progress(ctx: Context[Any, Any]) -> str:
    """Three steps."""
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3, f"step {step}")
    return "done"


def main() -> None:
    app = server.streamable_http_app()
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(listening.getsockname()[1], flush=True)  # noqa: T201
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    main()
