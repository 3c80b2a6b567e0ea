"""One MCP client: what can be asked of a server while its session lasts.

Calls run in their callers' tasks and reach the server through the session's dispatcher. What the server returns is
handed on as it came: neither the SDK's models nor the server's own output schema is applied to it, because both would
run in our loop (a hostile pattern blocked it for 0.9 s) and the first costs more than the call.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mcp.client.session import ClientSession
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import HEADER_MISMATCH

from consumer.processes.client.catalogue import Catalogue, Listing, all_tools
from consumer.processes.client.lifecycle import ClientLife
from consumer.processes.client.protocol_versions import PROBE_TIMEOUT, Envelope, Era
from consumer.processes.client.questions import OnQuestion
from consumer.processes.client.requester import Exchange, OnProgress
from consumer.processes.foreign_text import told_error
from consumer.processes.launch.launcher import Launcher
from consumer.processes.service import MCPService
from consumer.processes.stdio.lines import DEFAULT_LINE_CAP
from consumer.sessions.record import StartKind
from schemas.errors import McpError, SessionDied, ToolNotFound


class MCPClient(ClientLife):
    """A client of a service and, for stdio, its server process; see :class:`ClientLife` for its start and end."""

    def __init__(
        self,
        service: MCPService,
        *,
        launcher: Launcher | None = None,
        known_era: Era | None = None,
        line_cap: int = DEFAULT_LINE_CAP,
    ) -> None:
        super().__init__(service, launcher=launcher, known_era=known_era, line_cap=line_cap)
        self._catalogue = Catalogue()
        self._exchange: Exchange | None = None
        self.on_tools: Callable[[MCPClient], None] = lambda _client: None
        """Called when the tools were listed again, or the server has announced that they have changed."""
        self.start_kind: StartKind = "cold"

    async def _meet(self, session: ClientSession, dispatcher: JSONRPCDispatcher[Any], era: Era) -> None:
        version = session.protocol_version
        assert version is not None
        self._exchange = Exchange(dispatcher, Envelope(era, version), self._questions, self._fate)
        capabilities = session.server_capabilities
        if capabilities is not None and capabilities.tools is not None:
            self._catalogue.set(await self._list_tools())
            return
        # It says that it has no tools. Hand-written servers forget to say: ask, but do not insist on an answer.
        with contextlib.suppress(McpError, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                self._catalogue.set(await self._list_tools())

    def _tools_changed(self) -> None:
        self._catalogue.changed = True
        self.on_tools(self)

    @property
    def listing(self) -> Listing:
        """The tools as they were listed last."""
        return self._catalogue.listing

    @property
    def tools_changed(self) -> bool:
        """Whether the server has announced a change since."""
        return self._catalogue.changed

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools as they were listed last, as the server wrote them."""
        return self._catalogue.listing.tools

    async def get_tools(self) -> list[dict[str, Any]]:
        """All tools; listed again when the server said that they have changed, or that they hold no longer."""
        return await self.list_again() if self._catalogue.stale else self.tools

    async def list_again(self) -> list[dict[str, Any]]:
        """All tools, asked for now."""
        await self._catalogue.renew(self._list_tools)
        self.on_tools(self)
        return self.tools

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        meta: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
        on_question: OnQuestion | None = None,
    ) -> dict[str, Any]:
        """The server's ``CallToolResult`` as it wrote it; ``isError: true`` is a result.

        ``timeout`` is in seconds (default: the service's ``call_timeout``) and includes the time that a question to
        the caller takes. Raises :class:`ToolNotFound`, :class:`ToolTimeout` (cancelled at the server, the session
        stays usable), :class:`McpError`, :class:`OutcomeUnknown` when the server died under the call, and
        :class:`SessionDied` when it was dead before.
        """
        exchange = self._living()
        if name not in self._catalogue:
            await self._look_for(name)
        params: dict[str, Any] = {"name": name, "arguments": dict(arguments or {})}
        if meta:
            params["_meta"] = dict(meta)
        patience = self.service.call_timeout if timeout is None else timeout
        try:
            result = await exchange.send(
                "tools/call", params, timeout=patience, on_progress=on_progress, on_question=on_question
            )
        except McpError as refusal:
            if refusal.details.get("code") != HEADER_MISMATCH or exchange.envelope.era is Era.HANDSHAKE:
                raise
            # 2026-07-28 over HTTP: the tool's schema has changed since it was listed, and with it its headers.
            await self.list_again()
            result = await exchange.send(
                "tools/call", params, timeout=patience, on_progress=on_progress, on_question=on_question
            )
        if not isinstance(result.setdefault("content", []), list):
            raise McpError(f"tools/call {name}: the result's content is no list", code=-32603, data=None)
        return told_error(result) if result.get("isError") else result

    async def call_method(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """The result of any other request (``resources/read``, ``prompts/get`` ...), as the server wrote it.

        ``timeout`` and errors as for :meth:`call_tool`.
        """
        patience = self.service.call_timeout if timeout is None else timeout
        return await self._living().send(method, params or {}, timeout=patience)

    def _living(self) -> Exchange:
        if self._exchange is not None and self.is_alive:
            return self._exchange
        name, seen = self.service.name, self._exit
        if self._stopping or not self._started:
            raise SessionDied(f"{name}: the session is closed", exit_code=None, signal=None, stderr="")
        if seen is None:  # its last words are still being read
            words = self.process.stderr.text() if self.process is not None else ""
            raise SessionDied(f"{name}: the server has just ended", exit_code=None, signal=None, stderr=words)
        how = "the connection was lost"
        if seen.signal is not None:
            how = f"the server was ended by signal {seen.signal}"
        elif seen.exit_code is not None:
            how = f"the server has ended with exit code {seen.exit_code}"
        raise SessionDied(f"{name}: {how}", exit_code=seen.exit_code, signal=seen.signal, stderr=seen.stderr)

    async def _look_for(self, name: str) -> None:
        capabilities = self.session.server_capabilities
        may_change = bool(capabilities and capabilities.tools and capabilities.tools.list_changed)
        # A modern server announces changes only to who listens, which costs a request per session: look instead.
        if self._catalogue.stale or (may_change and self.era is Era.MODERN):
            await self.list_again()
        if name not in self._catalogue:
            known = ", ".join(sorted(tool["name"] for tool in self.tools)[:20]) or "none"
            raise ToolNotFound(f"{self.service.name} has no tool {name!r}; it has: {known}", name=name)

    async def _list_tools(self) -> Listing:
        exchange = self._exchange
        assert exchange is not None

        async def page(cursor: str | None) -> dict[str, Any]:
            params = {} if cursor is None else {"cursor": cursor}
            # While the client starts, the start's own deadline holds.
            return await exchange.send(
                "tools/list", params, timeout=self.service.call_timeout if self._started else None
            )

        listing = await all_tools(page)
        return replace(listing, tools=exchange.envelope.admit(listing.tools))
