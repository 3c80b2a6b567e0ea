"""Asking for an answer under a key, as tool calls do."""

from collections.abc import Awaitable, Callable

from consumer.calls.requests.idempotency import Answers, KeptAnswer
from consumer.calls.requests.running import Running
from schemas.interim import Interim


async def unheard(_message: Interim) -> None:
    """What is told before the answer interests nobody."""


async def once(
    answers: Answers, key: str, request: bytes, work: Callable[[Running], Awaitable[KeptAnswer]]
) -> KeptAnswer:
    """The answer under a key; the first who asks does the work."""
    claim = answers.claim(key, request)
    if not claim.is_first:
        return await claim.joined(unheard)
    with claim:
        return claim.give(await work(claim.running))
