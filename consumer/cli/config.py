"""``mcp-sessions config``: checks a configuration before a worker uses it."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.screen import answers, facts, say, state, table, warn, write_json

group = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="config")


@command(group, "check", epilog="Example: mcp-sessions config check mcp-sessions.toml")
def check(
    invocation: Invocation,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: the file that a worker here would read.")
    ] = None,
) -> None:
    """Read a configuration like a worker, and print its summary or all its faults.

    Exit code 2 if there is a fault. Secrets are not shown. The command also reads SignalWire's config.json.
    """
    from consumer.calls.routes import odd_sources
    from consumer.processes.service import missing_file
    from consumer.settings import ConfigurationError, Fault, describe
    from consumer.settings.gateway_settings import certificate_problem
    from consumer.telephony import SOURCES

    settings = (replace(invocation, config=file) if file else invocation).settings()
    if problem := certificate_problem(settings.gateway):
        raise ConfigurationError([Fault(*problem)], settings.warnings)
    told = describe(settings)
    for number, route in enumerate(settings.routes):
        told["warnings"] += [f"routes[{number}].match.{odd}" for odd in odd_sources(route, SOURCES)]
    if invocation.json:
        write_json(told)
        return
    screen = answers()
    worker = told["worker"]
    screen.print(
        facts(
            ("file", told["path"] or "none"),
            ("broker", told["broker"]),
            ("prefix", worker["prefix"]),
            *((key, _text(_UNSET[key] if worker[key] is None else worker[key])) for key in _OF_WORKER),
            ("gateway", _address(told["gateway"])),
            ("lets in", "\n".join(told["gateway"]["credentials"]) or "everybody on this machine"),
            *([("asterisk", _pbx(told["asterisk"]))] if told["asterisk"]["user"] else []),
            *((key, f"{value:g}") for key, value in told["session"].items() if isinstance(value, int | float)),
        )
    )
    screen.print()
    missing = {name for name, service in settings.services.items() if missing_file(service)}
    screen.print(table("SERVICE", "STATE", "SERVER", "ROUTES", rows=_services(told, missing)))
    for warning in told["warnings"]:
        warn(warning)
    say("The configuration is good.", style="green")


_OF_WORKER = ("worker_id", "grace", "drain", "drain_timeout", "connect_timeout", "http_port", "log_level")
"""The worker's settings in the summary. ``--json`` has all."""

_UNSET = {"worker_id": "a new one at each start", "http_port": "none"}
"""The text for settings that are not set."""


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _address(gateway: dict[str, Any]) -> str:
    scheme = "https" if gateway["tls_cert"] else "http"
    host = f"[{gateway['listens_on']}]" if ":" in gateway["listens_on"] else gateway["listens_on"]
    public = f", as {gateway['public_url']}" if gateway["public_url"] else ""
    return f"{scheme}://{host}:{gateway['port']}{public}"


def _pbx(asterisk: dict[str, Any]) -> str:
    if asterisk["url"].startswith("http"):
        heard = "all channels" if asterisk["subscribe_all"] else "its channels"
        return f"{asterisk['url']} as {asterisk['user']}, application {asterisk['app']}, {heard}"
    return f"{asterisk['url']} as {asterisk['user']}"


def _services(told: dict[str, Any], missing: Collection[str]) -> list[list[Any]]:
    routes: list[dict[str, Any]] = told["routes"]
    return [
        [
            name,
            state("disabled" if not service["enabled"] else "missing" if name in missing else "ok"),
            service["url"] or " ".join(service["command"]),
            _routes_to(name, routes) if routes else "every call",
        ]
        for name, service in told["services"].items()
    ]


def _routes_to(service: str, routes: list[dict[str, Any]]) -> str:
    matches = [
        " ".join(f"{key}={'|'.join(patterns)}" for key, patterns in route["match"].items()) or "every call"
        for route in routes
        if service in route["services"]
    ]
    return "\n".join(matches) or "none"
