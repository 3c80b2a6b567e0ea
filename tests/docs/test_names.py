"""Every name that the documentation gives exists, and nothing that exists is missing from the references."""

import re
from pathlib import Path

import pytest

from consumer.asyncapi import schema_files
from consumer.broker.topology import Names, cluster_topology
from consumer.processes.service import Sandbox, Warm
from consumer.settings.broker_url import VARIABLES
from consumer.settings.environment import NOT_SETTINGS, PREFIX, variables
from consumer.telephony.registry import TRANSLATORS
from docs.generate import PARTS, outdated, parts_of
from docs.generate.commands import PROGRAM, commands
from schemas import internal
from schemas.errors import ClientErrorCode, ErrorCode
from schemas.events import EndReason, SessionEventType
from schemas.interim import INTERIM
from schemas.requests import REQUESTS
from tests.docs.blocks import HANDMADE, PAGES, anchors, inline, links, spans
from tests.harness import ROOT

pages = pytest.mark.parametrize("page", HANDMADE)

KINDS = {
    *REQUESTS,
    *INTERIM,
    *(one.type for one in vars(internal).values() if isinstance(getattr(one, "type", 0), str)),
}
EVENTS = {f"session.{one.value}" for one in SessionEventType} | {"worker.started", "worker.draining", "worker.stopped"}
SETTINGS = {".".join(map(str, keys)) for keys in variables().values()}
SCHEMAS = {name.removesuffix(".json") for name in schema_files()}
TABLES = {f"sandbox.{key}" for key in Sandbox.model_fields} | {f"warm.{key}" for key in Warm.model_fields}
LOGGED = {
    name
    for path in (ROOT / "consumer").rglob("*.py")
    for name in re.findall(
        r'(?:\.(?:debug|info|warning|error|exception)|\bsay|\bgetattr\(log, level\))\(\s*"([a-z_]+\.[a-z_]+)"',
        path.read_text(),
    )
}
FILES = {path.name for folder in ("consumer", "schemas", "tests") for path in (ROOT / folder).rglob("*.py")}
FAMILIES = {name.partition(".")[0] for name in KINDS | EVENTS | SETTINGS | LOGGED}
NOT_NAMES = {
    "session.record",
    "manager.conf",
    "asterisk.conf",
    "call.initiated",
    "call.answered",
    "call.bridged",
    "call.hangup",
    "call.call_id",
}
"""Spans that look like a message, an event or a setting and are none."""

FROM_ELSEWHERE = {
    *("TAP", "CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY"),
    *(
        "PATH",
        "PORT",
        "HOME",
        "TMPDIR",
        "PYTHONPATH",
        "NODE_PATH",
        "JAVA_HOME",
        "LANG",
        "TERM",
        "SOURCE",
        "TRANSLATORS",
        "PLATFORMS",
        "SHAPES",
        "SCHEMES",
        "WINDOW",
        "REQUESTS",
        "RESULTS",
        "ASTERISK",
        "PYTHON",
        "RUNNERS",
        "RABBITMQ_SERVER",
        "NAME",
        "MEMORY_FILE_PATH",
        "PACKAGE",
        "PACKAGES",
    ),
    *("CHAN_START", "CHAN_END", "ANSWER", "HANGUP"),
    *("PRECONDITION_FAILED", "ACCESS_REFUSED"),
}
"""Words in capitals that are neither error codes nor variables of ours."""


def test_the_generated_parts_are_as_the_code_is():
    found = [str(page.relative_to(ROOT)) for page, _ in outdated()]
    assert not found, f"run python -m docs.generate: {', '.join(found)} is not what the code says"


def test_every_generated_part_is_on_a_page():
    used = {name for page in PAGES.values() for name in parts_of(page.read_text())}
    assert used == set(PARTS)


def test_every_log_event_is_explained():
    page = PAGES["docs/operations/log-events.md"].read_text()
    explained = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", page, flags=re.MULTILINE)
    assert sorted(explained) == sorted(LOGGED)


def test_the_references_are_complete():
    wire = PAGES["docs/wire.md"].read_text()
    for name in [*KINDS, *(f"mcp.{event}" for event in EVENTS), *(code.value for code in ErrorCode), *EndReason]:
        assert f"`{name}`" in wire, f"docs/wire.md says nothing about {name}"
    for one in cluster_topology(Names()).exchanges + cluster_topology(Names()).queues:
        assert f"`{one.name}`" in wire
    for translator in TRANSLATORS:
        assert f"`{translator.SOURCE}`" in wire
    settings = PAGES["docs/configuration.md"].read_text()
    for name in [*variables(), *VARIABLES, NOT_SETTINGS[0]]:
        assert f"`{name}`" in settings, f"docs/configuration.md says nothing about {name}"
    cli = PAGES["docs/cli.md"].read_text()
    for words, _ in commands():
        assert f"### {words}\n" in cli


@pages
def test_names_in_the_text_exist(page: str):
    for span in spans(page):
        assert known(span), f"{page} names {span!r}, which does not exist"


def known(span: str) -> bool:
    """Whether a span that looks like a name of ours is one."""
    if span in FILES:
        return True
    if re.fullmatch(r"[a-z]+\.[a-z_]+", span) and span.partition(".")[0] in FAMILIES:
        return span in KINDS | EVENTS | SETTINGS | TABLES | LOGGED | SCHEMAS | NOT_NAMES
    if found := re.fullmatch(r"mcp\.((?:session|worker)\.[a-z]+)", span):
        return found[1] in EVENTS
    if re.fullmatch(r"mcp\.[a-z]+", span):
        return span in {one.name for one in cluster_topology(Names()).exchanges + cluster_topology(Names()).queues}
    if re.fullmatch(r"[A-Z][A-Z_]{3,}", span):
        variables_ = {*variables(), *VARIABLES, *NOT_SETTINGS}
        return (
            span in ErrorCode.__members__
            or span in ClientErrorCode.__members__
            or span in variables_
            or span in FROM_ELSEWHERE
        )
    if span.startswith(PREFIX):
        return (
            span in {f"{PREFIX}{part}<NAME>" for part in ("", "GATEWAY_", "ASTERISK_")}
            or span.partition("=")[0] in variables()
        )
    if span.startswith(f"{PROGRAM} "):
        words = span.split()
        return "--" in span or any(path.split() == words[: len(path.split())] for path, _ in commands())
    if re.match(r"(consumer|schemas|tests|docs|infra|scripts)/[\w./-]+$", span):
        return (ROOT / span).exists()
    return True


@pages
def test_links_lead_somewhere(page: str):
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert target.exists() or target == ROOT / "docs" / "servers.md", f"{page}: {link} leads nowhere"
        name = str(target.relative_to(ROOT))
        if anchor and name in PAGES:
            assert anchor in anchors(name), f"{page}: {name} has no #{anchor}; it has {sorted(anchors(name))}"


@pages
def test_pictures_are_there(page: str):
    for token in inline(page):
        if token.type == "image" and not (source := str(token.attrs["src"])).startswith("https://"):
            assert (PAGES[page].parent / source).exists(), f"{page}: there is no {source}"


@pages
def test_nothing_of_the_workshop_is_on_a_page(page: str):
    text = PAGES[page].read_text()
    assert f"{ROOT}/" not in text
    assert str(Path.home()) not in text
    assert "TODO" not in text


def test_the_readme_can_be_read_in_one_sitting():
    assert len(PAGES["README.md"].read_text().splitlines()) <= 300
