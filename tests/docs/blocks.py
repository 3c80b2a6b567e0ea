"""The documentation as its tests read it: code blocks with what stands in the comments above them, spans, links.

What a comment above a block can say::

    <!-- not run: WHY -->          it is only read; the reason is for whoever wonders
    <!-- needs: PROGRAM -->        it is run where that program is
    <!-- prints: THIS, THAT -->    its output has these words
    <!-- then: EVENT SUBJECT -->   after it, this event comes, as ``session.created c-1``
    <!-- file: FILE -->            it is written to this file, in the folder where the worker of the page runs
    <!-- configures -->            TOML: the page is tried with this configuration
    <!-- message: TYPE -->         JSON that is the body of a request; likewise ``reply: TYPE``, ``event``,
                                  ``call event`` and ``config``; ``swml: SECTION`` is a part of a SWML document
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs.generate import pages
from tests.harness import ROOT

_COMMENT = re.compile(r"<!--\s*([a-z ]+?)(?::\s*(.*?))?\s*-->")
KNOWN = {
    "not run",
    "needs",
    "prints",
    "then",
    "file",
    "configures",
    "message",
    "reply",
    "event",
    "call event",
    "config",
    "swml",
}

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}
HANDMADE = [name for name in PAGES if name != "docs/servers.md"]
"""The pages whose blocks and names are looked after here."""


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    line: int
    language: str
    text: str
    says: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return not {"not run", "file"} & set(self.says)


@cache
def tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(PAGES[page].read_text(encoding="utf-8"))


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found: list[Block] = []
    comments = ""
    for token in tokens(page):
        if token.type == "html_block":
            comments += token.content
            continue
        if token.type == "fence":
            says = {what: told or "" for what, told in _COMMENT.findall(comments) if what not in ("generated", "end")}
            assert set(says) <= KNOWN, f"{page}: nobody understands {set(says) - KNOWN}"
            line = (token.map or [0])[0] + 1
            found.append(Block(page, line, token.info.strip(), token.content, says))
        comments = ""
    return found


def all_blocks(*languages: str) -> list[Block]:
    """The blocks in one of these languages on all pages, or all blocks."""
    return [block for page in HANDMADE for block in blocks(page) if not languages or block.language in languages]


def inline(page: str) -> Iterator[Token]:
    """Every piece of running text."""
    for token in tokens(page):
        yield from token.children or ()


def spans(page: str) -> set[str]:
    """What is set as code in running text."""
    return {token.content for token in inline(page) if token.type == "code_inline"}


def links(page: str) -> list[str]:
    """Where links lead."""
    return [str(token.attrs["href"]) for token in inline(page) if token.type == "link_open"]


def anchors(page: str) -> set[str]:
    """What a link into a page can name: its headings, as GitHub makes ids of them, and ids in its HTML."""
    found: set[str] = set()
    listed = tokens(page)
    for token, after in itertools.pairwise(listed):
        if token.type == "heading_open":
            text = "".join(child.content for child in after.children or () if child.type in ("text", "code_inline"))
            found.add(slug(text))
    return found | set(re.findall(r'id="([^"]+)"', Path(PAGES[page]).read_text(encoding="utf-8")))


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
