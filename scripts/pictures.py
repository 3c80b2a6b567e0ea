"""Draw ``mcp-sessions top`` from a real run: three workers, calls that come and go, tool calls; docs/img/top-*.svg."""

import asyncio
import contextlib
import io
import itertools
import os
import random
import sys
from pathlib import Path
from uuid import UUID

import structlog
from pyte.screens import Char, Screen
from rich.console import Console
from rich.style import Style
from rich.text import Text

from schemas.errors import SessionsError
from tests.harness import ECHO, ROOT, Cluster, cluster
from tests.terminal import DOWN, ENTER, Terminal, terminal

IMAGES = ROOT / "docs" / "img"
PROGRAM = str(Path(sys.executable).with_name("mcp-sessions"))
PREFIX = "acme"

TODO = [sys.executable, "-m", "consumer.processes.todo_server"]
CONFIGURATION = {
    "session": {"max_total_sessions": 40, "default_timeout": 300},
    "services": {
        "todo": {"command": TODO, "description": "A todo list for each call", "warm": {"min": 2, "max": 4}},
        "booking": {"command": ECHO, "timeout": 120},
        "calendar": {"command": ECHO, "timeout": 60},
    },
    "routes": [
        {"match": {"to": "+1555010*"}, "services": ["todo"]},
        {"match": {"to": "+1555020*"}, "services": ["booking", "calendar"]},
        {"services": ["calendar"]},
    ],
}
WORKERS = ("worker-ams-1", "worker-ams-2", "worker-fra-1")
CALLS = 24
SECONDS = 45.0
"""How long calls come before the pictures are taken: the rates are those of a minute."""

FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich has it, without fonts from elsewhere."""


async def _calls(mcp: Cluster, chance: random.Random) -> None:
    """Calls that come, use their tools for a while, and end; for ever."""
    async with asyncio.TaskGroup() as calls:
        for number in range(10_000):
            calls.create_task(_call(mcp, chance, number), name=f"call-{number}")
            await asyncio.sleep(0.3 if number < CALLS else 1.2)


async def _call(mcp: Cluster, chance: random.Random, number: int) -> None:
    call_id = (
        str(UUID(int=chance.getrandbits(128), version=4)) if number % 4 else f"{chance.getrandbits(40):x}@10.0.0.7"
    )
    service, to = [("todo", "+15550100"), ("booking", "+15550200"), ("calendar", "+15550300")][number % 3]
    await mcp.client.publish_call_event(
        {"call_id": call_id, "kind": "started", "direction": "inbound", "from": "+15550199", "to": to}
    )
    await mcp.event("created", call_id=call_id)
    for _ in range(chance.randint(4, 30)):
        await asyncio.sleep(chance.uniform(0.5, 4) if chance.random() < 0.9 else 30)  # they also just talk
        with contextlib.suppress(SessionsError):
            if service == "todo":
                await mcp.client.call_tool(call_id, "add_todo", {"text": "call back"})
            else:
                await mcp.client.call_tool(call_id, "sleep", {"seconds": chance.expovariate(15)})
    await mcp.client.publish_call_event({"call_id": call_id, "kind": "ended"})


def _styled(char: Char) -> Style:
    colour = {"default": None, "brown": "yellow"}.get(char.fg, char.fg)
    return Style(color=colour, bold=char.bold, reverse=char.reverse, dim=char.blink)  # see tests.terminal.Screen


def drawn(screen: Screen, title: str) -> str:
    """A screen as SVG."""
    console = Console(width=screen.columns, record=True, file=io.StringIO(), force_terminal=True)
    for number in range(screen.lines):
        row = screen.buffer[number]
        text = Text(no_wrap=True)
        for style, letters in itertools.groupby((row[column] for column in range(screen.columns)), key=_styled):
            text.append("".join(letter.data for letter in letters), style=style)
        console.print(text, soft_wrap=True)
    return console.export_svg(title=title, code_format=FORMAT, unique_id=title.replace(" ", "-"))


async def _picture(mcp: Cluster, columns: int, lines: int, keys: str, *words: str) -> str:
    environment = {**os.environ, "AMQP_URL": mcp.url, "MCP_SESSIONS_PREFIX": mcp.prefix, "COLORTERM": ""}
    environment.pop("NO_COLOR", None)
    async with terminal([PROGRAM, "top"], environment, columns, lines, cwd=mcp.folder) as screen:
        await screen.shows("connected", "placer")
        await _settled(screen, lines)
        if keys:
            screen.press(keys)
        await screen.shows(*words)
        await screen.quiet()
        svg = drawn(screen.screen, f"mcp-sessions top {columns}x{lines}")
        screen.press("nq")  # whatever was asked, no
        await screen.ended()
    return svg


async def _settled(screen: Terminal, lines: int) -> None:
    """Wait until there are events in all lines that there are for them."""
    await screen.until(lambda: screen.lines[lines - 2])


async def main() -> None:
    """Draw all."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    IMAGES.mkdir(exist_ok=True)
    chance = random.Random(7)  # noqa: S311 - ids that are the same each time
    async with cluster(os.environ["AMQP_URL"], PREFIX) as mcp:
        for worker in WORKERS:
            await mcp.start(CONFIGURATION, MCP_SESSIONS_WORKER_ID=worker)
        calling = asyncio.create_task(_calls(mcp, chance), name="calls")
        try:
            await asyncio.sleep(SECONDS)
            await mcp.client.publish_call_event(b'{"event": "from somewhere else"}')
            await asyncio.sleep(1)
            pictures = {
                "top-80x24.svg": await _picture(mcp, 80, 24, "", "q quit"),
                "top-120x36.svg": await _picture(
                    mcp, 120, 36, "/todo" + ENTER + DOWN * 3 + "x", "that fit", "Close session"
                ),
            }
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    for name, svg in pictures.items():
        (IMAGES / name).write_text(svg, encoding="utf-8")
        print(IMAGES / name)


if __name__ == "__main__":
    asyncio.run(main())
