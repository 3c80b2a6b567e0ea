"""``mcp-sessions asyncapi``: prints the AsyncAPI document of all messages."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import sys
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.screen import say
from consumer.cli.topology import needed


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "asyncapi", epilog="Example: mcp-sessions asyncapi --output asyncapi.yaml")(asyncapi)


def asyncapi(
    invocation: Invocation,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML, the default.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file. A name with .json makes it JSON."),
    ] = None,
) -> None:
    """Print the AsyncAPI document: channels, operations, messages. Needs no broker.

    Names and servers are those of the configuration. The document contains no user and no password.
    """
    if yaml and invocation.json:
        raise typer.BadParameter("--json and --yaml exclude each other")
    from consumer.asyncapi import Server, as_json, as_yaml, document
    from consumer.broker.topology import Names

    settings = invocation.settings()
    server = Server.of_url(settings.amqp_url.get_secret_value())
    made = document(Names(settings.worker.prefix), needed(settings), server)
    json = invocation.json or (not yaml and output is not None and output.suffix == ".json")
    text = as_json(made) if json else as_yaml(made)
    if output is None:
        sys.stdout.write(text)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise typer.BadParameter(f"{output} cannot be written: {error.strerror}", param_hint="--output") from error
        say(f"{output}: {len(made['components']['messages'])} messages, {len(made['operations'])} operations")
