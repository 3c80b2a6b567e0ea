"""``mcp-sessions worker``, the same as ``python -m consumer``."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import gc
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.running import begin_log, exit_with, run_loop

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

    Exit codes: 0 shut down cleanly; 2 bad configuration, or its worker_id or a port in use; 3 broker unreachable for
    too long; 4 drain_timeout too short, or events unsent.
    """

    def load(environment: "Mapping[str, str] | None" = None) -> "Settings":
        settings = invocation.settings(environment)
        begin_log(settings, opens_sessions=True)
        return settings

    settings = load()
    exit_with("mcp-sessions", lambda: _run(settings, load, with_gateway=with_gateway))


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
    return run_loop(run_worker(settings, reload, companion if with_gateway else None))
