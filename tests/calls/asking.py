"""Asking for an answer under a key, as tool calls do."""

from collections.abc import Awaitable, Callable

from consumer.calls.requests.idempotency import Answers, Identity, KeptAnswer
from consumer.calls.requests.running import Running
from schemas.interim import Interim
from schemas.requests import ToolsCall


async def unheard(_message: Interim) -> None:
    """What is told before the answer interests nobody."""


def ask_for(tool: str) -> ToolsCall:
    """A request for a tool."""
    return ToolsCall.model_validate({"session_id": "c-1", "name": tool})


async def once(
    answers: Answers, key: str, request: ToolsCall, work: Callable[[Running], Awaitable[KeptAnswer]]
) -> KeptAnswer:
    """The answer under a key; the first who asks does the work."""
    claim = answers.claim(key, Identity.of(request))
    if not claim.is_first:
        return await claim.joined(unheard)
    with claim:
        return claim.give(await work(claim.running))
