"""``mcp-sessions worker``, the same as ``python -m consumer``."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import asyncio
import gc
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.gateway.gateway import Gateway
    from consumer.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "worker", epilog="Example: mcp-sessions worker --config mcp-sessions.toml")(work)


def work(
    invocation: Invocation,
    with_gateway: Annotated[
        bool, typer.Option("--gateway", help="Also serve HTTP in this process, like mcp-sessions gateway.")
    ] = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C. A second Ctrl-C makes it hurry. SIGHUP reloads the configuration.

    Exit codes: 0 shut down cleanly, 2 bad configuration or worker_id in use, 3 broker unreachable for too long, 4
        drain_timeout was too short.
    """
    from consumer import __version__
    from consumer.observability import configure_logging, get_logger
    from consumer.observability.exporting import NoExporter, exporting

    def load(environment: "Mapping[str, str] | None" = None) -> "Settings":
        settings = invocation.settings(environment)
        configure_logging(settings.worker.log_level, settings.worker.log_format)
        for warning in settings.warnings:
            get_logger(__name__).warning("settings.warning", text=warning)
        return settings

    settings = load()
    try:
        with exporting("mcp-sessions", __version__):
            code = _run(settings, load, with_gateway=with_gateway)
    except NoExporter as error:
        get_logger(__name__).error("tracing.no_exporter", error=str(error))
        code = ExitCode.USAGE
    raise typer.Exit(code)


def _run(settings: "Settings", load: "Callable[[Mapping[str, str]], Settings]", *, with_gateway: bool) -> int:
    gc.disable()  # what importing makes is there to stay; to look through it again and again is a tenth of the start
    from consumer.privacy import become_private
    from consumer.worker import Worker, run_worker

    def companion(worker: Worker) -> "Gateway":
        from consumer.gateway.gateway import Gateway

        return Gateway(settings, middleware=worker.shorter_way)

    if with_gateway:
        import consumer.gateway.gateway  # noqa: F401 - now, and not in the middle of its first call
    gc.enable()
    reload = partial(load, become_private())  # whatever reads secrets from the environment has done so
    running = run_worker(settings, reload, companion if with_gateway else None)
    try:
        import uvloop
    except ImportError:  # where there is none, asyncio's own loop does as well
        return asyncio.run(running)
    return uvloop.run(running)
