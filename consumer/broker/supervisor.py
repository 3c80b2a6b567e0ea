"""Keeping a link alive: connect, attach, wait for the loss, again; with back-off and without an end.

Nothing here gives up, but for the very first connection: a worker that never reached its broker says so and exits.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
import tenacity
from aiormq.exceptions import AuthenticationError, ConnectionNotAllowed, ProbableAuthenticationError
from yarl import URL

from consumer.broker.errors import BrokerUnreachable, BrokerUntrusted
from consumer.broker.link import Link
from consumer.broker.publisher import Publisher

log = structlog.get_logger(__name__)

BACK_OFF = tenacity.wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.2)
"""Stays well under the grace: a worker that is late after a restart of the broker is taken for dead."""

ATTACH_TIMEOUT = 60.0

REFUSALS = (AuthenticationError, ProbableAuthenticationError, ConnectionNotAllowed, BrokerUntrusted)
"""What a broker says that will not say otherwise in a minute: a wrong user, password, vhost or certificate."""


class Supervisor:
    """Runs links, one after the other.

    ``attach`` declares, binds and consumes on a new link and is called for each; when it raises, the link is given up.
    ``detached`` is called when a link has been lost and before the next one is opened.
    """

    def __init__(
        self,
        url: str,
        name: str,
        publisher: Publisher,
        *,
        attach: Callable[[Link], Awaitable[None]],
        detached: Callable[[], Awaitable[None]],
        heartbeat: float = 10.0,
    ) -> None:
        self._url = url
        self._name = name
        self._publisher = publisher
        self._attach = attach
        self._detached = detached
        self._heartbeat = heartbeat
        self.up = asyncio.Event()
        """Set while a link is attached."""
        self.reconnects = 0

    async def run(self, *, connect_timeout: float) -> None:
        """Run until cancelled.

        Raises:
            BrokerUnreachable: no first link within ``connect_timeout`` seconds.
        """
        where = URL(self._url).with_user(None).with_password(None).with_query(None)

        def tell_first(state: tenacity.RetryCallState) -> None:
            if state.attempt_number == 1:
                hint = f"start one, or name another in AMQP_URL; I try for {connect_timeout:g} s"
                log.info("broker.not_there", broker=str(where), hint=hint)
            self._tell(state)

        first = tenacity.AsyncRetrying(
            wait=BACK_OFF,
            stop=tenacity.stop_after_delay(connect_timeout),
            retry=tenacity.retry_if_not_exception_type(REFUSALS),
            before_sleep=tell_first,
            reraise=True,
        )
        try:
            link: Link = await first(self._open)
        except Exception as error:
            within = "" if isinstance(error, REFUSALS) else f" within {connect_timeout:g} s"
            raise BrokerUnreachable(f"no RabbitMQ at {where}{within}: {error}") from error
        while True:
            await self._watch(link)
            self.reconnects += 1
            link = await tenacity.AsyncRetrying(wait=BACK_OFF, before_sleep=self._tell)(self._open)

    async def _open(self) -> Link:
        link = Link(self._url, self._name, heartbeat=self._heartbeat)
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT):
                await link.open()
                self._publisher.attach(await link.publishing())
                await self._attach(link)
        except BaseException as error:
            log.debug("broker.attach_failed", link=link.token, error=repr(error))
            await self._drop(link)
            raise
        self.up.set()
        log.info("broker.attached", link=link.token)
        return link

    async def _watch(self, link: Link) -> None:
        try:
            reason = await link.lost
            log.warning("broker.lost", link=link.token, reason=reason)
        finally:
            await self._drop(link)

    async def _drop(self, link: Link) -> None:
        self.up.clear()
        self._publisher.detach()
        await self._detached()
        await link.close()

    def _tell(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info("broker.reconnecting", error=str(error), delay_s=round(state.upcoming_sleep, 2))
