"""``mcp-sessions calls token``: a token for one call, minted with the keys of the configuration."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

from typing import Annotated

import typer

from consumer.cli.command import Invocation, command
from consumer.cli.screen import warn, write_json


def register(group: typer.Typer) -> None:
    """Add the command."""
    command(group, "token", epilog="Example: mcp-sessions calls token c-1 --service todo --lifetime 3600")(mint)


def mint(
    invocation: Invocation,
    call: Annotated[str, typer.Argument(metavar="CALL", help="The call's id, as its platform gave it.")],
    service: Annotated[
        list[str] | None,
        typer.Option("--service", metavar="NAME", help="A service that the token allows. Default: all."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="An interface that it allows: mcp or gateway. Default: both."),
    ] = None,
    lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="How long the token is valid.", min=1)] = 14_400,
) -> None:
    """Print a token for HTTP access to one call. The first key of gateway.token_keys signs it."""
    from consumer.settings import ConfigurationError, Fault
    from consumer.tokens import KeyUnusable, TokenKeys

    settings = invocation.settings()
    if settings.path is not None:
        for name in service or []:
            if name not in settings.services:
                warn(f"there is no service {name!r} in {settings.path}; the token allows it all the same")
    secrets = [key.get_secret_value() for key in settings.gateway.token_keys]
    try:
        token = TokenKeys(secrets, settings.worker.prefix).mint(
            call, service or [], scopes=scope or ["mcp", "gateway"], lifetime=lifetime
        )
    except KeyUnusable as error:
        raise ConfigurationError([Fault("gateway.token_keys", str(error))]) from None
    if invocation.json:
        write_json({"token": token, "call_id": call})
    else:
        typer.echo(token)
