"""Logs are events: ``log.info("session.created", call_id=..., service=...)``, one line each, on standard error.

Readable on a terminal, JSON otherwise; times are ISO 8601 in UTC. What libraries log goes through the same renderer,
from WARNING up. Secrets are masked and huge values are cut in every line. A line that cannot be written
is dropped: the worker survives if its log is no longer read.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Literal, cast

import structlog
from structlog.contextvars import bound_contextvars
from structlog.typing import BindableLogger, Context, EventDict, FilteringBoundLogger, Processor, WrappedLogger

from consumer.observability.masking import MAX_LONG_TEXT, mask_text, masked_fields

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

bound = bound_contextvars
"""A block in which every log line of this task carries these values, such as the call of a delivery."""

_is_configured_by_us = False

_also: list[Callable[[], Mapping[str, str]]] = []

_LONG = ("exception", "stack")
_FORMATTERS = ("_record", "_from_structlog")
_APART = frozenset({*_LONG, *_FORMATTERS})
"""Parts of an event beside its fields: texts that may be longer, and data of ``ProcessorFormatter``."""


class _StandardError:
    """Writes a line to the present ``sys.stderr``, so that a test can capture it."""

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = warn = error = critical = fatal = failure = exception = log = msg


class _Handler(logging.Handler):
    """Writes the log lines of libraries to the same place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _StandardError().msg(self.format(record))
        except Exception:  # noqa: BLE001 - logging's own rule: never fail the caller
            self.handleError(record)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger. It may be made before ``configure_logging``, and follows it then."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def get_shared_logger(name: str) -> FilteringBoundLogger:
    """Return a logger for code that other programs use as a library.

    In a program that has not called ``configure_logging`` it logs only warnings, whatever level that program has set.
    """
    made_by = cast("type[BindableLogger]", _shared)
    return cast("FilteringBoundLogger", structlog.wrap_logger(None, wrapper_class=made_by, logger_factory_args=(name,)))


def _shared(logger: WrappedLogger, processors: list[Processor], context: Context) -> BindableLogger:
    """Make a bound logger with the program's configuration. In other programs it drops lines below a warning."""
    chain = processors if _is_configured_by_us else [_warnings_only, *processors]
    made: BindableLogger = structlog.get_config()["wrapper_class"](logger, processors=chain, context=context)
    return made


def _warnings_only(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop lines below a warning. This is a structlog processor."""
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


def quiet_unless_configured() -> None:
    """Log only warnings, on standard error, unless the program that uses this library has configured logging."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=lambda *_: _StandardError(),
        )


def configure_logging(level: LogLevel = "info", fmt: LogFormat = "auto", *, without: Collection[str] = ()) -> None:
    """Set up all logging of the process; called again, the last call counts.

    Args:
        level: the lowest level of our own lines; those of libraries are shown from WARNING up, or higher.
        fmt: ``auto`` is ``console`` when standard error is a terminal and ``json`` otherwise.
        without: events of our own that the program tells in another way.
    """
    global _is_configured_by_us  # noqa: PLW0603 - one process has one log
    _is_configured_by_us = True
    number = logging.getLevelNamesMapping()[level.upper()]
    chain = _chain()
    rendering = _console() if fmt == "console" or (fmt == "auto" and sys.stderr.isatty()) else _json()
    structlog.configure(
        processors=[*_leaving_out(without), *chain, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(number)
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith(f"{_OURS}."))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(one for one in root.handlers if not isinstance(one, _Handler)), handler]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(_OURS).setLevel(number)
    for library in _QUIETED:
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


_OURS = __name__.partition(".")[0]
"""Our loggers. Those of the room ``sessions`` use the standard library, and log at any level."""

_QUIETED = ("aio_pika", "aiormq")
"""Libraries that a client silences unless the program has set their level."""


def also_log(fields: Callable[[], Mapping[str, str]]) -> None:
    """Add these fields to every line of our own, with their values at that time."""
    _also.append(fields)


def _with_more(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for fields in _also:
        event.update(fields())
    return event


def _leaving_out(events: Collection[str]) -> list[Processor]:
    def leave_out(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if event["event"] in events:
            raise structlog.DropEvent
        return event

    return [leave_out] if events else []


def _chain() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _with_more,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
        # Behind the masking, which remembers words: a moment is never met again, and would push out those that are.
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


_ENCODER = json.JSONEncoder(default=repr, check_circular=False)  # what is masked is a tree


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Write the line as JSON that begins with time, level and event. This is a structlog processor."""
    line = {"timestamp": event["timestamp"], "level": event["level"], "event": event["event"], **event}
    return _ENCODER.encode(line)  # json.dumps would make an encoder for each line


def _json() -> list[Processor]:
    return [_as_json]


def _console() -> list[Processor]:
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    plain = structlog.dev.plain_traceback  # the pretty one prints local variables, and with them secrets
    return [_printable, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask secrets and cut long values. This is a structlog processor."""
    if _APART.isdisjoint(event):  # as most lines
        return masked_fields(event)
    told = masked_fields({key: value for key, value in event.items() if key not in _APART})
    texts = {key: mask_text(str(event[key]), MAX_LONG_TEXT) for key in _LONG if key in event}
    return {**told, **texts, **{key: event[key] for key in _FORMATTERS if key in event}}


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that an id from a platform cannot forge lines or control the terminal."""
    return {
        key: value if key in _LONG or not isinstance(value, str) else _escaped(value) for key, value in event.items()
    }


def _escaped(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
