"""Simulated MCP servers: they start, answer, and die when the world says so; a worker's end is theirs."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from consumer.processes.client.catalogue import Listing
from consumer.processes.client.era import Era
from consumer.processes.launch.launcher import Program
from consumer.processes.service import MCPService
from consumer.sessions import ProcessExit
from consumer.sessions.dialogue import SILENT, Dialogue
from schemas.errors import OutcomeUnknown, SessionDied, StartFailed, ToolTimeout
from schemas.event_data import StartKind

TOOLS = [{"name": "note", "inputSchema": {"type": "object"}}]


class Books:
    """What was executed, by whom: the world looks at it, the workers do not know of it."""

    def __init__(self) -> None:
        self.executed: dict[str, list[tuple[float, str, str]]] = {}
        """Of each tool call by its number: when, on which worker, in which session."""

    def note(self, number: str, when: float, worker: str, session_id: str) -> None:
        self.executed.setdefault(number, []).append((when, worker, session_id))


class SimulatedClient:
    """An MCP client and its server, as the rooms above know them."""

    is_modern = False
    era = Era.HANDSHAKE
    tools_changed = False
    start_kind: StartKind = "cold"
    session = SimpleNamespace(server_info=None)

    def __init__(self, servers: "SimulatedServers", service: MCPService) -> None:
        self.service = service
        self._servers = servers
        self._exit: ProcessExit | None = None
        self._stopped = False
        self._callbacks: list[Callable[[ProcessExit], None]] = []
        self._done: list[Callable[[Any], None]] = []
        self._died = asyncio.get_running_loop().create_future()
        self.program: Any = Program
        self.listing = Listing(TOOLS)
        self.about: dict[str, Any] = {}

    def on_news(self, callback: Callable[[str, str], None]) -> None:
        """These servers say nothing unasked."""

    def on_tools(self, callback: Callable[[Any], None]) -> None:
        """Their tools do not change."""

    @property
    def tools(self) -> list[dict[str, Any]]:
        return self.listing.tools

    async def get_tools(self) -> list[dict[str, Any]]:
        return self.tools

    list_again = get_tools

    @property
    def is_alive(self) -> bool:
        return self._exit is None and not self._stopped

    async def is_known(self) -> bool:
        return self.is_alive

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        self._callbacks.append(callback)
        if self._exit is not None:
            asyncio.get_running_loop().call_soon(callback, self._exit)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._done.append(callback)

    def die(self, code: int) -> None:
        """The server ends by itself."""
        if self.is_alive:
            self._exit = ProcessExit(code, None, "")
            self._died.set_result(None)
            loop = asyncio.get_running_loop()
            for callback in self._callbacks:
                loop.call_soon(callback, self._exit)

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if not self._died.done():
            self._died.set_result(None)
        await asyncio.sleep(self._servers.delay(0.05))
        self._servers.clients.pop(self, None)
        for callback in self._done:
            callback(self)

    async def call_tool(
        self,
        name: str,
        arguments: Any = None,
        *,
        timeout: float | None = None,
        meta: Any = None,
        dialogue: Dialogue = SILENT,
    ) -> dict[str, Any]:
        if not self.is_alive:
            raise SessionDied("the server has ended", exit_code=1, signal=None, stderr="")
        given = arguments or {}
        await asyncio.sleep(self._servers.delay(0.01))  # on its way to the server
        if not self.is_alive:
            raise OutcomeUnknown("the server ended under the call")
        self._servers.note(str(given.get("number")), str((meta or {}).get("session_id")))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait({self._died}, timeout=float(given.get("takes", 0.01)))
        except TimeoutError:
            raise ToolTimeout("it took too long", timeout=timeout) from None
        if not self.is_alive:
            raise OutcomeUnknown("the server ended under the call")
        return {"content": [{"type": "text", "text": str(given.get("number"))}], "isError": False}

    async def call_method(
        self, method: str, params: dict[str, Any], *, timeout: float | None = None, dialogue: Dialogue = SILENT
    ) -> dict[str, Any]:
        return {}

    async def set_log_level(self, level: str, *, timeout: float) -> None: ...
    async def subscribe(self, uri: str | None, *, timeout: float) -> None: ...
    async def unsubscribe(self, uri: str, *, timeout: float) -> None: ...


class SimulatedServers:
    """Starts the servers of one worker; ``consumer.processes.warm.starter.Starter``."""

    def __init__(self, worker: str, books: Books, drawn: Callable[[], float], failing: float) -> None:
        self._worker = worker
        self._books = books
        self._drawn = drawn
        self._failing = failing
        self.clients: dict[SimulatedClient, None] = {}

    def delay(self, most: float) -> float:
        """Mostly short, sometimes the most that it may be."""
        drawn = self._drawn()
        return most * drawn * drawn

    def note(self, number: str, session_id: str) -> None:
        self._books.note(number, asyncio.get_running_loop().time(), self._worker, session_id)

    def executed(self, number: str) -> list[tuple[float, str, str]]:
        """What the books say of a tool call."""
        return self._books.executed.get(number, [])

    def prepare(self, service: MCPService) -> None: ...
    def retire(self, service: MCPService) -> None: ...

    async def start(self, service: MCPService, *, ahead: bool = False) -> Any:
        await asyncio.sleep(0.02 + self.delay(1.0 if self._drawn() < 0.1 else 0.2))
        if self._drawn() < self._failing:
            raise StartFailed("the server ended while it was starting", exit_code=1, signal=None, stderr="")
        client = SimulatedClient(self, service)
        self.clients[client] = None
        return client

    async def close(self) -> None:
        await asyncio.gather(*(client.stop() for client in list(self.clients)))
