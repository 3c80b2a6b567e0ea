"""Checks that a worker runs before a request is sent, because a message in a queue cannot be taken back.

RabbitMQ says how many consumers the workers' shared queues have. From 4.3 on it says so only to users who may read or
write the queue, which clients may not. Such a client sends the workers a question that expires.
"""

import asyncio
from collections.abc import Awaitable, Callable

from consumer.broker.declare import consumers_of, may_exist
from consumer.broker.errors import BrokerUnavailable, NotPermitted
from consumer.broker.link import Link
from consumer.broker.topology import Names, Queue
from consumer.client.missing import see_that_all_is_declared
from consumer.concurrency.task_set import cancel_and_wait
from schemas.errors import Disconnected, NotRouted, NotRoutedReason

MOST_WAITED = 4.0
"""How long (s) a request waits, unsent, for a worker. A restarting worker is away for a moment."""

LOOK_EVERY = 0.25
"""How long (s) to wait after a check that found no worker before the next one."""

SEEN_FOR = 0.1
"""How long (s) after a reply or a check no new check is needed. A check costs a round trip to the broker."""

ANSWERED_FOR = 1.0
"""The same if a check costs two messages: a question to the workers, and the answer."""

ASK_EVERY = 0.5
"""How long (s) a check waits for an answer before it asks again, because a hanging worker may have the question."""

QUESTION_TIMEOUT = 2.0
"""How long (s) workers may take to answer before a check counts as failed."""


class Lookout:
    """Checks for workers on the current link, with one check for all waiting requests. It does nothing at rest.

    ``linked`` returns the link, or raises ``Disconnected``. ``ask`` sends the workers a question, and returns whether
    one of them answered within the given number of seconds.
    """

    def __init__(self, names: Names, linked: Callable[[], Link], ask: Callable[[float], Awaitable[bool]]) -> None:
        self._names = names
        self._linked = linked
        self._ask = ask
        self.seen_until = 0.0
        """Until when (the loop's clock) requests are sent without a check."""
        self.missed = False
        """Whether the latest check has found no worker so far."""
        self._look: asyncio.Task[bool] | None = None
        self._cannot_look: Link | None = None
        """The link on which the broker does not tell this user the number of consumers."""

    def heard(self) -> None:
        """Note that a worker has answered."""
        trusted = SEEN_FOR if self._cannot_look is None else ANSWERED_FOR
        self.seen_until = max(self.seen_until, asyncio.get_running_loop().time() + trusted)

    async def close(self) -> None:
        """Cancel the running check."""
        look, self._look = self._look, None
        if look is not None:
            await cancel_and_wait(look)

    async def wait(self, timeout: float) -> None:
        """Wait until there is a worker.

        Raises:
            NotRouted: none came within ``timeout`` or ``MOST_WAITED`` seconds, or nothing is declared.
            Disconnected: the link was lost before the broker answered.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(timeout, MOST_WAITED)
        missed = False
        while loop.time() >= self.seen_until:
            if (left := until - loop.time()) <= 0:
                if missed or self.missed:
                    raise NotRouted(f"{self.nobody}; nothing was sent", reason=NotRoutedReason.NO_WORKER)
                raise Disconnected("the broker does not answer; nothing was sent", executed=False)
            look = self._current_look()
            await asyncio.wait({look}, timeout=left)
            if look.done():
                if look.cancelled():
                    raise Disconnected("the client was disconnected; nothing was sent", executed=False)
                if look.result():
                    return
                missed = True

    @property
    def nobody(self) -> str:
        """Return the sentence for a prefix without workers."""
        return f"no worker runs under the prefix {self._names.prefix!r}"

    def _current_look(self) -> "asyncio.Task[bool]":
        """Return the running check, or begin one. It is a task, so it outlives the request that began it."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._is_a_worker_there(), name="client-looks-for-workers")
            self._look.add_done_callback(lambda look: look.cancelled() or look.exception())
        return self._look

    async def _is_a_worker_there(self) -> bool:
        """Return whether a worker runs; true also if the connection is lost. A "no" takes ``LOOK_EVERY`` or longer."""
        link = self._linked()
        self.missed = False
        if link is not self._cannot_look:
            try:
                return await self._sees_a_worker(link)
            except NotPermitted:
                self._cannot_look = link
            except BrokerUnavailable:
                return True  # the publish tells what is wrong
        self.missed = True
        answered = await self._ask(ASK_EVERY)
        self.missed = not answered
        return answered

    async def _sees_a_worker(self, link: Link) -> bool:
        # A last worker that drains places no calls any more, and still answers for those that it has.
        if await consumers_of(link, self._names.queries) or await consumers_of(link, self._names.unowned):
            self.heard()
            return True
        self.missed = True
        if not await may_exist(link, Queue(self._names.queries, "")):
            await see_that_all_is_declared(link, self._names)
        await asyncio.sleep(LOOK_EVERY)
        return False

    async def is_left_alone(self) -> bool:
        """Return whether no worker takes questions to the cluster; false also when the connection is lost."""
        try:
            link = self._linked()
            if link is self._cannot_look:
                return not await self._ask(QUESTION_TIMEOUT)
            async with link.scratch() as scratch:
                return await scratch.is_left_alone(self._names.queries)
        except (BrokerUnavailable, Disconnected):
            return False
