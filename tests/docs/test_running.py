"""What the documentation shows does what it says: its Python, shell and JavaScript are run on a real worker."""

import asyncio
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest

from consumer.broker.link import Link
from infra import client_wheel
from tests.docs.blocks import HANDMADE, PAGES, Block, all_blocks, blocks
from tests.harness import ROOT, WAIT, Cluster
from tests.programs import PROGRAM
from tests.stand_ins import stand_in

LOCALHOST = "amqp://guest:guest@localhost:5672/"
RUNNERS = ("python", "sh", "js")
SERVICES = {
    "todo": {
        "command": [sys.executable, "-m", "consumer.processes.todo_server"],
        "fork_server": "consumer.processes.todo_server:server.run",  # its imports take a second of the processor
    }
}
SAMPLES = ROOT / "tests" / "samples" / "call-events"


def adapted(text: str, mcp: Cluster) -> str:
    """A block as it is for this test: on its broker, under its prefix."""
    text = text.replace(f'SessionClient("{LOCALHOST}"', f'SessionClient("{mcp.url}", prefix="{mcp.prefix}"')
    text = text.replace("TAP.Events", f"{mcp.prefix}.TAP.Events")
    text = text.replace(LOCALHOST, mcp.url).replace(LOCALHOST.rstrip("/"), mcp.url.rstrip("/"))
    return re.sub(r"\bmcp\.(calls|sessions|requests|queries|cluster|events)\b", rf"{mcp.prefix}.\1", text)


@pytest.fixture
async def mcp(mcp: Cluster) -> AsyncIterator[Cluster]:
    """A cluster with the command line, that takes away what the exchange of a telephony platform is on a page."""
    programs_folder(mcp).mkdir()
    async with stand_in(programs_folder(mcp) / PROGRAM.name, PROGRAM):
        yield mcp
    link = Link(mcp.url, "cleanup")
    await link.open()
    try:
        async with link.scratch() as channel:
            await channel.delete_exchange(f"{mcp.prefix}.TAP.Events")
    finally:
        await link.close()


def programs_folder(mcp: Cluster) -> Path:
    return mcp.folder / "bin"


def environment(mcp: Cluster) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(programs_folder(mcp)), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "AMQP_URL": mcp.url,
        "MCP_SESSIONS_PREFIX": mcp.prefix,
        "COLUMNS": "120",
    }


@cache
def client_package() -> tempfile.TemporaryDirectory[str]:
    """A folder with the package of the client's wheel, as its source is now."""
    folder = tempfile.TemporaryDirectory(prefix="mcp-sessions-test-")
    client_wheel.unpack(Path(folder.name))
    return folder


async def output_of(command: list[str], mcp: Cluster, where: str, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment(mcp) | env,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(2 * WAIT):
            told, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        told, _ = await process.communicate()
        pytest.fail(f"{where} did not end; it said:\n{told.decode()}")
    assert process.returncode == 0, f"{where} failed:\n{told.decode()}"
    return told.decode()


async def run(block: Block, mcp: Cluster) -> None:
    text = adapted(block.text, mcp)
    match block.language:
        case "python":
            own = {"PYTHONWARNINGS": "error", "PYTHONPATH": client_package().name}
            told = await output_of([sys.executable, "-c", text], mcp, block.where, **own)
        case "sh":
            told = await output_of(["bash", "-euo", "pipefail", "-c", text], mcp, block.where)
        case _:
            found = f"module.paths.push({json.dumps(amqplib())});{text}"
            told = await output_of(["node", "-e", found], mcp, block.where)
    for words in filter(None, block.says.get("prints", "").split(", ")):
        assert words in told, f"{block.where} does not print {words!r} but:\n{told}"
    if "then" in block.says:
        what, subject = block.says["then"].split()
        await mcp.event(what.rpartition(".")[2], session_id=subject)


def amqplib() -> str | None:
    """The folder that amqplib is in, if it is anywhere."""
    places = [ROOT / "node_modules", *(Path(one) for one in os.environ.get("NODE_PATH", "").split(os.pathsep) if one)]
    return next((str(place) for place in places if (place / "amqplib").is_dir()), None)


def special(block: Block) -> bool:
    """Whether a block needs what is not on every machine."""
    return block.language == "js" or "needs" in block.says


def story(page: str) -> list[Block]:
    """The blocks that a reader runs one after the other."""
    return [one for one in blocks(page) if one.runs and one.language in RUNNERS and not special(one)]


def configures(page: str) -> bool:
    """Whether a page is to be tried with a configuration of its own."""
    return any("configures" in block.says for block in blocks(page))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", [page for page in HANDMADE if story(page) and configures(page)])
async def test_the_blocks_of_a_page_do_one_after_the_other_what_they_say(page: str, mcp: Cluster):
    for block in blocks(page):
        if "file" in block.says:
            (mcp.folder / block.says["file"]).write_text(block.text)
    configuration = configuration_of(page, mcp)
    ports = with_a_free_port(configuration)
    with_gateway = "gateway" in configuration
    worker = await mcp.start(configuration, *(["--gateway"] if with_gateway else []))
    if with_gateway:
        await worker.logged("gateway.ready")
    for block in story(page):
        await run(replace(block, text=reduce(lambda text, port: text.replace(*port), ports, block.text)), mcp)
    if page == "README.md":
        first = mcp.of("created")[0].data
        assert (first["metadata"]["tenant"], first["timeout"]) == ("acme", 600)


@pytest.mark.timeout(600)
async def test_so_do_those_of_the_pages_that_need_no_configuration(mcp: Cluster):
    await mcp.start({"services": SERVICES})
    for page in [page for page in HANDMADE if story(page) and not configures(page)]:
        for block in story(page):
            await run(block, mcp)
        opened = (await mcp.client.list_sessions()).sessions
        for session in opened:
            await mcp.client.close(session)
        await mcp.until(lambda: set(opened) <= {event.subject for event in mcp.of("closed")})  # noqa: B023
        mcp.events.clear()  # on the next page calls have the same ids


@pytest.mark.parametrize("block", [one for one in all_blocks() if one.runs and special(one)], ids=lambda one: one.where)
async def test_a_block_that_needs_more_does_what_it_says(block: Block, mcp: Cluster):
    if block.language == "js" and (shutil.which("node") is None or amqplib() is None):
        pytest.skip("needs node and amqplib: npm install amqplib, and NODE_PATH if it is not here")
    if shutil.which(block.says.get("needs", "bash")) is None:
        pytest.skip(f"needs {block.says['needs']}")
    await mcp.start({"services": SERVICES})
    await run(block, mcp)


def configuration_of(page: str, mcp: Cluster) -> dict[str, Any]:
    """The configuration that a page is to be tried with."""
    table = next(tomllib.loads(adapted(block.text, mcp)) for block in blocks(page) if "configures" in block.says)
    table.get("worker", {}).pop("prefix", None)  # the test has its own
    return table


def with_a_free_port(configuration: dict[str, Any]) -> list[tuple[str, str]]:
    """Have the worker listen on a free port instead of the page's; returns what is to be replaced on the page."""
    replaced = []
    for section, key in (("worker", "http_port"), ("gateway", "port")):
        table = configuration.get(section, {})
        if key in table:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                written, table[key] = table[key], probe.getsockname()[1]
            replaced.append((f"localhost:{written}", f"localhost:{table[key]}"))
    return replaced


def test_every_page_is_read():
    assert {"README.md", "CONTRIBUTING.md", "docs/wire.md", "docs/guides/publishing.md"} <= set(PAGES)
