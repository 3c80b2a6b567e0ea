"""The core stands alone: its docstring's example runs, and no other room's library comes with it."""

import ast
import inspect
import subprocess
import sys
import textwrap

import pytest

import consumer.sessions
from consumer.sessions import SessionManager

from .processes import Child


async def test_the_example_of_the_docstring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert consumer.sessions.__doc__ is not None
    example = consumer.sessions.__doc__.partition("::\n\n")[2].partition("\n\nModules:")[0]
    code = compile(textwrap.dedent(example), "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, {"SessionManager": SessionManager, "start": Child.start})
    assert inspect.iscoroutine(running)
    await running
    printed = capsys.readouterr().out
    assert "SessionCreated" in printed
    assert "SessionEnded" in printed


def test_it_imports_neither_a_broker_nor_mcp() -> None:
    code = "import sys, consumer.sessions; print({'aio_pika', 'aiormq', 'mcp', 'structlog'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"
