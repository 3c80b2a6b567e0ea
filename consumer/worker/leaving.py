"""How a worker shuts down: a fixed sequence, with time budgets (s) that ``consumer.worker.budgets`` adds up.

1. report it: presence and ``worker.draining``; leave placing to others        1
2. with ``drain = "wait"``, wait for calls to end                              of ``drain_timeout``
3. stop consuming raw events and cluster requests, finish the received ones    3
4. hand over or close every call                                              the rest of ``drain_timeout`` (15)
5. stop every MCP process that is left                                        4
6. flush the events, ``worker.stopped`` the last of them                      2
7. close the inbox, finish what came out of it, flush the events again, and
   delete the inbox if it is empty; close channels and connections            2

Their sum with the default ``drain_timeout`` stays under the 30 s that Heroku gives.

A second signal makes it hurry (``consumer.worker.stop_signals``): running and waiting tool calls are given up.

In step 2 the calls are left to end by themselves, as long as ``drain_timeout`` leaves time to hand the rest over.
Meanwhile the worker gets no calls. It still handles raw events, because it may be the only worker that can handle the
ends of its calls. For the same reason it is the placer if there is no other: after a lost link, the recipes of its
calls and the requests to them go through the placer. What needs room waits there for another worker. In this step a
second signal ends the waiting, and a third one makes it hurry.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from consumer.concurrency.task_set import Tasks, cancel_and_wait
from consumer.worker.budgets import FLUSH_TIMEOUT, INBOX_TIMEOUT, OTHER_NODES, TAKEN_TIMEOUT
from consumer.worker.consumers import Consumers
from consumer.worker.exit_codes import WorkerExit
from consumer.worker.wiring import Parts

log = structlog.get_logger(__name__)

HAND_OVER = 15.0
"""The part (s) of ``drain_timeout`` that is kept for handing calls over after the wait; at most half of it."""

LOOK_EVERY = 0.25
"""How often (s) is looked whether all ends are reported."""

T = TypeVar("T")


async def leave(parts: Parts, consumers: Consumers, tasks: Tasks, hurry: asyncio.Event) -> WorkerExit:
    """Shut down in the order above. ``hurry`` may be set at any time. Return the exit code."""
    parts.state = "draining"
    parts.reporter.worker("draining")
    tasks.start(parts.mcp.cool_down(), "cool-down")
    await parts.reports.announce()
    await parts.presence.refreshed()  # for it has to be known who can take the calls over
    budget = parts.settings.worker.drain_timeout
    if parts.settings.worker.drain == "wait":
        await consumers.shared.place_last()
        budget -= await _wait_for_calls(parts, budget - min(HAND_OVER, budget / 2), hurry)
    await consumers.shared.stop_placing()
    await consumers.shared.stop_taking(TAKEN_TIMEOUT)
    in_time = bool(await _until_hurried(parts.owner.leave(parts.presence.others_ready(parts.worker_id), budget), hurry))
    await parts.sessions.shutdown()
    parts.state = "stopped"
    parts.reporter.worker("stopped")
    await parts.reports.announce()
    events_sent = await parts.outbox.flush(FLUSH_TIMEOUT)
    await asyncio.sleep(OTHER_NODES)
    consumers.close_inbox()
    until = asyncio.get_running_loop().time() + INBOX_TIMEOUT
    await parts.owner.stop(INBOX_TIMEOUT)
    # What came out of the inbox may have ended a session.
    left = until - asyncio.get_running_loop().time()
    events_sent = events_sent and await parts.outbox.flush(max(0.0, left))
    if not events_sent:
        log.warning("worker.events_unsent", count=len(parts.outbox))
    await consumers.delete_inbox(untold=len(parts.outbox))
    drained = in_time and events_sent
    log.info("worker.stopped", drained=drained)
    return WorkerExit.DRAINED if drained else WorkerExit.DRAIN_TIMED_OUT


async def _wait_for_calls(parts: Parts, timeout: float, hurry: asyncio.Event) -> float:
    """Wait at most ``timeout`` seconds until no session is open and all ends are reported. Return how long (s) it took.

    An end that waits for its recipe after a lost link would be left to a placer, which may come much later.
    """
    sessions, owned_calls = parts.sessions, parts.ownership.owned_calls

    async def none_left() -> None:
        while sessions.count() or owned_calls.pending_events:
            parts.room_freed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await parts.room_freed.wait()

    loop = asyncio.get_running_loop()
    began = loop.time()
    log.info("worker.waiting", sessions=sessions.count(), timeout_s=timeout)
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await _until_hurried(none_left(), hurry)
    hurry.clear()
    log.info("worker.waited", sessions=sessions.count())
    return loop.time() - began


async def _until_hurried(work: Coroutine[Any, Any, T], hurry: asyncio.Event) -> T | None:
    """Return the result of ``work``, or None as soon as ``hurry`` is set."""
    doing = asyncio.create_task(work, name="leaving-calls")
    hurried = asyncio.create_task(hurry.wait(), name="hurried")
    try:
        await asyncio.wait({doing, hurried}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        await cancel_and_wait(doing, hurried)
