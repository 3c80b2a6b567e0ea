"""``mcp-sessions demo``: two workers, calls of several platforms, a live table. It leaves nothing behind."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

import asyncio
import secrets
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import answers, problems, write_json

if TYPE_CHECKING:
    from consumer.demo.story import DemoView

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", epilog="Example: mcp-sessions demo --url amqp://localhost")(demo)


async def demo(
    invocation: Invocation,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines instead of a live table.")] = False,
) -> None:
    """Run a demo with two workers and calls of seven platforms.

    SignalWire's calls arrive as signed requests at an HTTP gateway, the others over RabbitMQ. The demo takes about 20
    seconds. It uses a prefix of its own and removes everything afterwards. Exit code 1 if something did not work.
    """
    from consumer.cli.demo_screen import LiveView, PlainView, figures
    from consumer.cli.failures import Failure, tell
    from consumer.demo.story import play
    from consumer.demo.watch import DemoFailed

    settings = invocation.settings()
    screen = problems() if invocation.json else answers()
    prefix = f"{settings.worker.prefix}.demo-{secrets.token_hex(3)}"
    lively = screen.is_terminal and not screen.is_dumb_terminal and not plain
    view: DemoView = LiveView(screen) if lively else PlainView(screen)
    stopped = _stop_on_signals(view)
    try:
        with view:
            summary = await play(settings.amqp_url.get_secret_value(), prefix, view)
    except DemoFailed as error:
        failure = Failure(ExitCode.ERROR, "DEMO_FAILED", str(error))
        tell(failure, as_json=invocation.json)
        raise typer.Exit(failure.exit_code) from None
    except asyncio.CancelledError:
        if not stopped:
            raise
        raise typer.Exit(128 + stopped[0]) from None
    if invocation.json:
        write_json(asdict(summary))
    else:
        screen.print()
        screen.print(figures(summary))


def _stop_on_signals(view: "DemoView") -> list[int]:
    """Let the first signal end the demo in an orderly way, and ignore further ones. Return the received signals."""
    came: list[int] = []
    running = asyncio.current_task()
    assert running is not None, "a command runs in a task"

    def stop(number: int) -> None:
        if not came:
            view.say("Stopping; a moment.")
            running.cancel()
        came.append(number)

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    return came
