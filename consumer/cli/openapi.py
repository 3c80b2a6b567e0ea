"""``mcp-sessions openapi``: prints the OpenAPI document of the HTTP gateway."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import sys
from typing import Annotated

import typer

from consumer.cli.command import Invocation, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "openapi", epilog="Example: mcp-sessions openapi > openapi.yaml")(openapi)


def openapi(
    invocation: Invocation, yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML, the default.")] = False
) -> None:
    """Print the OpenAPI document of the HTTP gateway: paths, bodies, statuses. Needs no broker."""
    if yaml and invocation.json:
        raise typer.BadParameter("--json and --yaml exclude each other")
    from consumer.asyncapi import as_json, as_yaml
    from consumer.gateway.openapi import document

    sys.stdout.write((as_json if invocation.json else as_yaml)(document()))
