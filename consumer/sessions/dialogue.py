"""The messages between a server and its requester while a request runs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from schemas.base import Json

OnProgress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Called with ``progress``, ``total`` and ``message`` of each progress notification, in order of arrival."""

OnLog = Callable[[str, str | None, Any], Awaitable[None]]
"""Called with ``level``, ``logger`` and ``data`` of each log message."""

OnChange = Callable[[str | None, str | None], Awaitable[None]]
"""Called with the list that has changed (``tools``, ``resources``, ``prompts``), or else with a resource's URI."""

OnQuestion = Callable[[str, Json], Awaitable[Json]]
"""Called with method and parameters of a server's question. Returns its result."""

CAPABILITY_OF = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
"""The client capability that each question needs."""

DEFAULT_CAPABILITIES: Json = {"elicitation": {"form": {}, "url": {}}}
"""The capabilities offered to servers if the requester names none."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """The callbacks of one request's requester. It does not want messages whose callback is None.

    ``capabilities`` are the requester's own (MCP ``ClientCapabilities``). With ``returned`` a question of a
    2026-07-28 server is returned as the result of the request, and ``input_responses`` and ``request_state`` are sent
    with the request that answers it.
    """

    on_progress: OnProgress | None = None
    on_log: OnLog | None = None
    on_change: OnChange | None = None
    on_question: OnQuestion | None = None
    capabilities: Json | None = None
    returned: bool = False
    input_responses: Json | None = None
    request_state: str | None = None

    @property
    def is_heard(self) -> bool:
        """Whether the requester wants messages before the result."""
        heard = (self.on_progress, self.on_log, self.on_change, self.on_question)
        return any(one is not None for one in heard)

    def offers(self, method: str, params: Json) -> bool:
        """Whether the requester accepts this kind of question."""
        if self.on_question is None:
            return False
        capabilities = DEFAULT_CAPABILITIES if self.capabilities is None else self.capabilities
        offered = capabilities.get(CAPABILITY_OF.get(method, ""))
        if method == "elicitation/create" and params.get("mode") == "url":
            return isinstance(offered, dict) and "url" in offered
        return offered is not None


SILENT = Dialogue()
"""A dialogue without callbacks."""
