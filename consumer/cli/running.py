"""Runs long-running programs: their log, their traces, their event loop, their exit code."""
# ruff: noqa: PLC0415 - the configuration is checked before what takes long is imported

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from consumer.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from consumer.settings import Settings


def begin_log(settings: "Settings", *, opens_sessions: bool = False) -> None:
    """Configure the log, and log the warnings of the settings that concern this program."""
    from consumer.observability import configure_logging, get_logger

    configure_logging(settings.worker.log_level, settings.worker.log_format)
    for warning in (*settings.warnings, *(settings.service_warnings if opens_sessions else ())):
        get_logger(__name__).warning("settings.warning", text=warning)


def exit_with(program: str, run: Callable[[], int]) -> NoReturn:
    """Exit with the code that ``run`` returns. Its traces are exported under the program's name."""
    from consumer import __version__
    from consumer.observability import get_logger
    from consumer.observability.exporting import NoExporter, exporting

    try:
        with exporting(program, __version__):
            code = run()
    except NoExporter as error:
        get_logger(__name__).error("tracing.no_exporter", error=str(error))
        code = ExitCode.USAGE
    raise typer.Exit(code)


def run_loop(running: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine to its end, with uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:  # where there is none, asyncio's own loop does as well
        return asyncio.run(running)
    return uvloop.run(running)
