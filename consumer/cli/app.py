"""``mcp-sessions``: the command line, put together."""

from typing import Annotated

import typer

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
    tokens,
    tools,
    top,
    topology,
    worker,
    workers,
)
from consumer.cli.command import Config, Invocation, Json, Prefix, Url

app = typer.Typer(
    name="mcp-sessions",
    help="MCP sessions for phone calls, on RabbitMQ.",
    epilog="See it work: mcp-sessions demo · Exit codes: 0 done, 1 the answer is an error, 2 usage or configuration, "
    "3 no broker.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
"""The root; typer adds ``--install-completion``."""


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


worker.register(app)
gateway.register(app)
tokens.register(calls.app)
demo.register(app)
for name, group in (
    ("sessions", sessions.app),
    ("tools", tools.app),
    ("services", services.app),
    ("calls", calls.app),
    ("dead-letters", dead_letters.app),
    ("topology", topology.app),
    ("config", config.app),
    ("bridge", bridge.app),
):
    app.add_typer(group, name=name)
workers.register(app)
events.register(app)
asyncapi.register(app)
openapi.register(app)
top.register(app)
