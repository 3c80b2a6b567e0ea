"""``mcp-sessions bridge``: processes beside a telephony system that publish its call events."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import os
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.running import begin_log, exit_with, run_loop

if TYPE_CHECKING:
    from consumer.settings import Settings

group = typer.Typer(help="Run a bridge, which publishes the call events of a telephony system.", no_args_is_help=True)


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
    application: Annotated[
        str | None, typer.Option("--app", metavar="NAME", help="The name under which the bridge registers with ARI.")
    ] = None,
) -> None:
    """Publish the call events of an Asterisk until SIGTERM or Ctrl-C, from ARI's WebSocket or the manager interface.

    It reconnects to both sides and logs the gaps. Its broker user needs the rights of a publisher. Its settings are in
    [asterisk]. The password is asterisk.password or MCP_SESSIONS_ASTERISK_PASSWORD.

    Exit codes: 0 shut down cleanly, 2 bad configuration, or Asterisk refused it, 3 broker or Asterisk unreachable
    for too long, 4 events that it had received could not be published in the time for shutting down.
    """
    settings = _settings(invocation, {"URL": pbx, "USER": user, "APP": application})
    begin_log(settings)

    def run() -> int:
        from consumer.bridges.asterisk.run import run_bridge
        from consumer.privacy import become_private

        become_private()  # whatever reads secrets from the environment has done so
        return run_loop(run_bridge(settings))

    exit_with("mcp-sessions-bridge", run)


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
