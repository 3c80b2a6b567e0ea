"""``sessions.list`` over a cluster."""

from contextlib import AsyncExitStack

from scripts.benchmarks.measuring import in_turns, timed
from scripts.benchmarks.options import Options
from scripts.benchmarks.references import amqp_echo
from scripts.benchmarks.report import Subject, Target, figure
from scripts.benchmarks.servers import PLAIN
from scripts.benchmarks.stage import in_groups, named, running

ASKED = 50
PAGE = 100


async def measure(options: Options) -> Subject:
    """The whole list, a page of it, and one call's part, with sessions on real processes that share their memory."""
    sizes = options.sizes
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(amqp_echo())
        stage = await stack.enter_async_context(running({"it": PLAIN.forked}, workers=sizes.workers))
        client = stage.client
        names = list(named("s", sizes.listed))
        await in_groups(lambda name: client.create(name, "it", timeout=3600), names, 8)
        listed = await client.list_sessions()
        if not listed.complete or len(listed.sessions) != len(names):
            raise RuntimeError(f"sessions.list told {len(listed.sessions)} of {len(names)} sessions")
        asked = {
            "echo": timed(lambda _: echo["classic"].ask(b"{}")),
            "whole": timed(lambda _: client.list_sessions()),
            "page": timed(lambda _: client.list_sessions(limit=PAGE)),
            "one": timed(lambda number: client.list_sessions(call_id=names[number % len(names)])),
        }
        found = await in_turns(asked, min(ASKED, sizes.calls))
    bare = found["echo"]
    where = f"{sizes.listed} sessions on {sizes.workers} workers"
    return Subject(
        figures=[
            figure(f"sessions.list, {where}", found["whole"], against={"classic": bare}, target=Target(30)),
            figure(f"sessions.list, a page of {PAGE}, {where}", found["page"], against={"classic": bare}),
            figure(f"sessions.list, one call, {where}", found["one"], against={"classic": bare}),
        ]
    )
