"""A running tool call: the listeners to its interim messages, and its cancellation."""

import asyncio
from collections.abc import Awaitable, Callable

from schemas.interim import InputRequired, Interim

Listener = Callable[[Interim], Awaitable[None]]
"""Sends a message to the reply address of one request."""

MAX_LISTENERS = 16
"""The most requests under one key that get interim messages; further ones get only the reply."""


class Running:
    """One tool call, from its first request to its reply.

    A repeated request joins it, gets the open questions, and from then on all interim messages.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._questions: dict[str, InputRequired] = {}
        self._task = asyncio.current_task()
        self.cancelled = False

    async def join(self, listener: Listener) -> None:
        """Send interim messages and questions to ``listener`` from now on."""
        if len(self._listeners) >= MAX_LISTENERS:
            return
        self._listeners.append(listener)
        for question in list(self._questions.values()):
            await listener(question)

    async def tell(self, message: Interim) -> None:
        """Send a message to all listeners. A question stays open until ``answered``."""
        if isinstance(message, InputRequired):
            self._questions[message.input_id] = message
        for listener in list(self._listeners):
            await listener(message)

    def answered(self, input_id: str) -> None:
        """Close a question."""
        self._questions.pop(input_id, None)

    def listen_as(self, other: "Running | None") -> None:
        """Send messages to the listeners of ``other`` from now on, or to nobody."""
        self._listeners = other._listeners if other is not None else []  # noqa: SLF001 - one of its kind

    def cancel(self) -> bool:
        """Cancel the call at its server. Return False if it was cancelled before."""
        if self.cancelled or self._task is None:
            return False
        self.cancelled = True
        return self._task.cancel()

    def absorb(self) -> bool:
        """Return whether ``cancel`` alone caused this ``CancelledError``. If so, the task goes on."""
        task = asyncio.current_task()
        return self.cancelled and task is not None and task is self._task and task.uncancel() == 0
