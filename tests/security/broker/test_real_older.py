"""Workers as they were before the dead-letter queue had a bound, beside those of today."""

import subprocess
from pathlib import Path

import pytest

from infra.broker import PrivateBroker
from tests.harness import ROOT, START, cluster, config

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
    subprocess.run(["tar", "--extract", "--directory", folder], input=packed.stdout, check=True)
    return folder


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
