"""``mcp-sessions demo``."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import typer

from consumer.cli.command import Invocation, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", epilog="Example: mcp-sessions demo")(demo)


def demo(invocation: Invocation) -> None:
    """See it work."""
