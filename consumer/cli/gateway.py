"""``mcp-sessions gateway``: runs the HTTP gateway as a separate process."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.running import begin_log, exit_with, run_loop


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "gateway", epilog="Example: mcp-sessions gateway --config mcp-sessions.toml")(serve)


def serve(invocation: Invocation) -> None:
    """Run the HTTP gateway until SIGTERM or Ctrl-C. It reaches workers over RabbitMQ. Run as many gateways as you like.

    Exit codes: 0 shut down cleanly, 2 bad configuration or address, 3 broker unreachable for too long, 4 requests were
    still running when the time for shutting down was over.
    """
    settings = invocation.settings()
    begin_log(settings)

    def run() -> int:
        from consumer.gateway.gateway import run_gateway
        from consumer.privacy import become_private

        become_private()  # whatever reads secrets from the environment has done so
        return run_loop(run_gateway(settings))

    exit_with("mcp-sessions-gateway", run)
