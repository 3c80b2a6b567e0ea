"""``mcp-sessions bridge``: processes beside a telephony system that publish what it tells."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.command import Invocation, command

if TYPE_CHECKING:
    from consumer.settings import Settings

group = typer.Typer(help="Bridges, which publish the call events of a telephony system.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="bridge")


@command(group, "asterisk", epilog="Example: mcp-sessions bridge asterisk --pbx http://localhost:8088 --user ari")
def asterisk(
    invocation: Invocation,
    pbx: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The address of Asterisk: http(s):// for ARI, tcp:// or tls:// for AMI."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="The Asterisk user. The password is a setting.")
    ] = None,
    application: Annotated[str | None, typer.Option("--app", metavar="NAME", help="The ARI application.")] = None,
) -> None:
    """Publish the call events of an Asterisk until SIGTERM or Ctrl-C, from ARI's WebSocket or the manager interface.

    It reconnects to both sides and logs the gaps. Its broker user needs the rights of a publisher. Its settings are in
        [asterisk]. The password is asterisk.password or MCP_SESSIONS_ASTERISK_PASSWORD.

        Exit codes: 0 shut down cleanly, 2 bad configuration, or Asterisk refused it, 3 broker or Asterisk unreachable
        for too long, 4 events that it had received could not be published in the time for shutting down.
    """
    from consumer import __version__
    from consumer.observability import configure_logging, get_logger
    from consumer.observability.exporting import NoExporter, exporting

    settings = _settings(invocation, {"URL": pbx, "USER": user, "APP": application})
    configure_logging(settings.worker.log_level, settings.worker.log_format)
    for warning in settings.warnings:
        get_logger(__name__).warning("settings.warning", text=warning)
    try:
        with exporting("mcp-sessions-bridge", __version__):
            from consumer.bridges.asterisk.run import run_bridge
            from consumer.privacy import become_private

            become_private()  # whatever reads secrets from the environment has done so
            try:
                import uvloop
            except ImportError:  # where there is none, asyncio's own loop does as well
                code = asyncio.run(run_bridge(settings))
            else:
                code = uvloop.run(run_bridge(settings))
    except NoExporter as error:
        get_logger(__name__).error("tracing.no_exporter", error=str(error))
        raise typer.Exit(2) from None
    raise typer.Exit(code)


def _settings(invocation: Invocation, given: dict[str, str | None]) -> "Settings":
    from consumer.settings import ConfigurationError, Fault

    options = {f"MCP_SESSIONS_ASTERISK_{name}": value for name, value in given.items() if value}
    settings = invocation.settings({**os.environ, **options})
    if missing := settings.asterisk.missing:
        raise ConfigurationError(
            Fault(f"asterisk.{name}", f"is missing: set it, or MCP_SESSIONS_ASTERISK_{name.upper()}")
            for name in missing
        )
    return settings
