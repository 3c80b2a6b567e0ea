"""The Pythons that are supported are the same wherever they are said."""

import re
import sys
import tomllib

import pytest

from tests.harness import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SUPPORTED = [
    told.rpartition(" ")[2]
    for told in PROJECT["project"]["classifiers"]
    if told.startswith("Programming Language :: Python :: 3.")
]
OLDEST, NEWEST = SUPPORTED[0], SUPPORTED[-1]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "CONTRIBUTING.md"])
def test_a_page_says_the_oldest_and_the_newest(page: str) -> None:
    assert re.findall(r"Python (3\.\d+) to (3\.\d+)", (ROOT / page).read_text()) == [(OLDEST, NEWEST)]


def test_each_of_them_is_looked_for_newest_first() -> None:
    looked_for = re.search(r"for name in ((?:python3\.\d+ )+)", (ROOT / "scripts" / "setup").read_text())
    assert looked_for is not None
    assert looked_for[1].split() == [f"python{version}" for version in reversed(SUPPORTED)]


def test_types_and_style_are_those_of_the_oldest() -> None:
    assert PROJECT["project"]["requires-python"] == f">={OLDEST}"
    assert PROJECT["tool"]["mypy"]["python_version"] == OLDEST
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{OLDEST.replace('.', '')}"
    assert (ROOT / ".python-version").read_text().strip() == OLDEST


def test_they_run_on_one_of_them() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in SUPPORTED
