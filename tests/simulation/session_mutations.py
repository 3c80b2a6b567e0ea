"""Mistakes that break no rule about who owns a call: who asks for something does not get it, or gets less.

``scripts/test simulate --mutations`` makes them like those of ``mutations``.
"""

import dataclasses
import time
from typing import Any

from consumer.calls.owned_call import Restoration
from consumer.calls.ownership import lifecycle
from consumer.calls.ownership.closing import Closing
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.placement import placer
from consumer.calls.placement.decisions import decide
from consumer.calls.placement.placer import Placer
from consumer.calls.wanted import Wanted
from schemas.requests import MayOpen, Use
from tests.simulation.mutating import Put, mutation


def _restored_with(put: Put, **given: Any) -> None:
    put(
        lifecycle,
        "Wanted",
        lambda *args, **more: dataclasses.replace(Wanted(*args, **more), **(given if more.get("restored") else {})),
    )


@mutation("a restored session has lost its metadata")
def _metadata_lost(put: Put) -> None:
    _restored_with(put, metadata={})


@mutation("a restored session has the timeout of its service")
def _timeout_lost(put: Put) -> None:
    _restored_with(put, timeout=None)


@mutation("the workers that died with a call are not counted")
def _deaths_not_counted(put: Put) -> None:
    restored = Restoration.restored
    put(Restoration, "restored", lambda self, recipe, now, *, died: restored(self, recipe, now, died=False))


@mutation("a command closes nothing")
def _not_closed(put: Put) -> None:
    async def close(*_: Any) -> list[Any]:
        return []

    put(Closing, "close_by_command", close)


@mutation("who was away gets no requests any more")
def _requests_not_bound(put: Put) -> None:
    still_ours = Recovery.still_ours

    async def unbound(self: Any, call: Any) -> bool:
        call.bound_to = self._owned_calls._requests_queue  # it is taken for bound
        return await still_ours(self, call)

    put(Recovery, "still_ours", unbound)


@mutation("a placer places a request without asking whether its call has an owner")
def _not_asked_first(put: Put) -> None:

    def at_once(message: Any, given: Any, configured: Any) -> Any:
        if isinstance(message, MayOpen) and message.opens is not None:
            given = dataclasses.replace(given, resent=True)
        return decide(message, given, configured)

    put(placer, "decide", at_once)


@mutation("a placer does not send a request on to the inbox")
def _requests_not_sent_on(put: Put) -> None:

    def refused(message: Any, given: Any, configured: Any) -> Any:
        if isinstance(message, Use):
            given = dataclasses.replace(given, placed=False, resent=True)
        return decide(message, given, configured)

    put(placer, "decide", refused)


@mutation("a start does not wait for room")
def _no_wait(put: Put) -> None:
    put(Placer, "_admitted_until", lambda *_: time.time())
