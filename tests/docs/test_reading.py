"""What the documentation shows and is not run can be read, loaded and parsed, and names what exists."""

import json
import re
import shlex
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from consumer.settings import Settings, load_settings
from consumer.settings.gateway_settings import PUBLISHED
from consumer.telephony import Translated, translate
from docs.generate.commands import commands
from schemas.events import CloudEvent
from schemas.replies import parse_reply
from schemas.requests import REQUESTS, parse_request
from tests.docs.blocks import PAGES, Block, all_blocks, spans, tokens
from tests.harness import ROOT

LANGUAGES = {"python", "sh", "js", "json", "toml", "xml", "mermaid", "text"}
NOT_OURS = {
    "npm",
    "uv",
    *(
        "amqp-publish",
        "bash",
        "cd",
        "curl",
        "docker",
        "swaig-test",
        "git",
        "heroku",
        "install",
        "kubectl",
        "pip",
        "python",
    ),
    *("rabbitmqadmin", "source", "systemctl", "/opt/mcp-sessions/bin/pip"),
}
"""Programs that a reader has or installs."""


def each(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", all_blocks(*languages), ids=lambda block: block.where)


def test_every_block_says_what_it_is():
    for block in all_blocks():
        assert block.language in LANGUAGES, f"{block.where} is {block.language!r}"


@pytest.mark.parametrize("page", [name for name in PAGES if name.startswith("docs/guides/")])
def test_a_guide_is_wrapped(page: str):
    lines = PAGES[page].read_text().splitlines()
    prose = [token.map for token in tokens(page) if token.type == "paragraph_open" and token.map]
    numbers = [number for first, last in prose for number in range(first, last)]
    assert [f"{page}:{number + 1}" for number in numbers if len(lines[number]) > 120] == []


@each("toml")
def test_a_toml_block_is_a_configuration(block: Block, tmp_path: Path):
    path = tmp_path / "mcp-sessions.toml"
    path.write_text(block.text)
    settings = load_settings(path, env={})
    assert {str(name) for name in settings.services} == set(tomllib.loads(block.text).get("services", {}))
    assert knows_its_secrets(settings), f"{block.where}: who copies its secrets is not warned"


def knows_its_secrets(settings: Settings) -> bool:
    """Whether the gateway knows that everybody can read the secrets of a configuration in the documentation."""
    return {name for name in PUBLISHED if getattr(settings.gateway, name)} == set(settings.gateway.published)


@each("json")
def test_a_json_block_is_what_is_said_of_it(block: Block, tmp_path: Path):
    body = block.text.encode()
    match block.says:
        case {"message": kind}:
            parse_request(kind, body)
        case {"reply": kind}:
            assert kind in REQUESTS
            parse_reply(body)
        case {"event": _}:
            CloudEvent.model_validate_json(body)
        case {"call event": _}:
            assert isinstance(translate(body), Translated)
        case {"config": _}:
            path = tmp_path / "config.json"
            path.write_text(block.text)
            settings = load_settings(path, env={})
            assert settings.services
            assert knows_its_secrets(settings), f"{block.where}: who copies its secrets is not warned"
        case {"swml": section}:
            assert section in json.loads(body)
        case _:
            pytest.fail(f"{block.where} does not say what it is")


@each("xml")
def test_an_xml_block_is_well_formed(block: Block):
    ET.fromstring(block.text)


@each("python")
def test_a_python_block_is_python(block: Block):
    compile(block.text, block.where, "exec")


@each("js")
def test_a_javascript_block_is_javascript(block: Block, tmp_path: Path):
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node")
    path = tmp_path / "block.js"
    path.write_text(block.text)
    subprocess.run([node, "--check", str(path)], check=True, timeout=30)


@each("mermaid")
def test_a_picture_is_a_flow_or_a_sequence(block: Block):
    lines = [line.strip() for line in block.text.splitlines() if line.strip()]
    assert re.match(r"flowchart (LR|TB)|sequenceDiagram", lines[0])
    assert sum(line.startswith("subgraph") for line in lines) == lines.count("end")
    assert block.text.count("[") == block.text.count("]")


# Shell.


def command_lines(block: Block) -> list[list[str]]:
    """The commands of a block, without variables that are set for one of them."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            while re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            found.append(words)
    return found


def shell_blocks() -> list[Block]:
    return all_blocks("sh")


@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: block.where)
def test_the_commands_of_a_shell_block_exist(block: Block):
    if "-d '" in block.text and "\n" in block.text.partition("-d '")[2]:
        return  # a quoted text over several lines, for curl
    for words in command_lines(block):
        if words[0] == "mcp-sessions":
            assert known_command(words), f"{block.where}: there is no {' '.join(words)}"
        elif words[0].startswith(("scripts/", "infra/")):
            assert executable(ROOT / words[0]), f"{block.where}: {words[0]} is no program"
        else:
            assert words[0] in NOT_OURS, f"{block.where}: what is {words[0]}?"


def known_command(words: list[str]) -> bool:
    """Whether there is such a command, and it has such options."""
    for path, command in commands():
        parts = path.split()
        if words[: len(parts)] == parts:
            options = {one for parameter in command.params for one in (*parameter.opts, *parameter.secondary_opts)}
            return all(word.partition("=")[0] in options for word in words if word.startswith("--"))
    return False


def executable(path: Path) -> bool:
    return path.is_file() and bool(path.stat().st_mode & stat.S_IXUSR)


def test_the_scripts_that_the_readme_names_are_there():
    named = set(re.findall(r"`(scripts/\w+)`", (ROOT / "README.md").read_text()))
    assert {f"scripts/{name}" for name in ("setup", "check", "test", "demo", "bench")} <= named
    assert all(executable(ROOT / name) for name in named)


def asked_of_scripts_test(page: str) -> list[list[str]]:
    """The arguments of ``scripts/test`` wherever the page shows it."""
    shown = [
        *spans(page),
        *(line for block in all_blocks("sh") if block.page == page for line in block.text.splitlines()),
    ]
    found = [shlex.split(line.partition("scripts/test")[2], comments=True) for line in shown if "scripts/test" in line]
    return [arguments for arguments in found if arguments]


def test_what_scripts_test_is_shown_to_run_is_there():
    modes = set(re.findall(r'"\$\{1:-\}" == (\w+)', (ROOT / "scripts" / "test").read_text()))
    shown = [one for page in PAGES if page != "CHANGELOG.md" for one in asked_of_scripts_test(page)]
    assert {"faults", "simulate", "-m", "tests/broker"} <= {first for first, *_ in shown}
    for first, *others in shown:
        assert first.startswith("-") or first in modes or (ROOT / first).exists(), f"scripts/test {first}"
        assert [one for one in others if "/" in one and not (ROOT / one).exists()] == []


def test_the_variables_of_app_json_are_read():
    """What the README says of Heroku is true of its files."""
    table = json.loads((ROOT / "app.json").read_text())
    env = {name: value["value"] for name, value in table["env"].items() if "value" in value}
    env |= {name: "made-by-heroku" for name, value in table["env"].items() if value.get("generator") == "secret"}
    settings = load_settings(None, env=env | {"PORT": "5000"})
    assert settings.session.max_total_sessions == 6
    assert (settings.gateway.listens_on, settings.gateway.port) == ("0.0.0.0", 5000)
    assert (ROOT / "Procfile").read_text().splitlines()[0] == "worker: python -m consumer"
