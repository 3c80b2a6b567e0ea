"""The reference of the command line, from the commands themselves."""

from collections.abc import Callable, Iterator
from typing import Any, get_args

import typer

from consumer.cli.app import app
from consumer.cli.command import Invocation
from docs.generate.markdown import code, table

Command = Any
"""A command or group of click, whichever of its forks typer brings."""

PROGRAM = "mcp-sessions"
EVERYWHERE = frozenset(Invocation.__dataclass_fields__)


def commands() -> Iterator[tuple[str, Command]]:
    """Every command that does something, with its words."""
    yield from _below(PROGRAM, typer.main.get_command(app))


def _below(words: str, command: Command) -> Iterator[tuple[str, Command]]:
    for name, inner in getattr(command, "commands", {}).items():
        if getattr(inner, "commands", None):
            if inner.invoke_without_command:
                yield f"{words} {name}", inner
            yield from _below(f"{words} {name}", inner)
        elif not inner.hidden:
            yield f"{words} {name}", inner


def reference() -> str:
    """A table for each command: what it does, what it takes."""
    return "\n\n".join(_section(words, command) for words, command in commands())


def _section(words: str, command: Command) -> str:
    own = [one for one in command.params if one.name not in EVERYWHERE | {"help", "context"}]
    arguments = " ".join(_argument(one) for one in own if one.param_type_name == "argument")
    options = [one for one in own if one.param_type_name == "option"]
    lines = [f"### {words}", f"`{' '.join(filter(None, (words, arguments)))}`", _text(command.help or "")]
    if options:
        rows = [(_option(one), _text(one.help or "")) for one in options]
        lines.append(table(("option", "meaning"), rows))
    if command.epilog:
        lines.append(f"Example: {code(command.epilog.removeprefix('Example: '))}")
    return "\n\n".join(lines)


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: Any) -> str:
    choices = " or ".join(str(one) for one in get_args(option.type_descriptor.annotation))
    return code(" ".join(filter(None, (option.opts[0], "" if option.is_flag else option.metavar or choices))))


def _text(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


PARTS: dict[str, Callable[[], str]] = {"commands": reference}
