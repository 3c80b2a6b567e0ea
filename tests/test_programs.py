"""A fork is what a new interpreter would be: the same words, codes and ends."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import psutil
import pytest

from tests.programs import PROGRAM, WORKER, ForkedProcess, ForkServer, output_of, start
from tests.stand_ins import stand_in

both = pytest.mark.parametrize("anew", [False, True], ids=["forked", "anew"])


async def ran(*command: str | Path, anew: bool, cwd: Path, **env: str) -> tuple[int | None, str, str]:
    process = await start(*command, env=os.environ | env, cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, anew=anew)
    assert isinstance(process, ForkedProcess) is not anew
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("command", "code"),
    [((PROGRAM, "--version"), 0), ((PROGRAM, "sessions", "list", "--nonsense"), 2), ((*WORKER, "--nonsense"), 2)],
)
async def test_what_it_says_and_its_exit_code_are_the_same(command: tuple[str, ...], code: int, tmp_path: Path):
    forked, anew = [await ran(*command, anew=anew, cwd=tmp_path) for anew in (False, True)]
    assert forked == anew
    assert forked[0] == code


@both
async def test_it_has_the_environment_the_folder_and_the_input_that_it_was_given(anew: bool, tmp_path: Path):
    (tmp_path / "here.toml").write_text("[worker]\ngrace = 7\n")
    env = {"MCP_SESSIONS_CONFIG": "here.toml", "MCP_SESSIONS_TOMBSTONE": "8"}
    code, out, err = await ran(PROGRAM, "config", "check", "--json", anew=anew, cwd=tmp_path, **env)
    assert code == 0, err
    worker = json.loads(out)["worker"]
    assert (worker["grace"], worker["tombstone"]) == (7, 8)


@both
async def test_a_script_of_this_python_is_run_with_its_arguments(anew: bool, tmp_path: Path):
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\nimport sys\nprint(__name__, *sys.argv[1:])\nsys.exit(3)\n")
    script.chmod(0o755)
    assert await ran(script, "one", "two", anew=anew, cwd=tmp_path) == (3, "__main__ one two\n", "")


async def test_another_environment_of_the_interpreter_needs_another_interpreter(tmp_path: Path):
    env = os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"}
    process = await start(PROGRAM, "--version", env=env, cwd=tmp_path, stdout=DEVNULL)
    assert not isinstance(process, ForkedProcess)
    assert await process.wait() == 0


@both
async def test_a_signal_ends_it_and_is_its_exit_code(anew: bool, tmp_path: Path):
    env = {"AMQP_URL": "amqp://127.0.0.1:1/"}
    process = await start(*WORKER, env=os.environ | env, cwd=tmp_path, stderr=PIPE, anew=anew)
    assert process.stderr is not None
    assert psutil.Process(process.pid).is_running()
    process.kill()
    assert await process.wait() == process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
    with contextlib.suppress(ProcessLookupError):  # from Python 3.15 on nothing is raised
        process.kill()
    await process.stderr.read()


async def test_a_stand_in_is_what_it_stands_for(tmp_path: Path):
    """Whoever runs it: here a shell, with a pipe on either side."""
    script, beside = tmp_path / "script", tmp_path / "beside"
    lines = ("import os, sys", "print(*sys.argv[1:], sys.stdin.read(), os.environ['OWN'], os.getcwd())", "sys.exit(3)")
    script.write_text("\n".join((f"#!{sys.executable}", *lines)))
    script.chmod(0o755)
    async with stand_in(beside, script, "one"):
        piped = f"cd / && printf in | OWN=own {beside} 'two words' | cat; exit ${{PIPESTATUS[1]}}"
        shell = await start("bash", "-c", piped, stdout=PIPE)
        out, _ = await output_of(shell, 60)
        assert out == b"one two words in own /\n"
    assert shell.returncode == 3


async def test_it_is_ready_without_keeping_the_loop_and_ends_with_the_fork_server(tmp_path: Path):
    server = ForkServer()
    env = os.environ | {"AMQP_URL": "amqp://127.0.0.1:1/"}
    importing = asyncio.create_task(server.ready())
    await asyncio.sleep(0)
    assert not importing.done(), "the loop is free meanwhile"
    await importing
    worker = psutil.Process(server.fork(["consumer", "worker"], env, str(tmp_path), [0, 1, 2]))
    server.close()
    psutil.wait_procs([worker], timeout=15)
    assert not worker.is_running()
