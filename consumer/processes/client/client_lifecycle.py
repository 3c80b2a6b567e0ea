"""The life of a client: tries to start, service, end. One task, the owner, does all of it.

The SDK's session and the transport below it are entered and left by the owner, because their cancel scopes belong to
the task that entered them. No other task cancels it. To end it, a task sets a flag, and the owner's own deadline (the
leash) guarantees the end.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from mcp.client.session import ClientSession, MessageHandlerFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from pydantic import ValidationError

from consumer.observability.known_secrets import learn
from consumer.processes.client.connect import connect
from consumer.processes.client.connection import Connection
from consumer.processes.client.era import Era
from consumer.processes.client.introduction import Introduction
from consumer.processes.client.protocol_versions import CLIENT_INFO, negotiate
from consumer.processes.client.questions import Questions
from consumer.processes.client.start_retries import (
    Again,
    Setback,
    root_cause,
    setback_of,
    stopped,
    too_slow,
    tries,
)
from consumer.processes.foreign_text import without_secrets
from consumer.processes.launch.launcher import Launcher, LocalLauncher, Program, program_of
from consumer.processes.secrets import secrets_of
from consumer.processes.service import MCPService
from consumer.processes.stdio.process import ServerProcess
from consumer.sessions.dialogue import DEFAULT_CAPABILITIES
from consumer.sessions.session import ProcessExit
from schemas.errors import SessionsError

LEAVE_TIMEOUT = 6.0
"""Seconds for leaving the session, ending the process and removing its folder; their own budgets sum to less."""

EXIT_TIMEOUT = 0.5
"""Seconds within which the exit is reported after the connection has ended."""

STOP_TIMEOUT = 8.0
"""Seconds after which ``stop`` kills the process group by itself and returns."""

log = structlog.get_logger(__name__)

_owners: set[asyncio.Task[None]] = set()


Initialized = Callable[[ClientSession, JSONRPCDispatcher[Any], Connection, Introduction], Awaitable[None]]
"""Reads what is needed from a server after the handshake. Counts towards ``start_timeout``."""


class ClientLifecycle:
    """Starts and stops a client of ``service``, and notices its death.

    It can be started once. With ``known_era``, the server is not asked for its era. Without a ``launcher`` it makes its
    own, with its own keeper; a worker shares one. ``initialized`` is part of the start. ``hear`` gets the server's
    notifications.
    """

    def __init__(
        self,
        service: MCPService,
        *,
        initialized: Initialized,
        hear: MessageHandlerFnT,
        questions: Questions,
        launcher: Launcher | None,
        known_era: Era | None,
        line_cap: int,
    ) -> None:
        learn(secrets_of(service))
        self.service = service
        self._initialized, self._hear, self._questions = initialized, hear, questions
        self.era = known_era
        self.program: Program = ()
        """The state of its program's file at the start."""
        self._own_launcher = LocalLauncher() if launcher is None else None
        self._launcher: Launcher = launcher if launcher is not None else self._own_launcher or LocalLauncher()
        self._line_cap = line_cap
        self._owner: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._deadline: asyncio.Timeout | None = None
        self._over = asyncio.Event()
        self._started = False
        self._stopping = False
        self._connection: Connection | None = None
        self._session: ClientSession | None = None
        self._exit: ProcessExit | None = None
        self._exit_callbacks: list[Callable[[ProcessExit], None]] = []

    # What a session wants of its process.

    async def start(self) -> None:
        """Start the server, agree on a protocol version, list its tools.

        Raises :class:`StartFailed` or :class:`StartTimeout`; then nothing of the process is left. A start that is
        cancelled ends by itself, soon after.
        """
        if self._owner is not None:
            raise RuntimeError("a client is started once")
        self.program = program_of(self.service)
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
        """End the server and remove its folder. Idempotent, bounded, never raises. Running calls are given up."""
        self._ask_to_stop()
        if self._owner is None:
            return
        await asyncio.wait({self._owner}, timeout=STOP_TIMEOUT)
        if not self._owner.done():
            log.error("client.stop_overdue", service=self.service.name, pid=self.process and self.process.pid)
            if self._connection is not None:
                self._connection.kill()

    @property
    def is_alive(self) -> bool:
        """Whether calls can be served."""
        link = self._connection
        return self._started and not self._over.is_set() and link is not None and link.is_alive

    @property
    def started(self) -> bool:
        """Whether the start has succeeded."""
        return self._started

    @property
    def stopping(self) -> bool:
        """Whether the client was told to stop."""
        return self._stopping

    @property
    def connection(self) -> Connection | None:
        """The connection to the server, once there is one."""
        return self._connection

    @property
    def process(self) -> ServerProcess | None:
        """The server process (``pid``, ``returncode``, ``poll()``); ``None`` before the start and over HTTP."""
        return self._connection.process if self._connection is not None else None

    @property
    def exit(self) -> ProcessExit | None:
        """How the server ended, or None. Over HTTP a lost connection has neither exit code nor signal."""
        return self._exit

    @property
    def session(self) -> ClientSession:
        """The SDK's session: protocol version, server info, capabilities, instructions."""
        if self._session is None:
            raise RuntimeError("the client was not started")
        return self._session

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        """Call ``callback`` once, in the loop, when the server ends without a call of ``stop``.

        If the server has already ended, it is called soon.
        """
        if self._exit is None:
            self._exit_callbacks.append(callback)
        elif not self._stopping:
            asyncio.get_running_loop().call_soon(callback, self._exit)

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in the loop when nothing of the client is left. Works only after ``start``."""
        assert self._owner is not None
        self._owner.add_done_callback(lambda _owner: callback())

    def _ask_to_stop(self) -> None:
        self._stopping = True
        self._over.set()
        if self._deadline is not None and not self._started:
            with contextlib.suppress(RuntimeError):  # it is running out already
                self._deadline.reschedule(asyncio.get_running_loop().time())

    # The owner.

    async def _own(self) -> None:
        assert self._ready is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.service.start_timeout
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        try:
            async for attempt in tries(self._pause, lambda: self._stopping or loop.time() >= deadline):
                with attempt:
                    await self._live(deadline)
        except Setback as setback:
            self._ready.set_exception(without_secrets(setback.error))
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error if isinstance(error, Exception) else stopped(self.service))
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
        """Run one connection from its start to its end. Raises :class:`Setback` if the start fails."""
        if self._stopping:
            raise Setback(stopped(self.service))
        link: Connection | None = None
        try:
            async with (
                asyncio.timeout_at(deadline) as self._deadline,
                connect(self.service, self._launcher, self._line_cap) as link,
            ):
                self._connection = link
                dispatcher = JSONRPCDispatcher(link.read, link.write)
                async with ClientSession(
                    dispatcher=dispatcher,
                    client_info=CLIENT_INFO,
                    elicitation_callback=self._questions.elicit,
                    sampling_callback=self._questions.sample,
                    list_roots_callback=self._questions.list_roots,
                    logging_callback=self._questions.told,
                    message_handler=self._hear,
                ) as session:
                    await self._introduce(session, dispatcher, link)
                    self._deadline.reschedule(None)
                    self._begin(link)
                    await self._over.wait()
                    self._deadline.reschedule(asyncio.get_running_loop().time() + LEAVE_TIMEOUT)
        except BaseException as error:
            if not self._started:
                raise self._setback(error, link) from error
            self._lost(error)
            if not isinstance(error, Exception):
                raise

    async def _introduce(self, session: ClientSession, dispatcher: JSONRPCDispatcher[Any], link: Connection) -> None:
        try:
            offered = DEFAULT_CAPABILITIES | {name: {} for name in self.service.offers}
            about = await negotiate(session, dispatcher, known=self.era, capabilities=offered)
            self._session = session
            await self._initialized(session, dispatcher, link, about)
            self.era = about.era
        except (MCPError, SessionsError, ValidationError) as fault:
            setback = await link.setback(fault, probed=self.era is None)
            if setback.again is Again.AS_OLD:
                self.era = Era.HANDSHAKE
            raise setback from fault
        except BaseException:
            link.hurry()  # it is no session yet: it needs no time to leave
            raise

    def _setback(self, error: BaseException, link: Connection | None) -> Setback:
        if self._stopping:
            return Setback(stopped(self.service))
        if isinstance(error, TimeoutError):
            return Setback(link.too_slow() if link is not None else too_slow(self.service, ""))
        return setback_of(self.service, error)

    def _begin(self, link: Connection) -> None:
        assert self._ready is not None
        self._started = True
        self._ready.set_result(None)
        link.begin(self._gone)

    def _gone(self, ending: ProcessExit) -> None:
        self._exit = ending
        self._over.set()
        if self._stopping:
            return
        for callback in self._exit_callbacks:
            try:
                callback(ending)
            except Exception:
                log.exception("client.exit_callback_failed", service=self.service.name)

    def _lost(self, error: BaseException) -> None:
        """Handle a connection that broke during the session."""
        cause = root_cause(error)
        if not isinstance(cause, asyncio.CancelledError):
            log.warning("client.lost", service=self.service.name, error=repr(cause))
        if self._connection is not None:
            self._connection.break_off(cause)

    async def await_exit(self) -> ProcessExit | None:
        """Wait a moment for the server's end. Return how it ended; a requested stop counts too."""
        link = self._connection
        if link is not None and (ending := await link.wait_gone(EXIT_TIMEOUT)) is not None:
            return ending
        return ProcessExit(exit_code=None, signal=None, stderr="") if self._over.is_set() else None
