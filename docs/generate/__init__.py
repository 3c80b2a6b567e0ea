"""The parts of the documentation that the code knows better than people: written by it, kept equal by a test.

A page holds them between two comments; everything else on it is written by hand::

    <!-- generated: errors -->
    ...
    <!-- end -->

Beside the pages stands the contract for programs, which is generated as a whole: ``docs/asyncapi.json`` and a JSON
Schema of each message in ``docs/schemas``. The pictures of ``docs/performance.md`` are drawn from
``docs/figures.json``, as its tables are written from it.

``python -m docs.generate`` writes all of it anew, ``python -m docs.generate --check`` only tells what is outdated.
A message, field, setting or command that is new and about which nothing has been written stops it with a
``Undocumented`` that names it.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from docs.generate import client, commands, contract, http, metrics, performance, settings, wire

ROOT = Path(__file__).resolve().parents[2]

PARTS: dict[str, Callable[[], str]] = {
    **wire.PARTS,
    **settings.PARTS,
    **commands.PARTS,
    **client.PARTS,
    **contract.PARTS,
    **http.PARTS,
    **metrics.PARTS,
    **performance.PARTS,
}
"""What can stand on a page, by the name in its opening comment."""

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

_REGION = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]


def parts_of(text: str) -> Iterator[str]:
    """The names of the parts on a page."""
    return (found["name"] for found in _REGION.finditer(text))


def renewed(text: str) -> str:
    """The page with its generated parts as the code is now."""
    return _REGION.sub(lambda found: f"{found[1]}\n{PARTS[found['name']]().strip()}\n\n{found[4]}", text)


def renew() -> list[Path]:
    """Write whatever is outdated; returns what was."""
    found = list(outdated())
    for path, text in found:
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return [path for path, _ in found]


def outdated() -> Iterator[tuple[Path, str | None]]:
    """The files that differ from code and figures, each with what it should be; None when it should not be there."""
    for picture, drawing in performance.drawn():
        if not picture.exists() or picture.read_text(encoding="utf-8") != drawing:
            yield picture, drawing
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            yield page, new
    wanted = contract.files()
    for name, new in wanted.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding="utf-8") != new:
            yield path, new
    for path in sorted((ROOT / contract.SCHEMAS).glob("*")):
        if str(path.relative_to(ROOT)) not in wanted:
            yield path, None
