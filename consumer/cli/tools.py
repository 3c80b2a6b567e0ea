"""``mcp-sessions tools``: lists and calls the tools of a session's MCP server."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from consumer.cli import completing
from consumer.cli.command import Invocation, command
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import answers, say, table, write_json, write_text
from consumer.cli.sessions import SessionArgument
from consumer.cli.typed_values import tool_arguments, wants_schema

if TYPE_CHECKING:
    from consumer.client import SessionClient
    from schemas.mcp import Tool
    from schemas.replies import ToolCallResult

group = typer.Typer(help="List and call the tools of a session.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="tools")


DEFAULT_TIMEOUT = 30.0


@command(group, "list", epilog="Example: mcp-sessions tools list my-call")
async def list_tools(
    invocation: Invocation,
    session_id: SessionArgument,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="SERVICE",
            help="One of the call's services. Default: its first.",
            autocompletion=completing.service_names,
        ),
    ] = None,
) -> None:
    """List the tools of a session."""
    async with invocation.client() as client:
        found = await client.list_tools(session_id, service_name=service)
    if invocation.json:
        write_json(found)
    elif found.tools:
        answers().print(tools_table(found.tools))
    else:
        say("This session's server has no tools.")


@command(group, "call", epilog="Example: mcp-sessions tools call my-call add_todo text='call back'")
async def call_tool(
    invocation: Invocation,
    session_id: SessionArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The tool.", autocompletion=completing.tool_names)],
    given: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="A JSON object, or key=value pairs.")
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="SERVICE",
            help="Open a session of this service if there is none.",
            autocompletion=completing.service_names,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for the result.")] = (
        DEFAULT_TIMEOUT
    ),
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Idempotency key. The tool runs once for a key, as long as the call stays with its owner.",
        ),
    ] = None,
) -> None:
    """Call a tool of a session and print the result.

    The tool's input schema decides the type of a value in key=value. Without a type there, the value is text.
    """
    arguments = tool_arguments(given or [])  # a mistake in them needs no broker
    async with invocation.client() as client:
        if wants_schema(given or []):
            schema = await _input_schema(client, session_id, name, service)
            arguments = tool_arguments(given or [], schema)
        result = await client.call_tool(
            session_id, name, arguments, service_name=service, timeout=timeout, idempotency_key=key
        )
    if invocation.json:
        write_json(result)
    else:
        write_text(result.text or _structured(result))
    if result.is_error:
        if not invocation.json:
            say(f"{name} answered with an error.", style="red")
        raise typer.Exit(ExitCode.ERROR)


def tools_table(tools: "Sequence[Tool]") -> Table:
    """Return a table of tools with their arguments."""
    rows = [[_signature(tool), (tool.description or tool.title or "").strip()] for tool in tools]
    return table("TOOL", "WHAT IT DOES", rows=rows)


def _signature(tool: "Tool") -> str:
    schema = tool.input_schema
    properties = schema.get("properties") if isinstance(schema, dict) else None
    required = schema.get("required") if isinstance(schema, dict) else None
    names = list(properties) if isinstance(properties, dict) else []
    needed = required if isinstance(required, list) else []
    return f"{tool.name}({', '.join(name if name in needed else f'{name}?' for name in names)})"


async def _input_schema(
    client: "SessionClient", session_id: str, name: str, service: str | None
) -> dict[str, Any] | None:
    """Return the input schema of a tool.

    With a ``service`` it comes from the service's list, which opens no session.
    """
    found = await (client.service_tools(service) if service else client.list_tools(session_id))
    schema = next((tool.input_schema for tool in found.tools if tool.name == name), None)
    return schema if isinstance(schema, dict) else None


def _structured(result: "ToolCallResult") -> str:
    """Return the text to show for a result without text."""
    shown = result.structured_content or result.content or "(no content)"
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, indent=2)
