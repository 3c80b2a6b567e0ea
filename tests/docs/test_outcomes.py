"""The page about observability lists every outcome that a delivery's log line can have, and no other."""

import ast
import re
from collections.abc import Iterator

from tests.docs.blocks import PAGES
from tests.harness import ROOT


def listed() -> set[str]:
    page = PAGES["docs/operations/observability.md"].read_text()
    table = page.split("| outcome | what became of the message |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def words_of(value: ast.expr) -> Iterator[str]:
    yield from (one.value for one in ast.walk(value) if isinstance(one, ast.Constant) and isinstance(one.value, str))


def outcomes() -> set[str]:
    """What the code gives as ``what`` of an outcome; the code of a failed tool call is told as ``failed``."""
    found = {"failed", "tool_error"}
    for file in (ROOT / "consumer" / "broker" / "outcome.py", *(ROOT / "consumer" / "calls").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Done" | "Forward" | "field" as called), keywords=keywords):
                    wanted = ("default",) if called == "field" else ("what",)
                    given = [one.value for one in keywords if one.arg in wanted]
                case ast.Assign(targets=[ast.Name(id="what")], value=value):
                    given = [value]
                case ast.AnnAssign(target=ast.Name(id="what"), value=ast.Constant() as value):
                    given = [value]
                case _:
                    continue
            for value in given:
                found |= set(words_of(value.body) if isinstance(value, ast.IfExp) else ()) - {"ok"}
                found |= set(words_of(value.orelse) if isinstance(value, ast.IfExp) else ())
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.add(value.value)
    return found


def test_every_outcome_is_listed_and_no_other():
    assert listed() == outcomes()
