"""Answers that are given once: a repeated key joins the call in flight, or gets what the first one got.

The window is bounded in number, in bytes and in time, for each call and in bytes for the whole worker. It lives with
the call's owner: a key that is repeated to another owner, after this one has gone, is unknown there.
"""

import asyncio
import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from consumer.calls.requests.running import Listener, Running
from schemas.errors import InvalidMessage

KEEP = 600.0
"""How long (s) an answer is kept after it was given."""

MAX_ANSWERS = 512
MAX_BYTES = 8 << 20
"""Of one call."""

BESIDE_BODY = 1_024
"""Bytes that keeping an answer costs beside its body and its key."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
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
    running: Running
    answer: asyncio.Future[KeptAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    waiting: int = 1
    """How many requests wait for the answer."""
    given_at: float = 0.0
    size: int = 0


class Shelf:
    """What a worker keeps of the answers of all its calls; ``most`` bytes, of which the oldest go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[_Entry, Callable[[], None]] = OrderedDict()
        self.bytes = 0

    def put(self, entry: _Entry, forget: Callable[[], None]) -> None:
        """Keep an answer; ``forget`` is called when it has to go, and takes it down."""
        self._kept[entry] = forget
        self.bytes += entry.size
        while self.bytes > self._most:
            next(iter(self._kept.values()))()

    def take_down(self, entry: _Entry) -> None:
        """An answer is kept no longer."""
        if self._kept.pop(entry, None) is not None:
            self.bytes -= entry.size


class Answers:
    """The answers of one call's tool calls, by idempotency key."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        self._shelf = shelf if shelf is not None else Shelf(sys.maxsize)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    async def once(
        self,
        key: str,
        request: bytes,
        answer: Callable[[Running], Awaitable[KeptAnswer]],
        listener: Listener | None = None,
    ) -> KeptAnswer:
        """The answer under ``key``: that of the first who asked, while the window remembers it.

        Without a key (an empty one) everything is answered anew. ``request`` is what must not differ under one key.
        ``listener`` hears what is told before the answer, whether it is the first or joins.

        Raises:
            InvalidMessage: the key was used for another request.
        """
        running = Running()
        if not key:
            if listener is not None:
                await running.join(listener)
            return await answer(running)
        self._forget()
        fingerprint = hashlib.blake2b(request, digest_size=16).digest()
        entry = self._entries.get(key)
        if entry is not None:
            if entry.fingerprint != fingerprint:
                raise InvalidMessage("idempotency_key: was used for another request of this call", idempotency_key=key)
            entry.waiting += 1
            if listener is not None and not entry.answer.done():
                await entry.running.join(listener)
            return await asyncio.shield(entry.answer)
        entry = self._entries[key] = _Entry(fingerprint, running)
        try:
            if listener is not None:
                await running.join(listener)
            given = await answer(running)
        except BaseException as error:
            self._drop(key)
            if not entry.answer.done():
                entry.answer.set_exception(error)
                entry.answer.exception()  # nobody may have joined
            raise
        entry.answer.set_result(given)
        entry.given_at = time.monotonic()
        if given.executed:
            entry.size = len(given.body) + len(key) + BESIDE_BODY
            self._bytes += entry.size
            self._shelf.put(entry, partial(self._drop, key))
        else:
            del self._entries[key]
        return given

    def cancel(self, key: str) -> bool:
        """Cancel the call that runs under ``key``; returns whether there is one."""
        entry = self._entries.get(key)
        return entry is not None and not entry.answer.done() and entry.running.cancel()

    def leave(self, key: str) -> bool | None:
        """Cancel the call that runs under ``key`` unless another request waits for it; None where none runs.

        Each request that is left says so once.
        """
        entry = self._entries.get(key)
        if entry is None or entry.answer.done():
            return None
        entry.waiting -= 1
        return entry.waiting <= 0 and entry.running.cancel()

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key)
        self._bytes -= entry.size
        self._shelf.take_down(entry)

    def clear(self) -> None:
        """Forget what was given."""
        for key in [key for key, entry in self._entries.items() if entry.given_at]:
            self._drop(key)

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
