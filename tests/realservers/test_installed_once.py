"""What the guide says of npx and uvx: packages are installed once, and what a server writes belongs to one call."""

import asyncio
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.harness import Cluster

PAGE = "docs/guides/tools.md"
TIMEOUT = 240.0

pytestmark = [pytest.mark.realservers, pytest.mark.timeout(600)]


async def done(*command: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            told, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        pytest.skip(f"a registry does not answer: {command}")
    if process.returncode:
        pytest.skip(f"not installed here: {told.decode()[-300:]}")
    return told.decode()


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that servers may read whose user is none: pytest's own is private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_the_paragraph_of_the_guide_does_what_it_says(servers, mcp: Cluster, readable: Path):
    del servers  # it has looked whether the registries answer
    uv = readable / "uv"
    await done(sys.executable, "-m", "pip", "install", "-q", "--target", str(uv), "uv", folder=readable)
    (shell,) = (one for one in blocks(PAGE) if one.language == "sh" and "npm install" in one.text)
    (toml,) = (one for one in blocks(PAGE) if one.language == "toml" and "mcp-server-memory" in one.text)
    opt = str(readable / "mcp")
    path = f"PATH={uv / 'bin'}:$PATH"
    await done("sh", "-ec", f"{path}\n{shell.text.replace('/opt/mcp', opt)}", folder=readable)

    before = {file for file in (readable / "mcp").rglob("*") if file.suffix != ".pyc"}
    worker = await mcp.start(tomllib.loads(toml.text.replace("/opt/mcp", opt)))
    entity = {"name": "Ada", "entityType": "caller", "observations": ["likes tea"]}
    await mcp.client.call_tool("c-1", "create_entities", {"entities": [entity]}, service_name="memory")
    one = await mcp.client.call_tool("c-1", "read_graph", {})
    other = await mcp.client.call_tool("c-2", "read_graph", {}, service_name="memory")
    assert "likes tea" in one.text
    assert "Ada" not in other.text, "two callers share one memory"
    told = await mcp.client.call_tool("c-3", "get_current_time", {"timezone": "Europe/Paris"}, service_name="time")
    assert "Europe/Paris" in told.text
    after = {file for file in (readable / "mcp").rglob("*") if file.suffix != ".pyc"}
    assert {file for file in after - before if file.name != "__pycache__"} == set()
    assert not [record for record in worker.records if record["event"] == "session.rejected"]
