"""``mcp-sessions services``: the MCP servers that sessions can be opened on."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from consumer.cli import completing
from consumer.cli.command import Invocation, command
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import Row, answers, bar, duration, facts, say, state, table, tell_missing, write_json

group = typer.Typer(help="List and check the MCP servers of the workers.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="services")


ServiceArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE", help="The service's name; see 'services list'.", autocompletion=completing.service_names
    ),
]


@command(group, "list", epilog="Example: mcp-sessions services list --json")
async def list_services(invocation: Invocation) -> None:
    """List the services of the running workers, and how many sessions each has and may have.

    The services share the sessions of their workers: 'workers list' shows how many those may still open.
    A service is failing on a worker if its latest start for a session failed there with its present configuration.
    'services check' tries all.
    """
    from consumer.cli.failing import failing_on, tell_failing, with_failing

    async with invocation.client() as client:
        found, failing = await asyncio.gather(client.list_services(), failing_on(client))
    if invocation.json:
        write_json(with_failing(found, failing))
    elif found.services:
        rows: list[Row] = [
            [
                name,
                state("disabled" if not service.enabled else "failing" if name in failing else "enabled"),
                bar(
                    service.sessions,
                    service.max_sessions,
                    f"{service.sessions}/{service.max_sessions}",
                    full_is_bad=True,
                ),
                service.transport,
                service.description,
            ]
            for name, service in found.services.items()
        ]
        answers().print(table("SERVICE", "STATE", "SESSIONS", "BY", "DESCRIPTION", rows=rows))
        tell_failing(failing)
    else:
        say("The workers have no services. Configure one: see mcp-sessions config check")
    if not invocation.json:
        tell_missing(found.missing_workers)


@command(group, "tools", epilog="Example: mcp-sessions services tools todo")
async def service_tools(
    invocation: Invocation,
    service: ServiceArgument,
) -> None:
    """List the tools of a service without opening a session."""
    from consumer.cli.tools import tools_table

    async with invocation.client() as client:
        found = await client.service_tools(service)
    if invocation.json:
        write_json(found)
    elif found.tools:
        answers().print(tools_table(found.tools))
    else:
        say(f"The service {service} has no tools.")


@command(group, "describe", epilog="Example: mcp-sessions services describe todo")
async def describe_service(
    invocation: Invocation,
    service: ServiceArgument,
) -> None:
    """Describe the MCP server of a service without opening a session."""
    async with invocation.client() as client:
        found = await client.describe_service(service)
    if invocation.json:
        write_json(found)
        return
    info = found.server_info or {}
    answers().print(
        facts(
            ("service", found.service_name),
            ("server", " ".join(str(info[key]) for key in ("title", "name", "version") if key in info) or "unknown"),
            ("protocol", f"{found.protocol_version} ({found.era})"),
            ("capabilities", ", ".join(sorted(found.capabilities)) or "none"),
            ("instructions", found.instructions or "none"),
        )
    )


@command(group, "check", epilog="Example: mcp-sessions services check mcp-sessions.toml")
async def check_services(
    invocation: Invocation,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: the file that a worker here would read.")
    ] = None,
) -> None:
    """Start each enabled service once on this machine, and report success and duration. Needs no broker.

    Exit code 1 if one of them fails.
    """
    from consumer.processes.mcp_manager import MCPManager

    settings = (replace(invocation, config=file) if file else invocation).settings()
    started = time.monotonic()
    async with MCPManager({str(name): service for name, service in settings.services.items()}) as manager:
        checks = await manager.validate_services()
    took = time.monotonic() - started
    failed = sorted(name for name, check in checks.items() if check.error is not None)
    disabled = sorted(name for name in settings.services if name not in checks)
    if invocation.json:
        write_json({"services": {name: _as_json(check) for name, check in checks.items()}, "disabled": disabled})
    else:
        rows: list[Row] = [
            [name, state("fails" if check.error else "works"), duration(check.seconds), _found(check)]
            for name, check in checks.items()
        ]
        rows += [[name, state("disabled"), "", "not tried"] for name in disabled]
        answers().print(table("SERVICE", "STATE", "START", "FOUND", rows=rows))
        say(f"{len(checks) - len(failed)} of {len(checks)} work; tried in {duration(took)}.")
        for name, check in checks.items():
            if check.advice:
                say(f"{name}: {check.advice}.")
    if failed:
        raise typer.Exit(ExitCode.ERROR)


def _found(check: Any) -> str:
    if check.error is None:
        return f"{len(check.tools)} tools: {', '.join(tool['name'] for tool in check.tools)}"
    *before, last = str(check.error.details.get("stderr") or "").strip().splitlines() or [""]
    lines = before if last.strip() in check.error.message else [*before, last]  # the message has said the last one
    return "\n".join([f"{check.error.code.value}: {check.error.message}", *lines])


def _as_json(check: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"ok": check.error is None, "seconds": round(check.seconds, 3), "advice": check.advice}
    if check.error is None:
        return told | {"tools": check.tools}
    return told | {"error": check.error.body().model_dump(mode="json")}
