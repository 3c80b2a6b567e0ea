"""``mcp-sessions gateway``: the HTTP gateway as a process of its own."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import asyncio

import typer

from consumer.cli.command import Invocation, command


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "gateway", epilog="Example: mcp-sessions gateway --config mcp-sessions.toml")(serve)


def serve(invocation: Invocation) -> None:
    """Run the HTTP gateway until SIGTERM or Ctrl-C. It reaches workers over RabbitMQ. Run as many gateways as you like.

    Exit codes: 0 shut down cleanly, 2 bad configuration or address, 3 broker unreachable for too long, 4 requests were
        still running when the time for shutting down was over.
    """
    from consumer import __version__
    from consumer.observability import configure_logging, get_logger
    from consumer.observability.exporting import NoExporter, exporting

    settings = invocation.settings()
    configure_logging(settings.worker.log_level, settings.worker.log_format)
    for warning in settings.warnings:
        get_logger(__name__).warning("settings.warning", text=warning)
    try:
        with exporting("mcp-sessions-gateway", __version__):
            from consumer.gateway.gateway import run_gateway
            from consumer.privacy import become_private

            become_private()  # whatever reads secrets from the environment has done so
            try:
                import uvloop
            except ImportError:  # where there is none, asyncio's own loop does as well
                code = asyncio.run(run_gateway(settings))
            else:
                code = uvloop.run(run_gateway(settings))
    except NoExporter as error:
        get_logger(__name__).error("tracing.no_exporter", error=str(error))
        raise typer.Exit(2) from None
    raise typer.Exit(code)
