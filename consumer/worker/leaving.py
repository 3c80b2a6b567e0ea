"""How a worker leaves: a written sequence, with budgets (s) that ``consumer.worker.budgets`` adds up.

1. say so: presence and ``worker.draining``                        at once
2. stop placing; stop consuming raw events and questions          1
3. wait for what has been taken of them                           3
4. hand over or close every call                                  ``drain_timeout`` (15)
5. stop every MCP process that is left                            in 4
6. flush the events, ``worker.stopped`` the last of them          2
7. empty the inbox and delete it, close channels and connections  2

Their sum with the default ``drain_timeout`` stays under the 30 s that Heroku gives.

A second signal hurries: running tool calls are given up, and so is whatever waits.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from consumer.calls.tasks import Tasks
from consumer.worker.budgets import FLUSH_PATIENCE, INBOX_PATIENCE, OTHER_NODES, TAKEN_PATIENCE
from consumer.worker.exits import Exit
from consumer.worker.others import Others
from consumer.worker.parts import Parts
from consumer.worker.stations import Stations

log = structlog.get_logger(__name__)


async def leave(parts: Parts, others: Others, stations: Stations, tasks: Tasks, hurry: asyncio.Event) -> Exit:
    """Leave, in the order above; ``hurry`` may be set at any time. Returns the exit code."""
    parts.state = "draining"
    parts.reporter.worker("draining")
    tasks.start(parts.mcp.cool_down(), "cool-down")
    await others.announce()
    await stations.stop_placing()
    await stations.stop_taking(TAKEN_PATIENCE)
    in_time = await _until_hurried(
        parts.owner.leave(parts.presence.others_ready(parts.worker_id), parts.settings.worker.drain_timeout), hurry
    )
    await parts.sessions.shutdown()
    parts.state = "stopped"
    parts.reporter.worker("stopped")
    await others.announce()
    if not await parts.outbox.flush(FLUSH_PATIENCE):
        log.warning("worker.events_unsent", count=len(parts.outbox))
    await asyncio.sleep(OTHER_NODES)
    await parts.owner.stop(INBOX_PATIENCE)
    await stations.delete_inbox()
    log.info("worker.stopped", drained=in_time)
    return Exit.DRAINED if in_time else Exit.DRAIN_TIMED_OUT


async def _until_hurried(work: Coroutine[Any, Any, bool], hurry: asyncio.Event) -> bool:
    doing = asyncio.create_task(work, name="leaving-calls")
    hurried = asyncio.create_task(hurry.wait(), name="hurried")
    await asyncio.wait({doing, hurried}, return_when=asyncio.FIRST_COMPLETED)
    await cancelled(hurried)
    if doing.done():
        return doing.result()
    await cancelled(doing)
    return False


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
