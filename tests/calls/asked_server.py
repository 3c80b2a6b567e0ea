"""A simulated MCP server that notes what it is asked."""

import asyncio

from consumer.processes.client.catalogue import Listing
from consumer.processes.service import MCPService
from consumer.sessions.dialogue import SILENT, Dialogue
from schemas.base import Json
from schemas.errors import SessionsError
from tests.simulation.world.servers import Books, SimulatedClient, SimulatedServers


def simulated_servers() -> SimulatedServers:
    """A starter of simulated servers, none of which fails."""
    return SimulatedServers("w-1", Books(), lambda: 0.5, 0.0)


class AskedServer(SimulatedClient):
    """A server of the ``service``; it answers with ``answer``, or with ``error`` if there is one, after ``takes`` s."""

    def __init__(self, service: MCPService, *, modern: bool = False, tools: list[Json] | None = None) -> None:
        super().__init__(simulated_servers(), service)
        self.is_modern = modern
        self.listing = Listing(tools or [])
        self.asked: list[tuple[str, Json]] = []
        self.timeouts: list[float | None] = []
        self.dialogues: list[Dialogue] = []
        self.answer: Json = {"answered": True}
        self.error: SessionsError | None = None
        self.question: Json | None = None
        """What it asks the requester before it answers."""
        self.takes = 0.0

    async def _answered(self, method: str, params: Json, timeout: float | None) -> Json:
        self.asked.append((method, params))
        self.timeouts.append(timeout)
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.answer

    async def call_method(
        self, method: str, params: Json, *, timeout: float | None = None, dialogue: Dialogue = SILENT
    ) -> Json:
        self.dialogues.append(dialogue)
        if self.question is not None and dialogue.on_question is not None:
            heard = await dialogue.on_question("elicitation/create", self.question)
            self.answer = {"heard": heard}
        return await self._answered(method, params, timeout)

    async def get_tools(self) -> list[Json]:
        await self._answered("tools/list", {}, None)
        return self.tools

    async def set_log_level(self, level: str, *, timeout: float) -> None:
        await self._answered("set_log_level", {"level": level}, timeout)

    async def subscribe(self, uri: str | None, *, timeout: float) -> None:
        await self._answered("subscribe", {"uri": uri}, timeout)

    async def unsubscribe(self, uri: str, *, timeout: float) -> None:
        await self._answered("unsubscribe", {"uri": uri}, timeout)
