"""Builds the documentation as a site in ``build/site``, strictly, with everything it needs.

``python infra/website.py`` builds it, ``python infra/website.py serve`` shows it as the pages are now. Mermaid, which
draws the pictures, comes from npm as the validators do, and is put into the site.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from infra import npm  # noqa: E402

INFRA = ROOT / "infra"
DOCS = ROOT / "docs"
BUILD = ROOT / "build"
MERMAID = "@mermaid-js/tiny/dist/mermaid.tiny.js"
BUILD_TIMEOUT = 120.0

_FETCHED = re.compile(
    r"""<(?:script|img|iframe|link\s+rel="(?:stylesheet|preconnect)")[^>]*?["'](?:https?:)?//[^"']*"""
)


def faults(docs: Path = DOCS, build: Path = BUILD) -> Iterator[str]:
    """Yield the faults of the pages: broken links, pages in no menu, and anything fetched from elsewhere."""
    try:
        prepare(docs, build)
    except npm.NpmFailed as error:
        yield f"infra/node: npm cannot install what package-lock.json says: {error}"
        return
    done = subprocess.run(
        _zensical(build, "build", "--strict", "--clean"),
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT,
    )
    if done.returncode:
        yield f"docs: {_plain(done.stdout)}{_plain(done.stderr).partition('Traceback')[0]}"
        return
    yield from incomplete(build / "site")


def incomplete(site: Path) -> Iterator[str]:
    """Yield what the pages of a built site would fetch from elsewhere, and the pages in no menu."""
    menu = set(re.findall(r'href="([^"#]+\.html)', (site / "index.html").read_text(encoding="utf-8")))
    for page in sorted(site.rglob("*.html")):
        name = page.relative_to(site).as_posix()
        for found in _FETCHED.findall(page.read_text(encoding="utf-8")):
            yield f"docs: {name} fetches {found.rpartition('//')[2]}"
        if name != "404.html" and not {name, f"./{name}"} & menu:
            yield f"docs: no menu leads to {name}; see docs/.nav.yml"


def prepare(docs: Path = DOCS, build: Path = BUILD) -> None:
    """Put the files of the site beside the pages into ``build``.

    Without npm the diagrams stay text, and a note says so.

    Raises:
        NpmFailed: npm cannot install Mermaid.
    """
    for name in ("docs", "theme"):
        shutil.rmtree(build / name, ignore_errors=True)
    shutil.copytree(docs, build / "docs", ignore=shutil.ignore_patterns("*.py", "generate", "__pycache__"))
    shutil.copytree(INFRA / "theme", build / "theme")
    shutil.copy(INFRA / "mkdocs.yml", build)
    script = build / "theme" / "javascripts" / "mermaid.js"
    script.parent.mkdir()
    if npm.available():
        shutil.copy(npm.package_file(MERMAID), script)
    else:
        print("docs: the site has no diagrams, because npm is missing", file=sys.stderr)
        script.write_text("window.mermaid = { initialize() {}, async render(id, text) { throw new Error(text) } }\n")


def _zensical(build: Path, command: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "zensical", command, "--config-file", str(build / "mkdocs.yml"), *options]


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def main() -> int:
    """Build the site, or show it."""
    if sys.argv[1:] == ["serve"]:
        prepare()
        return subprocess.run(_zensical(BUILD, "serve"), check=False).returncode
    found = list(faults())
    print("\n".join(found) or "built build/site: nothing to complain about")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
