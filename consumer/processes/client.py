"""One MCP client: a service's server, started, spoken to, and ended.

The SDK's session and its transport are entered and left by one task, the owner; calls run in their callers' tasks
and reach the session through its dispatcher. What a server returns is handed on as it came: neither the SDK's models
nor the server's own output schema is applied to it, because both run in our loop (a hostile pattern blocked it for
0.9 s) and the first costs more than the call.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from mcp.client.session import ClientSession, IncomingMessage
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import HEADER_MISMATCH, ToolListChangedNotification
from pydantic import ValidationError

from consumer.processes.catalogue import Catalogue, all_tools
from consumer.processes.connection import Connection, connect
from consumer.processes.eras import CLIENT_INFO, PROBE_TIMEOUT, Envelope, Era, negotiate
from consumer.processes.exchange import Exchange, OnProgress
from consumer.processes.launcher import Launcher, LocalLauncher
from consumer.processes.lines import DEFAULT_LINE_CAP
from consumer.processes.process import ServerProcess
from consumer.processes.questions import OnQuestion, Questions
from consumer.processes.service import MCPService
from consumer.processes.starting import (
    Again,
    Setback,
    ended_while_starting,
    refused,
    root_cause,
    setback_of,
    stopped,
    too_slow,
    tries,
)
from consumer.sessions.session import ProcessExit
from schemas.errors import McpError, SessionDied, SessionsError, StartFailed, ToolNotFound

LEAVE_PATIENCE = 6.0
"""Seconds for leaving the session and ending the process, whose own budgets sum to less."""

STOP_PATIENCE = 8.0
"""Seconds after which ``stop`` kills the process group by itself and returns."""

log = structlog.get_logger(__name__)

_owners: set[asyncio.Task[None]] = set()


class MCPClient:
    """A client of ``service`` and, for stdio, its server process. Good for one start.

    ``known_era`` saves the question which era the server speaks. Without a ``launcher`` the client makes one of its
    own, with a warden of its own; a worker shares one.
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
        self.era = known_era
        self._own_launcher = LocalLauncher() if launcher is None else None
        self._launcher: Launcher = launcher if launcher is not None else self._own_launcher or LocalLauncher()
        self._line_cap = line_cap
        self._owner: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._leash: asyncio.Timeout | None = None
        self._over = asyncio.Event()
        self._started = False
        self._stopping = False
        self._connection: Connection | None = None
        self._session: ClientSession | None = None
        self._exchange: Exchange | None = None
        self._catalogue = Catalogue()
        self._questions = Questions()
        self._exit: ProcessExit | None = None
        self._on_exit: list[Callable[[ProcessExit], None]] = []

    # Life.

    async def start(self) -> None:
        """Start the server, agree on a protocol version, list its tools.

        Raises :class:`StartFailed` or :class:`StartTimeout`; then nothing of the process is left. A start that is
        cancelled ends by itself, soon after.
        """
        if self._owner is not None:
            raise RuntimeError("a client is started once")
        self._ready = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(), name=f"mcp-client-{self.service.name}")
        _owners.add(self._owner)
        self._owner.add_done_callback(_owners.discard)
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            self._ask_to_stop()
            raise

    async def stop(self) -> None:
        """End the server and remove its folder. Idempotent, bounded, never raises; calls in flight are given up."""
        self._ask_to_stop()
        if self._owner is None:
            return
        await asyncio.wait({self._owner}, timeout=STOP_PATIENCE)
        if not self._owner.done():
            log.error("client.stop_overdue", service=self.service.name, pid=self.process and self.process.pid)
            if self.process is not None:
                self.process.kill_group()

    def _ask_to_stop(self) -> None:
        self._stopping = True
        self._over.set()
        if self._leash is not None and not self._started:
            with contextlib.suppress(RuntimeError):  # it is running out already
                self._leash.reschedule(asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[["MCPClient"], None]) -> None:
        """Have ``callback`` called in the loop when nothing of the client is left; only after ``start`` was called."""
        assert self._owner is not None
        self._owner.add_done_callback(lambda _owner: callback(self))

    async def _own(self) -> None:
        """The owner: tries to start, then waits for the end. Nobody cancels it but a loop that is torn down."""
        assert self._ready is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.service.start_timeout
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        try:
            async for attempt in tries(self._pause, lambda: self._stopping or loop.time() >= deadline):
                with attempt:
                    await self._live(deadline)
        except Setback as setback:
            self._ready.set_exception(setback.error)
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error if isinstance(error, Exception) else StartFailed("cancelled"))
            if not isinstance(error, Exception):
                raise
            log.exception("client.failed", service=self.service.name)
        finally:
            if self._own_launcher is not None:
                await self._own_launcher.close()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def _live(self, deadline: float) -> None:
        """One connection from its start to its end; :class:`Setback` when the start does not succeed."""
        link: Connection | None = None
        try:
            async with (
                asyncio.timeout_at(deadline) as self._leash,
                connect(self.service, self._launcher, self._line_cap) as link,
            ):
                self._connection = link
                dispatcher = JSONRPCDispatcher(link.read, link.write)
                async with ClientSession(
                    dispatcher=dispatcher,
                    client_info=CLIENT_INFO,
                    elicitation_callback=self._questions.asked,
                    message_handler=self._hear,
                ) as session:
                    await self._set_up(session, dispatcher, link)
                    self._leash.reschedule(None)
                    self._begin(link)
                    await self._over.wait()
                    self._leash.reschedule(asyncio.get_running_loop().time() + LEAVE_PATIENCE)
        except BaseException as error:
            if not self._started:
                raise self._setback(error, link) from error
            self._lost(error)
            if not isinstance(error, Exception):
                raise

    async def _set_up(self, session: ClientSession, dispatcher: JSONRPCDispatcher[Any], link: Connection) -> None:
        try:
            self.era = await negotiate(session, known=self.era)
            self._session = session
            version = session.protocol_version
            assert version is not None
            self._exchange = Exchange(dispatcher, Envelope(self.era, version), self._questions, self._fate)
            await self._list_tools_at_start()
        except (MCPError, SessionsError, ValidationError, RuntimeError) as fault:
            raise await self._fault_at_start(fault, link) from fault
        except BaseException:
            if link.process is not None:
                link.process.hurry = True  # it is no session yet: nobody owes it patience
            raise

    async def _fault_at_start(self, fault: Exception, link: Connection) -> Setback:
        process = link.process
        exit = await process.wait_gone(1.0) if process is not None else None  # noqa: A001 - the field's name
        if process is None or exit is None:
            if process is not None:
                process.hurry = True
            return Setback(refused(self.service, fault, process))
        error = ended_while_starting(self.service, exit, process)
        if process.fault is not None:
            return Setback(error)
        if self.era is None and exit.signal is None and link.probe_was_read:
            self.era = Era.HANDSHAKE
            return Setback(error, Again.AS_OLD)
        return Setback(error, Again.ONCE if exit.signal is not None else Again.NO)

    def _setback(self, error: BaseException, link: Connection | None) -> Setback:
        if self._stopping:
            return Setback(stopped(self.service))
        if isinstance(error, TimeoutError):
            return Setback(too_slow(self.service, link.process if link is not None else None))
        return setback_of(self.service, error)

    def _begin(self, link: Connection) -> None:
        assert self._ready is not None
        self._started = True
        self._ready.set_result(None)
        if link.process is not None:
            link.process.forget_stdin_duplicate()
            link.process.add_done_callback(self._gone)

    def _gone(self, exit: ProcessExit) -> None:  # noqa: A002 - the field's name
        self._exit = exit
        self._over.set()
        if not self._stopping:
            for callback in self._on_exit:
                callback(exit)

    def _lost(self, error: BaseException) -> None:
        """The connection broke under the session; of a process we hear by itself."""
        cause = root_cause(error)
        log.warning("client.lost", service=self.service.name, error=repr(cause))
        if self.process is None and self._exit is None:
            self._gone(ProcessExit(exit_code=None, signal=None, stderr=f"connection lost: {cause!r}"))

    async def _fate(self) -> ProcessExit | None:
        """How the server ended, if it did or does so in a moment."""
        if self.process is not None:
            return await self.process.wait_gone(0.5)
        if self._over.is_set() or self._exit is not None:
            return self._exit or ProcessExit(exit_code=None, signal=None, stderr="")
        return None

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._catalogue.stale = True

    # What a session can see.

    @property
    def process(self) -> ServerProcess | None:
        """The server process (``pid``, ``returncode``, ``poll()``); ``None`` before the start and over HTTP."""
        return self._connection.process if self._connection is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether calls can be served."""
        if not self._started or self._over.is_set():
            return False
        return self.process is None or self.process.returncode is None

    @property
    def exit(self) -> ProcessExit | None:
        """How the server ended, once it has."""
        return self._exit

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools as they were listed last, as the server wrote them."""
        return self._catalogue.tools

    @property
    def session(self) -> ClientSession:
        """The SDK's session: protocol version, server info, capabilities, instructions."""
        if self._session is None:
            raise RuntimeError("the client was not started")
        return self._session

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        """Have ``callback`` called once, in the loop, when the server ends without ``stop`` having been asked.

        It is called soon when the server has already ended.
        """
        if self._exit is not None and not self._stopping:
            asyncio.get_running_loop().call_soon(callback, self._exit)
        else:
            self._on_exit.append(callback)

    # Calls.

    async def get_tools(self) -> list[dict[str, Any]]:
        """All tools; listed again when the server said that they have changed."""
        if self._catalogue.stale:
            await self._catalogue.renew(self._list_tools)
        return self._catalogue.tools

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
            await self._catalogue.renew(self._list_tools)
            result = await exchange.send(
                "tools/call", params, timeout=patience, on_progress=on_progress, on_question=on_question
            )
        if not isinstance(result.setdefault("content", []), list):
            raise McpError(f"tools/call {name}: the result's content is no list", code=-32603, data=None)
        return result

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
        exit = self._exit or (self.process.exit if self.process is not None else None)  # noqa: A001 - the field's name
        if exit is None or self._stopping:
            raise SessionDied(f"{self.service.name}: the session is closed", exit_code=None, signal=None, stderr="")
        how = f"by signal {exit.signal}" if exit.signal is not None else f"with exit code {exit.exit_code}"
        raise SessionDied(
            f"{self.service.name}: the server has ended {how}",
            exit_code=exit.exit_code,
            signal=exit.signal,
            stderr=exit.stderr,
        )

    async def _look_for(self, name: str) -> None:
        capabilities = self.session.server_capabilities
        may_change = bool(capabilities and capabilities.tools and capabilities.tools.list_changed)
        # A modern server announces changes only to who listens, which costs a request per session: look instead.
        if self._catalogue.stale or (may_change and self.era is Era.MODERN):
            await self._catalogue.renew(self._list_tools)
        if name not in self._catalogue:
            known = ", ".join(sorted(tool["name"] for tool in self.tools)[:20]) or "none"
            raise ToolNotFound(f"{self.service.name} has no tool {name!r}; it has: {known}", name=name)

    async def _list_tools_at_start(self) -> None:
        capabilities = self.session.server_capabilities
        if capabilities is not None and capabilities.tools is not None:
            self._catalogue.set(await self._list_tools())
            return
        # It says that it has no tools. Hand-written servers forget to say: ask, but do not insist on an answer.
        with contextlib.suppress(McpError, TimeoutError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                self._catalogue.set(await self._list_tools())

    async def _list_tools(self) -> list[dict[str, Any]]:
        exchange = self._exchange
        assert exchange is not None

        async def page(cursor: str | None) -> dict[str, Any]:
            params = {} if cursor is None else {"cursor": cursor}
            # While the client starts, the start's own deadline holds.
            return await exchange.send(
                "tools/list", params, timeout=self.service.call_timeout if self._started else None
            )

        return exchange.envelope.admit(await all_tools(page))
