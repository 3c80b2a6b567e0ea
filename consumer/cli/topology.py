"""``mcp-sessions topology``: shows, declares and verifies the exchanges and queues on the broker."""
# ruff: noqa: PLC0415 - commands import what is heavy when they run

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer
from rich.table import Table

from consumer.cli.command import Invocation, command
from consumer.cli.exit_codes import ExitCode
from consumer.cli.screen import Row, answers, say, state, table, write_json, write_text

if TYPE_CHECKING:
    from consumer.broker.declare import Finding
    from consumer.broker.topology import Queue, Topology
    from consumer.settings import Settings

Role: TypeAlias = Literal["publisher", "client", "gateway", "worker", "operator"]

OPERATORS = (
    "What is refused needs the permissions of the role operator: name such a user with --url. "
    "'mcp-sessions topology permissions --role operator' prints the commands that give them."
)

group = typer.Typer(help="Show, declare and compare the exchanges and queues on the broker.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="topology")


@command(group, "show", epilog="Example: mcp-sessions topology show --prefix mcp")
def show(invocation: Invocation) -> None:
    """Show the exchanges, queues and bindings that workers need, and why. Needs no broker."""
    settings = invocation.settings()
    topology, per_worker = needed(settings), _per_worker(settings)
    if invocation.json:
        write_json(asdict(topology) | {"worker_queues": [asdict(queue) for queue in per_worker]})
        return
    rows: list[Row] = [["exchange", exchange.name, exchange.type, exchange.why] for exchange in topology.exchanges]
    rows += [["queue", queue.name, queue.kind, queue.why] for queue in (*topology.queues, *per_worker)]
    screen = answers()
    screen.print(table("KIND", "NAME", "TYPE", "WHY", rows=rows))
    screen.print()
    bindings = [[one.source, one.queue, one.routing_key or "(all)"] for one in topology.bindings]
    screen.print(table("FROM EXCHANGE", "TO QUEUE", "ROUTING KEY", rows=bindings))


@command(group, "apply", epilog="Example: mcp-sessions topology apply --url amqp://admin:...@broker/")
async def apply(invocation: Invocation) -> None:
    """Declare the exchanges and queues that workers share. It is safe to repeat and deletes nothing.

    A worker does this itself when it starts. Use the command if your workers' user may not declare.
    """
    from consumer.broker import declare
    from consumer.broker.errors import BrokerUnavailable

    topology = needed(invocation.settings())
    async with invocation.link("topology") as link:
        try:
            async with link.scratch() as channel:
                await declare.apply(channel, topology, link=link)
        except BrokerUnavailable as error:
            problems = [one for one in await declare.verify(link, topology) if one.state not in {"ok", "missing"}]
            if not problems:
                raise
            if invocation.json:
                write_json({"applied": False, "findings": [asdict(one) for one in problems]})
            else:
                answers().print(_findings(problems))
                refused = all(one.state == "refused" for one in problems)
                why = "this user may not declare it" if refused else "it exists with other settings"
                say(f"Not applied: {why}.", style="red")
                if refused:
                    say(OPERATORS)
            raise typer.Exit(ExitCode.ERROR) from error
    if invocation.json:
        write_json({"applied": True, "exchanges": len(topology.exchanges), "queues": len(topology.queues)})
    else:
        say(f"{len(topology.exchanges)} exchanges and {len(topology.queues)} queues are as they should be.")


@command(group, "verify", epilog="Example: mcp-sessions topology verify")
async def verify(invocation: Invocation) -> None:
    """Compare the broker with the needed topology, and change nothing. Exit code 1 if something differs.

    Only a user with the permissions of an operator may compare everything. Bindings are not compared, because AMQP
    cannot read them.
    """
    from consumer.broker import declare

    topology = needed(invocation.settings())
    async with invocation.link("topology") as link:
        findings = await declare.verify(link, topology)
    good = all(one.state == "ok" for one in findings)
    if invocation.json:
        write_json({"ok": good, "findings": [asdict(one) for one in findings]})
    else:
        answers().print(_findings(findings))
        if any(one.state == "refused" for one in findings):
            say(OPERATORS)
    if not good:
        raise typer.Exit(ExitCode.ERROR)


@command(group, "permissions", epilog="Example: mcp-sessions topology permissions --role publisher")
def show_permissions(
    invocation: Invocation,
    role: Annotated[Role | None, typer.Option(help="Only this role. Default: all.")] = None,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="The user. {role} stands for the role. Default: PREFIX-ROLE.")
    ] = None,
    vhost: Annotated[
        str | None, typer.Option(metavar="VHOST", help="The vhost. Default: that of the broker's URL.")
    ] = None,
) -> None:
    """Print the rabbitmqctl commands that give each role only the permissions it needs. Needs no broker.

    Each password comes from a variable that the first line names. With --json, print definitions for "rabbitmqctl
    import_definitions", which give permissions to users that exist.
    """
    from consumer.broker.permissions import commands, definitions, permissions
    from consumer.broker.topology import Names
    from consumer.broker.url import vhost_of

    settings = invocation.settings()
    own = settings.worker
    foreign = [one.exchange for one in own.call_exchanges]
    names = Names(own.prefix)
    given = [one for one in permissions(names, call_exchanges=foreign) if role in (None, one.role)]
    where = vhost_of(settings.amqp_url.get_secret_value()) if vhost is None else vhost
    name = f"{own.prefix}-{{role}}" if user is None else user
    if invocation.json:
        write_json(definitions(names, given, vhost=where, user=name))
    else:
        write_text("\n".join(commands(given, vhost=where, user=name)))


def needed(settings: "Settings") -> "Topology":
    """Return the topology for these settings."""
    from consumer.broker.topology import CallExchange, Names, cluster_topology

    own = settings.worker
    extra = [
        CallExchange(one.exchange, one.type, one.routing_key, one.arguments, one.durable) for one in own.call_exchanges
    ]
    return cluster_topology(
        Names(own.prefix), grace=own.grace, max_dead_letter_bytes=own.max_dead_letter_bytes, call_exchanges=extra
    )


def _per_worker(settings: "Settings") -> list["Queue"]:
    from consumer.broker.topology import Names, inbox, requests_queue, worker_queue
    from schemas.ids import WorkerId

    names, anybody = Names(settings.worker.prefix), WorkerId("<worker_id>")
    return [
        inbox(names, anybody),
        requests_queue(names, anybody, "<connection>"),
        worker_queue(names, anybody, "<connection>"),
    ]


def _findings(findings: list["Finding"]) -> Table:
    rows: list[Row] = [[one.kind, one.name, state(one.state), one.detail] for one in findings]
    return table("KIND", "NAME", "STATE", "WHAT TO DO" if any(one.detail for one in findings) else "", rows=rows)
