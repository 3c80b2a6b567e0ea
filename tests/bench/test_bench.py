"""The benchmarks run to their end, with tiny sizes, and leave nothing behind. How fast anything is, is not asked."""

import asyncio
import math
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest

from scripts.bench import SUBJECTS
from scripts.benchmarks.report import Report
from tests import programs
from tests.harness import ROOT

BOUND = 400
"""Seconds; it takes half a minute where nothing else runs."""


@pytest.mark.timeout(BOUND + 30)
async def test_everything_is_measured_and_nothing_is_left(amqp_url: str, tmp_path: Path):
    report, pictures, folders = tmp_path / "report.json", tmp_path / "pictures", tmp_path / "folders"
    folders.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.bench", "--quick", "--json", str(report), "--plots", str(pictures)),
        cwd=ROOT,
        env=os.environ | {"AMQP_URL": amqp_url, "TMPDIR": str(folders)},
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await programs.output_of(process, BOUND)
    assert process.returncode == 0
    found = Report.model_validate_json(report.read_text())
    assert found.quick
    assert list(found.subjects) == list(SUBJECTS)
    for subject in found.subjects.values():
        for figure in subject.figures:
            assert math.isfinite(figure.value)
            assert figure.what.split()[0] in told.decode()
            assert all(math.isfinite(reference) for reference in figure.against.values())
    drawn = {plot.name for subject in found.subjects.values() for plot in subject.plots}
    assert {path.stem for path in pictures.iterdir()} == drawn
    for path in pictures.iterdir():
        ET.parse(path)
    assert list(folders.iterdir()) == []
    assert [one for one in psutil.process_iter() if temporary_folder_of(one).startswith(str(folders))] == []


def temporary_folder_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("TMPDIR", "")
    except psutil.Error:
        return ""
