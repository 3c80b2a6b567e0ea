"""Keeps a link alive: connects, attaches, waits for the loss, and begins again, with back-off and without end.

Only the first connection gives up: a worker that never reached its broker reports this and exits.
"""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable

import tenacity

from consumer.broker.errors import (
    BrokerForbids,
    BrokerRefused,
    BrokerSilent,
    BrokerUnavailable,
    BrokerUnreachable,
    BrokerUntrusted,
    NameTaken,
    NotPermitted,
)
from consumer.broker.given_up import heed_cancellation
from consumer.broker.link import CONNECT_TIMEOUT, Connect, Link, connection_url
from consumer.broker.publisher import Publisher
from consumer.broker.transport import TolerantConnection
from consumer.broker.url import place_of
from consumer.observability.logs import get_shared_logger
from consumer.observability.reasons import reason_of

log = get_shared_logger(__name__)

BACK_OFF = tenacity.wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.2)
"""The longest pauses between tries (s). They are well below the grace, after which this worker counts as dead."""

HANDSHAKE_TIMEOUT = 5.0
"""How long (s) the broker may take to accept the first connection, even if the configured time is shorter."""

ATTACH_TIMEOUT = 60.0

TELL_EVERY = 60.0
"""How often (s) the log says that the broker is unavailable. A reconnect is tried every second."""

REFUSALS = (BrokerRefused, BrokerUntrusted, NameTaken)
"""Errors that do not go away by waiting: wrong user, password, vhost or certificate, or a name that is in use.

They end the process only at the start. After a first success the process goes on trying, because a vhost may be
restored, or a password changed back.
"""


def unreachable(error: Exception, where: str, within: str = "") -> BrokerUnreachable:
    """Return the error of a failed first connection. It names the broker's address."""
    match error:
        case BrokerRefused():
            return BrokerRefused(f"RabbitMQ at {where} refuses the connection: {reason_of(error)}")
        case BrokerUntrusted():
            return BrokerUntrusted(f"no RabbitMQ at {where}: {reason_of(error)}")
        case BrokerSilent():
            return BrokerUnreachable(f"RabbitMQ at {where} does not answer: {error}")
        case NotPermitted():
            return BrokerForbids(f"RabbitMQ at {where} does not permit what is needed: {error}; {PERMISSIONS_HINT}")
        case NameTaken() | BrokerUnavailable():
            return BrokerUnreachable(f"RabbitMQ at {where} cannot be used{within}: {reason_of(error)}")
    return BrokerUnreachable(f"no RabbitMQ at {where}{within}: {reason_of(error)}")


def log_unreachable(error: BrokerUnreachable) -> None:
    """Log why the first connection has failed for good."""
    match error:
        case BrokerRefused():
            log.error("broker.refused", error=str(error))
        case BrokerForbids():
            log.error("broker.not_permitted", error=str(error))
        case _:
            log.error("broker.unreachable", error=str(error))


PERMISSIONS_HINT = "'mcp-sessions topology permissions' prints the permissions that each role needs"


def _tell_first(state: tenacity.RetryCallState, where: str, connect_timeout: float) -> None:
    """Log why the first try failed: no broker answers, or one answers that we cannot use."""
    error = state.outcome.exception() if state.outcome else None
    tried = f"trying for {connect_timeout:g} s"
    match error:
        case NotPermitted():
            log.info("broker.not_usable", broker=where, hint=f"{PERMISSIONS_HINT}; {tried}", error=_said(state))
        case BrokerUnavailable():
            hint = f"'mcp-sessions topology verify' compares it with what is needed; {tried}"
            log.info("broker.not_usable", broker=where, hint=hint, error=_said(state))
        case _:
            hint = f"start one, or set AMQP_URL to another one; {tried}"
            log.info("broker.not_there", broker=where, hint=hint, error=_said(state))


def _teller(first: str | None = None, *, already: float = 0.0) -> Callable[[tenacity.RetryCallState], None]:
    """Return a function that logs why the broker is away: each cause at once and then once a minute.

    ``first`` was logged at the start. ``already`` is how long (s) the broker had been away before the first try.

    Tries fail every second, and may fail for two causes in turn: so each cause has its own minute.
    """
    told: dict[str, float] = {} if first is None else {_cause(first): 0.0}

    def tell(state: tenacity.RetryCallState) -> None:
        away, said = already + (state.seconds_since_start or 0.0), _said(state)
        if away - told.get(_cause(said), -math.inf) >= TELL_EVERY:
            told[_cause(said)] = away
            log.warning("broker.reconnecting", error=said, tries=state.attempt_number, away_s=round(away, 1))

    return tell


def _cause(said: str) -> str:
    """Return an error's text without figures and link tokens, which differ from try to try."""
    return re.sub(r"\w*\d\w*|\b[0-9a-f]{6}\b", "", said)


def _said(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return reason_of(error)


def _may_pass(error: BaseException) -> bool:
    """Return whether another try may succeed. Our own cancellation is no failure of the broker."""
    return isinstance(error, Exception) and not isinstance(error, REFUSALS)


class Supervisor:
    """Runs links, one after the other.

    ``attach`` is called for each new link, and declares, binds and consumes. If it raises, the link is closed.
    ``detached`` is called when a link has been lost and before the next one is opened.

    Raises:
        InvalidBrokerUrl: ``url`` is invalid.
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
        standstill: float = math.inf,
        connection: Connect = TolerantConnection,
    ) -> None:
        connection_url(url, heartbeat)
        self._url = url
        self._name = name
        self._publisher = publisher
        self._attach = attach
        self._detached = detached
        self._heartbeat = heartbeat
        self._standstill = standstill
        self._connection = connection
        self.up = asyncio.Event()
        """Set while a link is attached."""
        self.reconnects = 0

    async def run(self, *, connect_timeout: float) -> None:
        """Run until cancelled.

        A broker that accepts the connection gets at least ``HANDSHAKE_TIMEOUT`` seconds to finish the handshake.

        Raises:
            BrokerUnreachable: no first link within ``connect_timeout`` seconds.
            BrokerRefused: the broker refuses the login, and will not accept it later.
            BrokerUntrusted: TLS does not prove that it is the broker, or only one side speaks it.
        """
        where = place_of(self._url)

        tell = _teller()

        def tell_first(state: tenacity.RetryCallState) -> None:
            nonlocal tell
            if state.attempt_number == 1:
                _tell_first(state, where, connect_timeout)
                tell = _teller(first=_said(state))
            else:
                tell(state)

        first = tenacity.AsyncRetrying(
            wait=BACK_OFF,
            stop=tenacity.stop_before_delay(connect_timeout),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=tell_first,
            reraise=True,
        )
        try:
            link: Link = await first(self._open, min(CONNECT_TIMEOUT, max(HANDSHAKE_TIMEOUT, connect_timeout)))
        except Exception as error:
            raise unreachable(error, where, f" within {connect_timeout:g} s") from error
        while True:
            lost_at = await self._watch(link)
            self.reconnects += 1
            tell = _teller(already=time.monotonic() - lost_at)
            link = await tenacity.AsyncRetrying(wait=BACK_OFF, before_sleep=tell)(self._open)
            # As loud as the loss: who hears only warnings hears the end of it, too.
            log.warning("broker.reconnected", link=link.token, away_s=round(time.monotonic() - lost_at, 1))

    async def _open(self, connect_timeout: float = CONNECT_TIMEOUT) -> Link:
        link = Link(
            self._url,
            self._name,
            heartbeat=self._heartbeat,
            standstill=self._standstill,
            connect_timeout=connect_timeout,
            connection=self._connection,
        )
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT):
                await link.open()
                publisher = self._publisher
                publisher.attach(await link.publishing(signed=publisher.signs, refused=publisher.refused))
                await self._attach(link)
            heed_cancellation()
        except BaseException as error:
            log.debug("broker.attach_failed", link=link.token, error=repr(error))
            await self._drop(link)
            heed_cancellation()
            raise
        self.up.set()
        log.info("broker.attached", link=link.token)
        return link

    async def _watch(self, link: Link) -> float:
        """Wait until the link is lost, and close it, which takes time. Return the time of the loss."""
        try:
            reason = await link.lost
            lost_at = time.monotonic()
            log.warning("broker.lost", link=link.token, reason=reason)
        finally:
            await self._drop(link)
        return lost_at

    async def _drop(self, link: Link) -> None:
        self.up.clear()
        self._publisher.detach()
        await self._detached()
        await link.close()
