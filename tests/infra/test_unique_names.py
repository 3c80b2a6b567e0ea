"""Names are found by searching for them: a class has a name of its own, and so has a file, and imports keep both."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("consumer", "schemas", "docs", "infra", "scripts")
CONVENTIONS = {"strategies as st", "ElementTree as ET"}
"""Aliases that the documentation of their libraries uses; they tell no two things apart."""

TWICE_ON_PURPOSE = ("consumer/cli", "consumer/gateway/signatures", "consumer/telephony/platforms")
"""Folders with a file for each command, or for each platform: its name is not ours to choose."""

OF_THE_CONTRACT = {"__init__.py", "__main__.py", "errors.py", "events.py"}
"""Files that Python names, and what the contract and a room both have: errors and events."""


def sources(folder: str) -> list[Path]:
    """The Python files of a folder, without those that npm has put there."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if "node_modules" not in path.parts]


def modules(folders: Iterable[str]) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sources(folder):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def clashing_aliases(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in node.names:
                said = f"{name.name} as {name.asname}"
                if name.asname is not None and name.asname != name.name and said not in CONVENTIONS:
                    yield said


def test_no_two_classes_have_one_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in modules(SOURCES):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path)
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_no_import_needs_an_alias() -> None:
    found = {path: list(clashing_aliases(tree)) for path, tree in modules((*SOURCES, "tests"))}
    assert {path: aliases for path, aliases in found.items() if aliases} == {}


def test_no_two_files_have_one_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path, _ in modules(("consumer", "schemas")):
        if not path.startswith(TWICE_ON_PURPOSE) and Path(path).name not in OF_THE_CONTRACT:
            found[Path(path).name].append(path)
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


@pytest.mark.parametrize(
    ("line", "aliases"),
    [
        ("from schemas.internal import PresenceReport", []),
        ("from hypothesis import strategies as st", []),
        ("from schemas.internal import PresenceReport as Report", ["PresenceReport as Report"]),
        ("import signal as signals", ["signal as signals"]),
    ],
)
def test_an_alias_is_found(line: str, aliases: list[str]) -> None:
    assert list(clashing_aliases(ast.parse(line))) == aliases


RETIRED = {
    r"parking\b|\bparked\b(?!-at)": "dead letter",
    r"(?i)(\b|_)patience\b": "timeout",
    r"\b(durable|fast) lane\b": "the sessions or the requests exchange",
}
"""Words that stood beside another one for the same thing, and the one that stayed."""

ON_THE_WIRE = ("`parked`", '"parked"', "parked:", "parked=")
"""How the field of ``workers.figures`` is written, whose name is that of older workers too."""


@pytest.mark.parametrize("word", RETIRED)
def test_a_thing_has_one_word(word: str) -> None:
    pages = (path for path in (ROOT / "docs").rglob("*.md"))
    code = (path for folder in ("consumer", "schemas", "infra") for path in sources(folder))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (*pages, *code)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(word, line) and not any(written in line for written in ON_THE_WIRE)
    ]
    assert not found, f"say {RETIRED[word]}: {found}"
