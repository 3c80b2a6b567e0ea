"""The clients of one service that were started ahead and wait for their call.

One task, the keeper, keeps their number at what :class:`Demand` says. It wakes up only for events: a client was taken,
died, was started, or is too old.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_exponential, wait_random

from consumer.observability.reasons import reason_of
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.service import MCPService, Warm
from consumer.processes.warm.demand import Demand
from consumer.sessions.session import ProcessExit
from schemas.errors import SessionDied

BACKOFF = wait_exponential(multiplier=0.5, max=60) + wait_random(0, 0.5)
"""Seconds between tries while starts fail. The back-off ends when a client has proved usable."""

COURTESY = 0.05
"""Seconds before a taken client is replaced, so that its call is answered first."""

log = structlog.get_logger(__name__)


class WarmClients:
    """Clients of ``service``, each for one session.

    ``start`` starts one; ``changed`` is called when their number changes.

    Everything runs in the event loop, so no other task can take the client that :meth:`take` returns.
    """

    def __init__(
        self,
        service: MCPService,
        warm: Warm,
        start: Callable[[MCPService], Awaitable[MCPClient]],
        changed: Callable[[], None],
    ) -> None:
        self._service = service
        self._warm = warm
        self._start = start
        self._changed = changed
        self._demand = Demand(warm)
        self._waiting: dict[MCPClient, asyncio.TimerHandle] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._failure: Exception | None = None
        self._proven = False
        self._keeper = asyncio.create_task(self._keep(), name=f"warm-keeper-{service.name}")

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> MCPClient | None:
        """Return the client that has waited longest; ``None`` if none waits. Counts as an arrival."""
        self._demand.arrived(asyncio.get_running_loop().time())
        taken: MCPClient | None = None
        while self._waiting and taken is None:
            client = next(iter(self._waiting))
            self._remove(client)
            if client.is_alive:  # or the news of its end is on its way
                taken, client.start_kind, self._proven = client, "warm", True
        self._news.set()
        return taken

    def put_back(self, client: MCPClient) -> bool:
        """Return an unused client to the pool. ``False`` if the pool does not need it."""
        if client.service != self._service or not client.is_alive or len(self._waiting) >= self._warm.max:
            return False
        self._put(client)
        return True

    def discard(self, client: MCPClient) -> None:
        """Stop a client that was taken and is unusable."""
        self._retire(client)

    def note_start(self, seconds: float) -> None:
        """Record that a call had to start its own client, which took this long."""
        self._demand.took(seconds)
        self._news.set()

    async def close(self) -> None:
        """Start no more clients, stop the waiting ones, and wait for their end. Idempotent, bounded like ``stop``."""
        self._keeper.cancel()
        for task in self._starting:
            task.cancel()
        for client in list(self._waiting):
            self._remove(client)
            self._retire(client)
        await asyncio.wait({self._keeper, *self._starting, *self._retiring})

    # The keeper.

    async def _keep(self) -> None:
        while True:
            async for attempt in AsyncRetrying(wait=BACKOFF, before_sleep=self._begin_trouble):
                with attempt:
                    in_trouble = attempt.retry_state.attempt_number > 1
                    await self._keep_until_proven(carefully=in_trouble)
                    if in_trouble:
                        log.info("warm.recovered", service=self._service.name)

    async def _keep_until_proven(self, *, carefully: bool) -> None:
        """Keep clients waiting until one has proved usable. Raises the reason if one was not.

        ``carefully`` starts one at a time, because the last one failed.
        """
        self._failure, self._proven = None, False
        while not self._proven:
            missing = self._demand.wanted(asyncio.get_running_loop().time()) - len(self._waiting) - len(self._starting)
            for _ in range(min(missing, 1 - len(self._starting)) if carefully else missing):
                task = asyncio.create_task(self._start_one(), name=f"warm-start-{self._service.name}")
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
                task.add_done_callback(lambda _task: self._news.set())
            await self._news.wait()
            await asyncio.sleep(COURTESY)
            self._news.clear()
            if self._failure is not None:
                raise self._failure

    def _begin_trouble(self, state: RetryCallState) -> None:
        # Once for each episode: the error of every try would fill the log of a night.
        if state.attempt_number == 1 and state.outcome is not None:
            error = state.outcome.exception()
            log.warning(
                "warm.failing",
                service=self._service.name,
                error=reason_of(error),
                hint="each call starts its own server",
            )

    async def _start_one(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            client = await self._start(self._service)
        except Exception as failure:  # noqa: BLE001 - the keeper raises it
            self._failure = failure
            return
        self._demand.took(loop.time() - began)
        self._put(client)

    # What happens to those that wait.

    def _put(self, client: MCPClient) -> None:
        # Not all that were started together shall go together.
        age = self._warm.idle_ttl * random.uniform(0.9, 1.0)  # noqa: S311 - no secret
        self._waiting[client] = asyncio.get_running_loop().call_later(age, self._too_old, client)
        client.on_exit(partial(self._died, client))
        self._changed()

    def _remove(self, client: MCPClient) -> None:
        self._waiting.pop(client).cancel()
        self._changed()

    def _too_old(self, client: MCPClient) -> None:
        self._remove(client)
        self._retire(client)
        self._proven = True
        self._news.set()

    def _died(self, client: MCPClient, ending: ProcessExit) -> None:
        if client not in self._waiting:  # its session's business
            return
        self._remove(client)
        name, how = self._service.name, ending.stderr  # of a server at a URL
        if ending.signal is not None:
            how = f"signal {ending.signal}"
        elif ending.exit_code is not None:
            how = f"exit code {ending.exit_code}"
        self._failure = SessionDied(
            f"{name}: the server ended while it waited for a call ({how})",
            **ending.details,
        )
        self._news.set()

    def _retire(self, client: MCPClient) -> None:
        task = asyncio.create_task(client.stop(), name=f"warm-retire-{self._service.name}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
