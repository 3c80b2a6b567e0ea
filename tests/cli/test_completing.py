"""What Tab offers in bash, zsh and fish, on a real worker; and that it is silent without one."""

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.harness import Cluster
from tests.programs import PROGRAM

pytestmark = pytest.mark.timeout(240)  # each Tab is a program that is started

VARIABLE = "_MCP_SESSIONS_COMPLETE"
HOSTILE = "x';touch${IFS}gone;`touch gone`$(touch gone)\\$(touch gone)*"


PATIENT = f"""#!{sys.executable}
import consumer.cli.completing
from consumer.cli import main
consumer.cli.completing.BOUND = 20.0
main()
"""
"""``mcp-sessions`` for a busy machine, which may be slower than somebody who presses Tab."""


def patient(cli: Cli) -> str:
    path = cli.folder / "mcp-sessions"
    if not path.exists():
        path.write_text(PATIENT)
        path.chmod(0o755)
    return str(path)


async def offered(cli: Cli, line: str, *, program: str | None = None) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    more = {VARIABLE: "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    ran = await Cli(cli.folder, **cli.environment, **more)(program=(program or patient(cli),))
    assert (ran.code, ran.err) == (0, "")
    return ran.out.split()


async def described(cli: Cli, shell: str, line: str) -> str:
    """What zsh or fish is told."""
    more = {VARIABLE: f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    ran = await Cli(cli.folder, **cli.environment, **more)(program=(patient(cli),))
    assert (ran.code, ran.err) == (0, "")
    return ran.out


async def test_what_the_workers_have_is_offered(cli: Cli, mcp: Cluster):
    for session, service in (("call-1", "todo"), ("call-1#echo", "echo"), ("call-2", "echo"), ("other", "echo")):
        await mcp.client.create(session, service)
    worker = mcp.workers[0].worker_id
    before = (await mcp.client.list_sessions()).sessions["call-1"].last_accessed
    for line, words in {
        "sessions get call": ["call-1", "call-1#echo", "call-2"],
        "sessions list --call ": ["call-1", "call-2", "other"],
        "sessions list --worker ": [worker],
        "sessions list --service t": ["todo"],
        "sessions create new ": ["echo", "todo"],
        "tools call call-1 add": ["add_todo"],
        "tools call nobody --service todo li": ["list_todos"],
    }.items():
        assert await offered(cli, f"mcp-sessions {line}") == words, line
    assert (await mcp.client.list_sessions()).sessions["call-1"].last_accessed == before


async def test_what_needs_no_worker_is_offered_without_one(offline: Cli):
    for line, words in {
        "events rej": ["rejected"],
        "sessions create new todo --if-exists k": ["keep"],
        "worker --config mcp": [],  # the shell's own files
        "calls send mcp": [],
        "work": ["worker", "workers"],
    }.items():
        assert await offered(offline, f"mcp-sessions {line}") == words, line


async def test_options_that_were_typed_say_where_to_ask(cli: Cli, mcp: Cluster, offline: Cli):
    await mcp.client.create("call-1", "echo")
    for line in (
        f"mcp-sessions --url {mcp.url} --prefix {mcp.prefix} sessions get ",
        f"mcp-sessions sessions get --url {mcp.url} --prefix {mcp.prefix} ",
    ):
        assert await offered(offline, line) == ["call-1"]


async def test_zsh_and_fish_are_told_more(cli: Cli, mcp: Cluster):
    await mcp.client.create("call-1", "todo")
    assert "call-1\ttodo on" in await described(cli, "fish", "mcp-sessions sessions get ")
    assert '"call-1":"todo on' in await described(cli, "zsh", "mcp-sessions sessions get ")
    assert '"todo":"Things to do"' in await described(cli, "zsh", "mcp-sessions services tools ")
    assert await described(cli, "zsh", "mcp-sessions calls send ") == "_files\n"


async def test_ids_that_a_shell_would_obey_are_not_offered(cli: Cli, mcp: Cluster):
    await mcp.client.create(HOSTILE, "echo")
    await mcp.client.create("c-1@10.0.0.7:5060", "echo")
    assert await offered(cli, "mcp-sessions sessions get ") == ["c-1@10.0.0.7:5060"]
    for shell in ("zsh", "fish"):
        assert "touch" not in await described(cli, shell, "mcp-sessions sessions get ")


async def test_bash_completes_with_the_script_that_is_installed(cli: Cli, mcp: Cluster):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    await mcp.client.create("call-1", "echo")
    await mcp.client.create(HOSTILE, "echo")
    program = patient(cli)
    script = (
        f'eval "$({VARIABLE}=source_bash {program})"; COMP_WORDS=({program} sessions get ""); COMP_CWORD=3; '
        f"$(complete -p mcp-sessions | grep -o '_[a-z_]*completion') {program}; " + 'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = await cli("-euo", "pipefail", "-c", script, program=(bash,))
    assert (ran.code, ran.out, ran.err) == (0, "call-1\n", "")
    assert not (cli.folder / "gone").exists()


async def test_without_a_broker_or_a_worker_there_is_silence(
    offline: Cli, at: Callable[[str], Cli], prefix: str, tmp_path: Path
):
    (tmp_path / "broken.toml").write_text("[session")
    lines = (
        "mcp-sessions sessions get ",
        "mcp-sessions tools call call-1 ",
        "mcp-sessions services tools ",
        "mcp-sessions sessions get --config broken.toml ",
        "mcp-sessions sessions get --url nonsense ",
    )
    pressed = [offered(cli, line, program=str(PROGRAM)) for cli in (offline, at(prefix)) for line in lines]
    assert await asyncio.gather(*pressed) == [[]] * len(pressed)
