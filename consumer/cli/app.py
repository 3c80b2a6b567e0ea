"""``mcp-sessions``: assembles the command line from its commands."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from consumer import __version__
from consumer.cli import (
    asyncapi,
    bridge,
    calls,
    config,
    dead_letters,
    demo,
    events,
    gateway,
    openapi,
    services,
    sessions,
    tools,
    top,
    topology,
    worker,
    workers,
)
from consumer.cli.command import Config, Invocation, Json, Prefix, Url


class _Root(TyperGroup):
    """The root of all commands. It describes invalid values in our own words."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from schemas.text import problem_of  # noqa: PLC0415 - it takes long to import

            error.message = problem_of(error.message)
            raise


app = typer.Typer(
    cls=_Root,
    name="mcp-sessions",
    help="MCP sessions for phone calls, on RabbitMQ.",
    epilog="See it work: mcp-sessions demo · Exit codes: 0 done, 1 the answer is an error, 2 usage or configuration, "
    "3 no broker.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
"""The root command; typer adds ``--install-completion``."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mcp-sessions {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Url = None,
    prefix: Prefix = None,
    config: Config = None,
    json: Json = False,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """MCP sessions for phone calls, on RabbitMQ."""
    context.obj = Invocation(url=url, prefix=prefix, config=config, json=json)


# In the order of the help.
for module in (
    worker,
    gateway,
    demo,
    sessions,
    tools,
    services,
    calls,
    dead_letters,
    topology,
    config,
    bridge,
    workers,
    events,
    asyncapi,
    openapi,
    top,
):
    module.register(app)
