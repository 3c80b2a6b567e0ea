"""A failed start as an operator sees it: the page shows what log, commands and metrics really print.

``RENEW_PAGES=1`` writes the blocks of the page anew.
"""

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.docs.blocks import PAGES, blocks
from tests.harness import WAIT, Cluster
from tests.programs import PROGRAM
from tests.terminal import terminal

PAGE = "docs/operations/failed-start.md"
WORKER = "worker-1"
SENTENCE = "orders: the server ended while it was starting (exit code 1): no database at db.example"
CODE = "START_FAILED"


def configured() -> str:
    (toml,) = (block.text for block in blocks(PAGE) if block.language == "toml")
    return toml


def settled(text: str) -> str:
    """What is different in each run, made the same: clocks and durations."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-27T14:03:07.512345Z", text)
    text = re.sub(r"\b\d\d:\d\d:\d\d\b", "14:03:07", text)
    text = re.sub(r'"ms": [\d.]+', '"ms": 52.1', text)
    text = re.sub(r"\b(works|fails) +\d[\d.]*m?s +", lambda found: f"{found[1]}  52ms   ", text)
    text = re.sub(r"tried in \d[\d.]*m?s", "tried in 61ms", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def line_of(record: dict[str, Any]) -> str:
    """A record as the worker wrote it."""
    return json.dumps({key: value for key, value in record.items() if key not in ("trace_id", "span_id")})


@pytest.fixture
def here(mcp: Cluster) -> Cli:
    (mcp.folder / "mcp-sessions.toml").write_text(configured())
    (mcp.folder / "started.json").write_text('{"call_id": "c-1", "kind": "started", "from": "+15550100"}')
    return Cli(mcp.folder, AMQP_URL=mcp.url, MCP_SESSIONS_PREFIX=mcp.prefix, COLUMNS="120")


FILTER = "| grep -E '^mcp_sessions_(rejected|starts)_total' | grep -v ' 0.0'"
"""Counters begin at zero; those that have counted something tell the story."""


async def story(mcp: Cluster, here: Cli) -> list[str]:
    """What the operator sees, in the order of the page's blocks."""
    config = str(here.folder / "mcp-sessions.toml")
    worker = await mcp.start(MCP_SESSIONS_CONFIG=config, MCP_SESSIONS_WORKER_ID=WORKER, MCP_SESSIONS_HTTP_PORT="0")
    port = (await worker.logged("http.listening"))["port"]

    async def ran(*arguments: str) -> str:
        done = await here(*arguments)
        return settled(f"$ mcp-sessions {' '.join(arguments)}\n{done.out}{done.err}".replace(mcp.prefix, "mcp"))

    listening = await here.start("events", "rejected", "--count", "1")
    assert listening.stderr is not None
    async with asyncio.timeout(WAIT):
        await listening.stderr.readline()
    async with terminal((str(PROGRAM), "top"), here.environment, 150, 24, cwd=here.folder) as top:
        await top.until(lambda: any(WORKER in line for line in top.lines))
        sent = await ran("calls", "send", "started.json")
        rejected = await worker.logged("session.rejected")
        delivery = await worker.logged("delivery", type="call.started", outcome="not_opened")
        raw = await worker.logged("delivery", call_id="c-1", queue=f"{mcp.prefix}.calls")
        async with asyncio.timeout(WAIT):
            told, _ = await listening.communicate()
        await top.until(lambda: any("rejected" in line for line in top.lines))
        (shown,) = (line.strip(" │") for line in top.lines if "rejected" in line)
        top.press("q")
    log = "\n".join(map(line_of, (raw, rejected, delivery))).replace(mcp.prefix, "mcp")
    tool = await ran("tools", "call", "c-1", "list_orders", "--service", "orders")
    reading = await asyncio.create_subprocess_exec(
        "curl", "-s", f"http://localhost:{port}/metrics", stdout=asyncio.subprocess.PIPE
    )
    metrics, _ = await reading.communicate()
    counted = [
        line
        for line in metrics.decode().splitlines()
        if line.startswith(("mcp_sessions_rejected_total", "mcp_sessions_starts_total")) and not line.endswith(" 0.0")
    ]
    return [
        f"$ cat started.json\n{(here.folder / 'started.json').read_text()}\n{sent}",
        settled(log),
        settled(f"$ mcp-sessions events rejected --count 1\n{told.decode()}"),
        settled(f"$ mcp-sessions top\n{shown}"),
        tool,
        await ran("services", "check"),
        await ran("dead-letters", "list"),
        "\n".join(
            [
                "$ curl -s localhost:9464/metrics | grep -E '^mcp_sessions_(rejected|starts)_total' | grep -v ' 0.0'",
                *counted,
            ]
        ),
    ]


async def test_the_page_shows_what_is_printed_and_all_of_it_says_the_same(mcp: Cluster, here: Cli):
    found = await story(mcp, here)
    shown = [block for block in blocks(PAGE) if block.language == "text"]
    if os.environ.get("RENEW_PAGES"):
        renew(PAGES[PAGE], iter(found))
        return
    assert [block.text.strip() for block in shown] == found
    _, log, events, top, tool, check, dead, metrics = found
    for told in (log, events, tool, check):
        assert CODE in told
        assert SENTENCE in " ".join(told.split())  # a table has it on two lines
    assert CODE in top
    assert SENTENCE[:40] in top
    assert CODE.lower() in metrics
    assert CODE not in dead


def renew(page: Path, found: Iterator[str]) -> None:
    replace: Callable[[re.Match[str]], str] = lambda _: f"```text\n{next(found)}\n```"  # noqa: E731
    page.write_text(re.sub(r"```text\n.*?```", replace, page.read_text(), flags=re.DOTALL))
