"""What all commands share: the broker's address, the form of the output, and the exit code (``exit_codes``).

Commands import large modules only when they run, so that ``--help`` and completion are quick.
"""
# ruff: noqa: PLC0415 - see above

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from consumer.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from consumer.broker.link import Link
    from consumer.client import SessionClient
    from consumer.settings import Settings

CONNECT_TIMEOUT = 1.0
"""How long (s) a command retries a broker that refuses connections.

One that accepts them has ``HANDSHAKE_TIMEOUT``.
"""

_PANEL = "Everywhere"

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The broker. Default: AMQP_URL, CLOUDAMQP_URL or RABBITMQ_URL.",
        metavar="AMQP_URL",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Prefix: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        help="The first word of every name on the broker.",
        metavar="WORD",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The configuration. Default: mcp-sessions.toml.",
        metavar="FILE",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.", rich_help_panel=_PANEL)]

_EVERYWHERE: dict[str, tuple[Any, Any]] = {
    "url": (Url, None),
    "prefix": (Prefix, None),
    "config": (Config, None),
    "json": (Json, False),
}


_OPTIONS = {"AMQP_URL": "--url", "MCP_SESSIONS_PREFIX": "--prefix"}
"""The environment variable of each option."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options that every command takes, before or after its name."""

    url: str | None = None
    prefix: str | None = None
    config: Path | None = None
    json: bool = False

    def over(self, before: "Invocation") -> "Invocation":
        """Combine options: those after the command win over those before it."""
        return Invocation(
            url=self.url or before.url,
            prefix=self.prefix or before.prefix,
            config=self.config or before.config,
            json=self.json or before.json,
        )

    def settings(self, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings. Options override the environment (default: the process's), which overrides the file.

        Raises:
            ConfigurationError: with every fault in it.
        """
        from consumer.settings import ConfigurationError, load_settings

        given = {"AMQP_URL": self.url, "MCP_SESSIONS_PREFIX": self.prefix}
        env = dict(os.environ if environment is None else environment) | {
            name: value for name, value in given.items() if value
        }
        try:
            return load_settings(self.config, env)
        except ConfigurationError as error:
            option = {name: option for name, option in _OPTIONS.items() if given[name]}
            raise ConfigurationError(
                (replace(fault, key=option.get(fault.key, fault.key)) for fault in error.faults), error.warnings
            ) from None

    @asynccontextmanager
    async def client(self) -> AsyncIterator["SessionClient"]:
        """Connect a client to the workers."""
        from consumer.client import SessionClient

        settings = self.settings()
        url = settings.amqp_url.get_secret_value()
        async with SessionClient(url, prefix=settings.worker.prefix, connect_timeout=CONNECT_TIMEOUT) as client:
            yield client

    @asynccontextmanager
    async def link(self, name: str) -> AsyncIterator["Link"]:
        """Open a link that, unlike the client's, declares nothing.

        Raises:
            BrokerUnreachable: there is no broker.
            BrokerRefused: it refuses the login.
        """
        from consumer.broker.link import Link
        from consumer.broker.supervisor import HANDSHAKE_TIMEOUT, unreachable
        from consumer.broker.url import place_of

        url = self.settings().amqp_url
        link = Link(url.get_secret_value(), f"mcp-sessions {name}", connect_timeout=HANDSHAKE_TIMEOUT)
        try:
            try:
                await link.open()
            except Exception as error:
                raise unreachable(error, place_of(url.get_secret_value())) from error
            yield link
        finally:
            await link.close()


C = TypeVar("C", bound=Callable[..., Coroutine[Any, Any, None] | None])


def command(app: typer.Typer, name: str, **more: Any) -> Callable[[C], C]:
    """Make a command from a function or coroutine, whose first parameter is the ``Invocation``.

    Its errors become exit codes. The options that every command takes are added to its signature, which is what
    typer reads. A parameter that is a dataclass stands for its fields, which are options that several commands share.
    """

    def register(function: C) -> C:
        app.command(name, **more)(_for_typer(function))
        return function

    return register


def without_a_name(group: typer.Typer, **more: Any) -> Callable[[C], C]:
    """Make a function the default of a group, for a line that names none of its commands; see ``command``."""

    def register(function: C) -> C:
        group.callback(invoke_without_command=True, **more)(_for_typer(function))
        return function

    return register


def _for_typer(function: C) -> Callable[..., None]:
    def run(context: typer.Context, **arguments: Any) -> None:
        behind = Invocation(**{option: arguments.pop(option) for option in _EVERYWHERE})
        before = context.find_root().obj
        invocation = behind.over(before) if isinstance(before, Invocation) else behind
        if context.invoked_subcommand is not None:  # a command of this group, for which these options hold as well
            context.find_root().obj = invocation
            return
        for one in own:
            if _is_group(one):
                group = {field.name: arguments.pop(field.name) for field in fields(one.annotation)}
                arguments[one.name] = one.annotation(**group)
        _guarded(invocation, lambda: function(invocation, **arguments))

    _, *own = inspect.signature(function).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(option.replace(kind=keyword) for one in own for option in _options(one)),
        *(
            inspect.Parameter(option, keyword, default=default, annotation=annotation)
            for option, (annotation, default) in _EVERYWHERE.items()
        ),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = function.__doc__
    return run


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


def _options(parameter: inspect.Parameter) -> Iterable[inspect.Parameter]:
    """Return the options that a parameter of a command stands for."""
    return inspect.signature(parameter.annotation).parameters.values() if _is_group(parameter) else (parameter,)


def _guarded(invocation: Invocation, call: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
    """Run a command. On an error, print it and raise ``typer.Exit`` with its code."""
    try:
        running = call()
        if running is not None:
            run(running)
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:
        from consumer.cli.failures import failure_of, tell

        failure = failure_of(error)
        if failure is None:
            raise
        tell(failure, as_json=invocation.json)
        raise typer.Exit(failure.exit_code) from None


R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine for a command that is none, because it has to ask the user something first."""
    quiet_logs("broker.lost")
    return asyncio.run(work)


def quiet_logs(*without: str) -> None:
    """Log only what a user should know, on stderr, ``without`` the lines that the command prints itself."""
    import logging

    from consumer.observability import configure_logging

    configure_logging("warning", "console", without=without)
    for library in ("aiormq", "aio_pika"):  # they log what they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
