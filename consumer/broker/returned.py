"""Tells the sender of a reply that RabbitMQ has returned it because no queue takes it.

Replies are published without confirms. aiormq reports a returned message only to a publisher that waits for its
confirm. So this module replaces aiormq's handler. ``tests/broker/test_settling.py`` fails when the library calls
another one.
"""

from collections.abc import Callable
from typing import Any, Final

import aiormq
from aiormq import spec

from consumer.concurrency.expiring_dict import ExpiringDict

KEPT: Final = 30.0
"""How long (s) to wait for the return of a message. It comes at once, except in an alarm."""

MOST: Final = 10_000
"""How many messages are watched for a return at the same time. The oldest are dropped first."""


class Returned:
    """Remembers the callback for each message that may be returned."""

    def __init__(self) -> None:
        self._callbacks: ExpiringDict[Callable[[], None]] = ExpiringDict(KEPT, MOST)
        self._channel: aiormq.Channel | None = None

    def expect(self, channel: aiormq.Channel, message_id: str, callback: Callable[[], None]) -> None:
        """Have ``callback`` called if the message with this id is returned on a channel without confirms."""
        if channel is not self._channel:
            self._listen(channel)
        self._callbacks.set(message_id, callback)

    def _listen(self, channel: aiormq.Channel) -> None:
        async def take(frame: spec.Basic.Return) -> None:
            header: Any = await channel._get_frame()  # noqa: SLF001 - what the library's own handler does
            message = await channel._read_content(frame, header)  # noqa: SLF001
            message_id = message.header.properties.message_id or ""
            if (callback := self._callbacks.get(message_id)) is not None:
                self._callbacks.drop(message_id)
                callback()

        channel._on_return_frame = take  # type: ignore[method-assign]  # noqa: SLF001
        self._channel = channel
