"""One MCP client: the requests to a server while its session lasts.

Calls run in their callers' tasks and reach the server through the session's dispatcher. Results are passed on
unchanged. Neither the SDK's models nor the server's own output schema checks them, because both would run in our loop
(a hostile pattern blocked it for 0.9 s), and the models cost more than the call.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from mcp.client.session import ClientSession, IncomingMessage
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import (
    HEADER_MISMATCH,
    PromptListChangedNotification,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
    SubscriptionsAcknowledgedNotification,
    ToolListChangedNotification,
)

from consumer.processes.client.catalogue import Catalogue, Listing, all_tools
from consumer.processes.client.client_lifecycle import ClientLifecycle
from consumer.processes.client.connection import Connection
from consumer.processes.client.era import Era
from consumer.processes.client.http_answers import FORGOTTEN
from consumer.processes.client.introduction import Introduction
from consumer.processes.client.mcp_requester import McpRequester
from consumer.processes.client.protocol_versions import PROBE_TIMEOUT, Envelope
from consumer.processes.client.questions import Questions
from consumer.processes.client.subscriptions import Send, Subscriptions
from consumer.processes.foreign_text import told_error
from consumer.processes.jsonrpc import quoted
from consumer.processes.launch.launcher import Launcher, Program
from consumer.processes.service import MCPService
from consumer.processes.stdio.line_splitter import DEFAULT_LINE_CAP
from consumer.processes.stdio.process import ServerProcess
from consumer.sessions.dialogue import SILENT, Dialogue
from consumer.sessions.session import ProcessExit
from schemas.errors import McpError, SessionDied, SessionsError, ToolNotFound
from schemas.event_data import StartKind
from schemas.text import did_you_mean


class MCPClient:
    """A client of a service and, for stdio, its server process.

    It can be started once. With ``known_era``, the server is not asked for its era. Without a ``launcher`` it makes its
    own, with its own keeper; a worker shares one. :class:`ClientLifecycle` describes its start and end.
    """

    def __init__(
        self,
        service: MCPService,
        *,
        launcher: Launcher | None = None,
        known_era: Era | None = None,
        line_cap: int = DEFAULT_LINE_CAP,
    ) -> None:
        self.service = service
        self._questions = Questions()
        self._life = ClientLifecycle(
            service,
            initialized=self._initialized,
            hear=self._hear,
            questions=self._questions,
            launcher=launcher,
            known_era=known_era,
            line_cap=line_cap,
        )
        self._catalogue = Catalogue()
        self._requester: McpRequester | None = None
        self._introduction: Introduction | None = None
        self._subscriptions = Subscriptions()
        self._tools_callbacks: list[Callable[[MCPClient], None]] = []
        self._news_callbacks: list[Callable[[str, str], None]] = []
        self.start_kind: StartKind = "cold"

    # Its life.

    async def start(self) -> None:
        """Start the server, agree on a protocol version, list its tools.

        Raises :class:`StartFailed` or :class:`StartTimeout`; then nothing of the process is left. A start that is
        cancelled ends by itself, soon after.
        """
        await self._life.start()

    async def stop(self) -> None:
        """End the server and remove its folder. Idempotent, bounded, never raises. Running calls are given up."""
        await self._life.stop()

    @property
    def is_alive(self) -> bool:
        """Whether calls can be served."""
        return self._life.is_alive

    @property
    def process(self) -> ServerProcess | None:
        """The server process (``pid``, ``returncode``, ``poll()``); ``None`` before the start and over HTTP."""
        return self._life.process

    @property
    def exit(self) -> ProcessExit | None:
        """How the server ended, or None. Over HTTP the end of a session has neither exit code nor signal."""
        return self._life.exit

    @property
    def session(self) -> ClientSession:
        """The SDK's session: protocol version, server info, capabilities, instructions."""
        return self._life.session

    @property
    def era(self) -> Era | None:
        """The era that the server speaks, once it is known."""
        return self._life.era

    @property
    def is_modern(self) -> bool:
        """Whether the server asks its questions in results, as in revision 2026-07-28. Known after the start."""
        return self.era is Era.MODERN

    @property
    def about(self) -> dict[str, Any]:
        """How the server describes itself: ``era protocol_version capabilities server_info instructions``."""
        if self._introduction is None:
            raise RuntimeError("the client was not started")
        return self._introduction.told()

    @property
    def program(self) -> Program:
        """The state of the program's file at the start."""
        return self._life.program

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        """Call ``callback`` once, in the loop, when the server ends without a call of ``stop``.

        If the server has already ended, it is called soon.
        """
        self._life.on_exit(callback)

    def on_tools(self, callback: Callable[["MCPClient"], None]) -> None:
        """Call ``callback`` when the tools were listed again, or when the server announces that they have changed."""
        self._tools_callbacks.append(callback)

    def on_news(self, callback: Callable[[str, str], None]) -> None:
        """Call ``callback`` with each notification of the server: the kind of change, and what has changed.

        These are ``list_changed`` and the kind of the list, or ``resource_updated`` and the URI of the resource.
        """
        self._news_callbacks.append(callback)

    def add_done_callback(self, callback: Callable[["MCPClient"], None]) -> None:
        """Call ``callback`` in the loop when nothing of the client is left. Works only after ``start``."""
        self._life.add_done_callback(partial(callback, self))

    async def _initialized(
        self, session: ClientSession, dispatcher: JSONRPCDispatcher[Any], connection: Connection, about: Introduction
    ) -> None:
        self._introduction = about
        envelope = Envelope(about.era, about.protocol_version)
        self._requester = McpRequester(dispatcher, envelope, self._questions, connection, self._life.await_exit)
        capabilities = session.server_capabilities
        if capabilities is not None and capabilities.tools is not None:
            self._catalogue.set(await self._list_tools())
            return
        # It says that it has no tools. Hand-written servers forget to say: ask, but do not insist on an answer.
        with contextlib.suppress(McpError, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                self._catalogue.set(await self._list_tools())

    async def _hear(self, message: IncomingMessage) -> None:
        match message:
            case ToolListChangedNotification():
                self._catalogue.changed = True
                self._tools_listed()
                await self._changed("tools")
            case ResourceListChangedNotification():
                await self._changed("resources")
            case PromptListChangedNotification():
                await self._changed("prompts")
            case ResourceUpdatedNotification(params=updated):
                self._tell_news("resource_updated", uri := str(updated.uri))
                await self._questions.changed(None, uri)
            case SubscriptionsAcknowledgedNotification():
                self._subscriptions.hear(message)
            case _:
                pass

    def _tools_listed(self) -> None:
        for callback in self._tools_callbacks:
            callback(self)

    def _tell_news(self, what: str, which: str) -> None:
        for callback in self._news_callbacks:
            callback(what, which)

    async def _changed(self, changed_list: str) -> None:
        self._tell_news("list_changed", changed_list)
        await self._questions.changed(changed_list, None)

    async def is_known(self) -> bool:
        """Whether the server still knows the session. Over HTTP the server is asked."""
        if self.service.url is not None and self.era is Era.HANDSHAKE and self.is_alive:
            with contextlib.suppress(SessionsError):  # also a refusal is an answer
                await self._living().send("ping", {}, timeout=PROBE_TIMEOUT)
        return self.is_alive

    # Its tools.

    @property
    def listing(self) -> Listing:
        """The tools as they were listed last."""
        return self._catalogue.listing

    @property
    def tools_changed(self) -> bool:
        """Whether the server has announced a change since the last listing."""
        return self._catalogue.changed

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The last list of tools, as the server wrote them."""
        return self._catalogue.listing.tools

    async def get_tools(self) -> list[dict[str, Any]]:
        """Return all tools. List them again if they have changed or their lifetime is over."""
        return await self.list_again() if self._catalogue.stale else self.tools

    async def list_again(self) -> list[dict[str, Any]]:
        """List all tools again."""
        await self._catalogue.renew(self._list_tools)
        self._tools_listed()
        return self.tools

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        meta: Mapping[str, Any] | None = None,
        dialogue: Dialogue = SILENT,
    ) -> dict[str, Any]:
        """Call a tool and return the server's ``CallToolResult`` unchanged.

        ``isError: true`` is a result, not an error.

        ``timeout`` is in seconds (default: the service's ``call_timeout``) and includes the time that a question to
        the caller takes. With ``dialogue.returned`` it may be an ``InputRequiredResult``. Raises
        :class:`ToolNotFound`, :class:`ToolTimeout` (cancelled at the server, the session stays usable),
        :class:`McpError`, :class:`OutcomeUnknown` when the server died under the call, and :class:`SessionDied` when
        it was dead before.
        """
        requester = self._living()
        if name not in self._catalogue:
            await self._look_for(name)
        params: dict[str, Any] = {"name": name, "arguments": dict(arguments or {})}
        if meta:
            params["_meta"] = dict(meta)
        timeout = self.service.call_timeout if timeout is None else timeout
        try:
            result = await requester.send("tools/call", params, timeout=timeout, dialogue=dialogue)
        except McpError as refusal:
            if refusal.details.get("code") != HEADER_MISMATCH or requester.envelope.era is Era.HANDSHAKE:
                raise
            # 2026-07-28 over HTTP: the tool's schema has changed since it was listed, and with it its headers.
            await self.list_again()
            result = await requester.send("tools/call", params, timeout=timeout, dialogue=dialogue)
        if result.get("resultType") == "input_required":  # only where that is wanted
            return result
        if not isinstance(flag := result.get("isError", False), bool):
            result["isError"] = bool(flag) and str(flag).lower() != "false"
        content = result.get("content")
        if content is None:
            result["content"] = []
        elif not isinstance(content, list):
            raise McpError(
                f"tools/call {name}: the result's content is not a list: {quoted(content)}", code=-32603, data=None
            )
        return told_error(result) if result.get("isError") else result

    async def call_method(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        dialogue: Dialogue = SILENT,
    ) -> dict[str, Any]:
        """Send any other request (``resources/read``, ``prompts/get`` ...) and return the result unchanged.

        ``timeout`` and errors as for :meth:`call_tool`.
        """
        timeout = self.service.call_timeout if timeout is None else timeout
        return await self._living().send(method, params or {}, timeout=timeout, dialogue=dialogue)

    async def set_log_level(self, level: str, *, timeout: float) -> None:
        """Set the lowest level of the server's log messages. Errors as for :meth:`call_tool`."""
        requester = self._living()
        if requester.envelope.era is Era.HANDSHAKE:
            await requester.send("logging/setLevel", {"level": level}, timeout=timeout)
        requester.envelope.log_level = level

    async def subscribe(self, uri: str | None, *, timeout: float) -> None:
        """Subscribe to changes of a resource and of lists, for ``on_news``; without ``uri``, of lists only."""
        requester = self._living()
        await self._subscriptions.add(uri, requester.envelope.era, _sending(requester), timeout)

    async def unsubscribe(self, uri: str, *, timeout: float) -> None:
        """End the subscription to a resource."""
        requester = self._living()
        await self._subscriptions.remove(uri, requester.envelope.era, _sending(requester), timeout)

    def _living(self) -> McpRequester:
        if self._requester is not None and self.is_alive:
            return self._requester
        name, seen, link = self.service.name, self.exit, self._life.connection
        if self._life.stopping or not self._life.started:
            raise SessionDied(f"{name}: the session is closed", exit_code=None, signal=None, stderr="")
        if seen is None:  # its last words are still being read
            words = link.last_words if link is not None else ""
            how = FORGOTTEN if link is not None and link.forgotten else "the server has just ended"
            raise SessionDied(f"{name}: {how}", exit_code=None, signal=None, stderr=words)
        how = FORGOTTEN if link is not None and link.forgotten else seen.told
        raise SessionDied(f"{name}: {how}", **seen.details)

    async def _look_for(self, name: str) -> None:
        capabilities = self.session.server_capabilities
        may_change = bool(capabilities and capabilities.tools and capabilities.tools.list_changed)
        # A modern server announces changes only to who listens, which costs a request per session: look instead.
        if self._catalogue.stale or (may_change and self.era is Era.MODERN):
            await self.list_again()
        if name not in self._catalogue:
            known = sorted(tool["name"] for tool in self.tools)
            told = f"{did_you_mean(name, known)}it has: {', '.join(known[:20]) or 'none'}"
            raise ToolNotFound(f"{self.service.name} has no tool {name!r}; {told}", name=name)

    async def _list_tools(self) -> Listing:
        requester = self._requester
        assert requester is not None

        async def page(cursor: str | None) -> dict[str, Any]:
            params = {} if cursor is None else {"cursor": cursor}
            # While the client starts, the start's own deadline holds.
            return await requester.send(
                "tools/list", params, timeout=self.service.call_timeout if self._life.started else None
            )

        listing = await all_tools(page, self.service.source)
        return replace(listing, tools=requester.envelope.admit(listing.tools))


def _sending(requester: McpRequester) -> Send:
    async def send(method: str, params: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        return await requester.send(method, params, timeout=timeout)

    return send
