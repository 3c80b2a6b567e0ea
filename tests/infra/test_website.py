"""The site of the documentation is complete in itself, and its check finds what is wrong."""

import shutil
from pathlib import Path

import pytest

from infra import website

pytestmark = pytest.mark.timeout(300)  # npm may have to install


def test_the_site_can_be_built_and_is_complete(tmp_path: Path) -> None:
    assert list(website.faults(build=tmp_path)) == []
    assert (tmp_path / "site" / "schemas" / "tools.call.json").exists()
    site = tmp_path / "site"
    assert not list(site.rglob("*.py"))
    # Mermaid comes with the pages that have pictures, and with no others.
    assert '<script src="./javascripts/mermaid.js">' in (site / "concepts.html").read_text()
    assert "mermaid.js" not in (site / "cli.html").read_text()
    assert "mermaid" in (site / "javascripts" / "mermaid.js").read_text()


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(website.DOCS, docs)
    (docs / "cli.md").write_text("# Command line\n\n[gone](nowhere.md)\n")
    (fault,) = website.faults(docs, tmp_path / "build")
    assert "cli.md:3" in fault
    assert "does not exist" in fault


@pytest.mark.parametrize(
    "found",
    [
        '<script src="https://cdn.example/mermaid.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img alt="a" src="http://pictures.example/a.png">',
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_told(tmp_path: Path, found: str) -> None:
    (tmp_path / "index.html").write_text(f'<a href="./index.html">Home</a>{found}<a href="https://ok.example/">out</a>')
    (fault,) = website.incomplete(tmp_path)
    assert "index.html fetches" in fault


def test_a_page_that_no_menu_leads_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<a href="./index.html">Home</a>')
    (tmp_path / "lonely.html").write_text("nobody comes here")
    (fault,) = website.incomplete(tmp_path)
    assert fault == "docs: no menu leads to lonely.html; see docs/.nav.yml"
