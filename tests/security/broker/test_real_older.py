"""Workers of before the signatures as they were, on the way to those of today and back."""

import asyncio
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from consumer.client import SessionClient
from infra.broker import PrivateBroker
from tests.broker_users import NAMES, url_of
from tests.harness import ROOT, START, Cluster, cluster, config

pytestmark = [pytest.mark.timeout(240)]

OLDER = "4fc9dfaa748d879272e5a9fe412f006c68bdd9ff"
"""A commit whose workers do not sign, report every second, and know no bound of the dead-letter queue."""


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of an older worker."""
    packed = subprocess.run(
        ["git", "archive", OLDER, "consumer", "schemas"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip("the history of the repository is not here")
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("way", ["terminate", "kill"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_call_moves_between_a_worker_of_today_and_an_older_one(
    mcp: Cluster, node: PrivateBroker, older: Path, direction: str, way: str
):
    as_worker = {"AMQP_URL": url_of(node, "worker")}
    versions = [as_worker | {"PYTHONPATH": str(older)}, as_worker]
    if direction == "down":
        versions.reverse()
    first = await mcp.start(config(), **versions[0])
    async with SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client:
        await client.create("c-1", "echo")
        await mcp.start(config(), **versions[1])
        if way == "terminate":  # it must know that somebody is there who takes its calls
            await asyncio.sleep(2.5)
        await (first.kill() if way == "kill" else first.terminate())
        await mcp.event("created", call_id="c-1", restored=True)
        assert (await client.call_tool("c-1", "echo", {"text": "hello"})).text == "hello"
        await client.close("c-1")


async def test_what_an_older_worker_left_that_nobody_had_heard_is_restored(
    mcp: Cluster, node: PrivateBroker, older: Path
):
    as_worker = {"AMQP_URL": url_of(node, "worker")}
    first = await mcp.start(config(), PYTHONPATH=str(older), **as_worker)
    async with SessionClient(url_of(node, "client"), prefix=NAMES.prefix) as client:
        await client.create("c-1", "echo")
        await first.kill()
        await mcp.start(config(), **as_worker)
        await mcp.event("created", call_id="c-1", restored=True)


async def test_an_older_worker_that_declares_takes_its_own_dead_letter_queue_and_no_newer_one(
    node: PrivateBroker, older: Path
):
    """As ``docs/operations/upgrades.md`` says: going back works on what an older version has declared."""
    async with cluster(node.url, "back") as made:
        for environment in ({"PYTHONPATH": str(older)}, {}, {"PYTHONPATH": str(older)}):
            await made.start(config(), **environment)
        assert made.logged("topology.differs", queue="back.dead")
    async with cluster(node.url, "fresh") as made:
        await made.start(config())
        refused = await made.spawn(config(), PYTHONPATH=str(older))
        await made.until(lambda: "PRECONDITION_FAILED" in str(refused.records), within=START)
        assert "fresh.dead" in str(refused.records)
