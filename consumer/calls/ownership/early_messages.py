"""Holds back messages that arrive through a new binding before the message that the placer has placed."""

import asyncio
from collections.abc import Callable

EARLY_TIMEOUT = 0.5
"""How long (s) early messages wait. Then the call counts as not ours, and they go back to the placer."""


class EarlyMessages:
    """Messages of calls that are not owned yet, each call's in order.

    The placer binds first, on the channel that proves it to be the placer, and then sends the opening message on. A
    message that is published between these two steps reaches the inbox before the opening message that it belongs
    behind.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[asyncio.TimerHandle, list[Callable[[], None]]]] = {}

    def wait(self, call_id: str, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` when the call has been placed here, or after ``EARLY_TIMEOUT``."""
        known = self._waiting.get(call_id)
        if known is not None:
            known[1].append(go_on)
            return
        timer = asyncio.get_running_loop().call_later(EARLY_TIMEOUT, self.admit, call_id)
        self._waiting[call_id] = (timer, [go_on])

    def admit(self, call_id: str) -> None:
        """Release the waiting messages of a call, in order."""
        timer, waiting = self._waiting.pop(call_id, (None, []))
        if timer is not None:
            timer.cancel()
        for go_on in waiting:
            go_on()

    def admit_all(self) -> None:
        """Release all waiting messages, because the worker leaves."""
        for call_id in list(self._waiting):
            self.admit(call_id)

    def stop(self) -> None:
        """Forget the waiting messages. Their deliveries return to the broker with the channel."""
        for timer, _ in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
