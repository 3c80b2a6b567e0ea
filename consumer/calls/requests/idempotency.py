"""Answers that are given once: a repeated key joins the call in flight, or gets what the first one got.

The window is bounded in number, in bytes and in time, and lives with the call's owner: a key that is repeated to
another owner, after this one has gone, is unknown there.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from schemas.errors import InvalidMessage

KEEP = 600.0
"""How long (s) an answer is kept after it was given."""

MAX_ANSWERS = 512
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a reply, and whether anything was executed for it: what was not may be tried again."""

    body: bytes
    executed: bool = True
    outcome: str = "ok"
    """``ok``, ``tool_error``, or the error's code in lower case."""
    service: str | None = None
    """The service that it was asked of, where one was found."""

    @property
    def code(self) -> str | None:
        """The code of the error that the reply tells; an error that the tool itself tells is a result."""
        return None if self.outcome in ("ok", "tool_error") else self.outcome.upper()


@dataclass(slots=True, eq=False)
class _Entry:
    fingerprint: bytes
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    given_at: float = 0.0


class Answers:
    """The answers of one call's tool calls, by idempotency key."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def once(self, key: str, request: bytes, answer: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer under ``key``: that of the first who asked, while the window remembers it.

        Without a key (an empty one) everything is answered anew. ``request`` is what must not differ under one key.

        Raises:
            InvalidMessage: the key was used for another request.
        """
        if not key:
            return await answer()
        self._forget()
        fingerprint = hashlib.blake2b(request, digest_size=16).digest()
        entry = self._entries.get(key)
        if entry is not None:
            if entry.fingerprint != fingerprint:
                raise InvalidMessage("idempotency_key: was used for another request of this call", idempotency_key=key)
            return await asyncio.shield(entry.answer)
        entry = self._entries[key] = _Entry(fingerprint)
        try:
            given = await answer()
        except BaseException as error:
            self._drop(key)
            if not entry.answer.done():
                entry.answer.set_exception(error)
                entry.answer.exception()  # nobody may have joined
            raise
        entry.answer.set_result(given)
        entry.given_at = time.monotonic()
        if given.executed:
            self._bytes += len(given.body)
        else:
            del self._entries[key]
        return given

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key)
        if entry.answer.done() and entry.given_at:
            self._bytes -= len(entry.answer.result().body)

    def _forget(self) -> None:
        """Let the oldest go that are too old or too many; calls in flight stay."""
        horizon = time.monotonic() - KEEP
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            crowded = len(self._entries) > MAX_ANSWERS or self._bytes > MAX_BYTES
            if not entry.given_at:
                self._entries.move_to_end(key)  # in flight: it is as young as the newest
                return
            if not crowded and entry.given_at >= horizon:
                return
            self._drop(key)
