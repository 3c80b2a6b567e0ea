"""Idempotency keys: a repeated key joins the tool call in flight, or gets the answer that the first one got.

The window is bounded in number, in bytes and in time, for each call and in bytes for the whole worker. It lives with
the call's owner: a key that is repeated to another owner, after this one has gone, is unknown there.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from consumer.calls.owned_call import OwnedCall
from consumer.calls.requests.running import Listener, Running
from schemas.base import Json
from schemas.errors import InvalidMessage
from schemas.requests import ToolsCall

KEEP = 600.0
"""How long (s) an answer is kept after it was given, while its call is owned.

A call without a session is owned for ``worker.tombstone`` longer, see ``Upkeep.KEEP_ANSWERS``.
"""

MAX_ANSWERS = 512
MAX_BYTES = 8 << 20
"""The most bytes of answers kept for one call."""

BESIDE_BODY = 1_024
"""The bytes that a kept answer costs beside its body and its key."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The body of a reply, and whether anything was executed. If not, the request may be tried again."""

    body: bytes
    executed: bool = True
    outcome: str = "ok"
    """``ok``, ``tool_error``, or the error's code in lower case."""
    service: str | None = None
    """The service that was asked, if one was found."""
    problem: str | None = None
    """The message of the error in the reply."""

    def of(self, service: str | None) -> "KeptAnswer":
        """Return the same answer with a service."""
        return KeptAnswer(self.body, self.executed, self.outcome, service, self.problem)

    @property
    def code(self) -> str | None:
        """The code of the error in the reply. A tool's own error is a result, and has none."""
        return None if self.outcome in ("ok", "tool_error") else self.outcome.upper()


@dataclass(frozen=True, slots=True)
class Identity:
    """The parts of a tool call that a repetition must share: the session, the tool and everything its server gets.

    How long its requester waits, what it wants to hear meanwhile, and how a missing session is opened do not count.
    """

    session_id: str
    service_name: str | None
    tool: str
    arguments: bytes
    """A digest of the arguments. It does not depend on the order of members in an object."""
    answers: bytes
    """A digest of the answers to the server's questions, and of their state."""

    @classmethod
    def of(cls, request: ToolsCall) -> "Identity":
        """The identity of a request."""
        given = request.input_responses, request.request_state
        answers = b"" if given == (None, None) else _digest(list(given))
        return cls(request.session_id, request.service_name, request.name, _digest(request.arguments), answers)

    def difference_to(self, other: "Identity") -> str | None:
        """Name what differs, for people; None if nothing does. An unnamed service matches any."""
        if self.tool != other.tool:
            return f"another tool ({other.tool!r})"
        if self.session_id != other.session_id:
            return f"another session ({other.session_id!r})"
        if None not in (self.service_name, other.service_name) and self.service_name != other.service_name:
            return f"another service ({other.service_name!r})"
        if self.arguments != other.arguments:
            return "other arguments"
        return "other input_responses" if self.answers != other.answers else None


def _digest(value: Json | list[Any]) -> bytes:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()


@dataclass(slots=True, eq=False)
class _Entry:
    identity: Identity | None = None
    """The identity of the first request; None without a key, when nothing can repeat it."""
    key: str = ""
    running: Running = field(default_factory=Running)
    answer: asyncio.Future[KeptAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    waiting: int = 1
    """How many requests wait for the answer."""
    given_at: float = 0.0
    size: int = 0


class Shelf:
    """The kept answers of all calls of a worker: at most ``most`` bytes, the oldest go first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[_Entry, Callable[[], None]] = OrderedDict()
        self.bytes = 0

    def put(self, entry: _Entry, forget: Callable[[], None]) -> None:
        """Keep an answer. ``forget`` is called when it has to go, and has to call ``take_down``."""
        self._kept[entry] = forget
        self.bytes += entry.size
        while self.bytes > self._most:
            next(iter(self._kept.values()))()

    def take_down(self, entry: _Entry) -> None:
        """Stop keeping an answer."""
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

    def claim(self, key: str, identity: Identity) -> "Claim":
        """Claim ``key`` for a request with this identity. The first claim runs the tool call; others join it.

        Without a key (an empty one) every claim is the first.

        Raises:
            InvalidMessage: the key was used for another request.
        """
        if not key:
            return Claim(_Entry(), is_first=True)
        self._forget()
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(identity, key)
            return Claim(entry, is_first=True, window=self)
        if entry.identity is not None and (difference := identity.difference_to(entry.identity)) is not None:
            raise InvalidMessage(
                f"idempotency_key: was used before in this call, for {difference}; each request needs a key of its own "
                "(without one, its message_id is the key)",
                idempotency_key=key,
            )
        entry.waiting += 1
        return Claim(entry, is_first=False)

    def keep(self, entry: _Entry, answer: KeptAnswer) -> None:
        """Keep the answer of a key, unless nothing was executed."""
        entry.given_at = time.monotonic()
        if answer.executed:
            entry.size = len(answer.body) + len(entry.key) + BESIDE_BODY
            self._bytes += entry.size
            self._shelf.put(entry, partial(self.drop, entry.key))
        else:
            del self._entries[entry.key]

    def knows(self, key: str) -> bool:
        """Return whether the tool call under ``key`` runs here, or was answered."""
        return key in self._entries

    def cancel(self, key: str) -> bool:
        """Cancel the call that runs under ``key``; returns whether there is one."""
        entry = self._entries.get(key)
        return entry is not None and not entry.answer.done() and entry.running.cancel()

    def leave(self, key: str) -> bool | None:
        """Cancel the tool call under ``key`` unless another request waits for it. Return None if none runs.

        Each requester that stops waiting calls this once.
        """
        entry = self._entries.get(key)
        if entry is None or entry.answer.done():
            return None
        entry.waiting -= 1
        return entry.waiting <= 0 and entry.running.cancel()

    def drop(self, key: str) -> None:
        """Forget a key."""
        entry = self._entries.pop(key)
        self._bytes -= entry.size
        self._shelf.take_down(entry)

    def clear(self) -> None:
        """Forget all answers."""
        for key in [key for key, entry in self._entries.items() if entry.given_at]:
            self.drop(key)

    def _forget(self) -> None:
        """Forget the oldest answers if they are too old or too many. Running calls stay."""
        horizon = time.monotonic() - KEEP
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            crowded = len(self._entries) > MAX_ANSWERS or self._bytes > MAX_BYTES
            if not entry.given_at:
                self._entries.move_to_end(key)  # in flight: it is as young as the newest
                return
            if not crowded and entry.given_at >= horizon:
                return
            self.drop(key)


class Claim:
    """One request under a key. The first runs the tool within ``with`` and answers all; the others join it."""

    def __init__(self, entry: _Entry, *, is_first: bool, window: Answers | None = None) -> None:
        self._entry = entry
        self._window = window
        self.is_first = is_first

    @property
    def running(self) -> Running:
        """The running call with its listeners."""
        return self._entry.running

    async def joined(self, listener: Listener) -> KeptAnswer:
        """Wait for the first request's answer. Until then ``listener`` gets its messages too."""
        if not self._entry.answer.done():
            await self.running.join(listener)
        return await asyncio.shield(self._entry.answer)

    def give(self, answer: KeptAnswer) -> KeptAnswer:
        """Give the answer to all requests under the key, and return it."""
        self._entry.answer.set_result(answer)
        if self._window is not None:
            self._window.keep(self._entry, answer)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Raise an error for all requests that joined; the key may be used again."""
        if error is None or self._entry.answer.done():
            return
        if self._window is not None:
            self._window.drop(self._entry.key)
        self._entry.answer.set_exception(error)
        self._entry.answer.exception()  # nobody may have joined


class AnswerWindows:
    """The kept answers of all calls of a worker, at most ``most`` bytes in all."""

    def __init__(self, most: int) -> None:
        self._shelf = Shelf(most)
        self._windows: dict[OwnedCall, Answers] = {}

    def of(self, call: OwnedCall) -> Answers:
        """The answers of a call."""
        if call not in self._windows:
            self._windows[call] = Answers(self._shelf)
        return self._windows[call]

    def has_some(self, call: OwnedCall) -> bool:
        """Whether a call has a kept answer or a running request."""
        return bool(self._windows.get(call))

    def forget(self, call: OwnedCall) -> None:
        """Forget the answers of a call that is not owned any more."""
        if (answers := self._windows.pop(call, None)) is not None:
            answers.clear()
