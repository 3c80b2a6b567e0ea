"""A link: the worker's two connections, from opening to loss. The first failure ends both.

Consuming and publishing have a connection each: in a memory or disk alarm the broker blocks a connection that publishes
entirely, acknowledgements included. These are plain connections under our own supervisor. With the robust classes of
``aio_pika``, one queue that cannot be restored blocks the restoration of all.
"""

import asyncio
import contextlib
import logging
import math
import secrets
import ssl
from collections.abc import AsyncIterator, Callable

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    AuthenticationError,
    ChannelClosed,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from pamqp import commands
from yarl import URL

from consumer.broker.channel import MOST_HELD, Channel
from consumer.broker.direct_reply import DirectReplies
from consumer.broker.errors import BrokerRefused, BrokerSilent, BrokerUnavailable, BrokerUntrusted, InvalidBrokerUrl
from consumer.broker.given_up import library_gives_up
from consumer.broker.lent_channels import LentChannels
from consumer.broker.pending import Pending
from consumer.broker.publish_channels import PublishChannels, PublishingTerms, SharedChannels
from consumer.broker.raw_channels import closed, opened
from consumer.broker.signature import verified_user
from consumer.broker.transport import TolerantConnection
from consumer.broker.url import problem_of, user_of, vhost_of
from consumer.concurrency.task_set import Tasks
from consumer.observability.logs import get_shared_logger
from consumer.observability.reasons import reason_of

log = get_shared_logger(__name__)

Connect = Callable[..., AbstractConnection]
"""Makes a connection, not open yet, of a URL and ``client_properties``. The simulation passes one of its own."""

CONNECT_TIMEOUT = 10.0
ACCEPT_TIMEOUT = 1.0
CLOSE_TIMEOUT = 3.0
GIVE_UP_TIMEOUT = 0.3
"""How long (s) closing a connection may take if the broker does not answer."""

TICK = 0.5
STALL = 1.5
"""After a standstill of this many heartbeats the broker may have closed the connection.

Others may own our calls then.
"""


_ENDS = ("creating transport", "reader exited abnormally", "Unexpected connection close", "was stuck")
"""Parts of the lines that aiormq logs, some with a traceback, when a connection ends or cannot be opened."""


def _is_no_end(record: logging.LogRecord) -> bool:
    """Return whether a log line says more than that a connection ended, which the supervisor logs with the reason."""
    return not any(part in str(record.msg) for part in _ENDS)


logging.getLogger("aiormq.connection").addFilter(_is_no_end)

logging.getLogger("aiormq.channel").addFilter(lambda record: not str(record.msg).startswith("Closing channel"))
"""It warns of each question that is cancelled, which is how a wait for an answer ends."""

commands.Connection.Open.valid_responses = ["Connection.OpenOk", "Connection.Close"]
"""The possible answers to ``Connection.Open``. Without ``Close``, aiormq would raise the ``repr`` of the frame."""

_PASSING = ("limit", "is down")
"""Words of a refusal that may soon be over: too many connections, or a vhost that is being started."""


class _DirectReplyLookup(commands.Queue.Declare):
    """Checks for a queue whose name has characters (``=``, ``+``) that the library does not allow."""

    def validate(self) -> None:
        """Accept every name."""


def _ignored(_reason: str) -> None:
    """Do nothing about the loss of a channel that may be lost."""


def told(error: BaseException | None) -> str:
    """Return the text of an error to add to a reason; empty if the error has no text."""
    return f": {reason_of(error)}" if str(error or "") else ""


def connection_url(url: str, heartbeat: float) -> URL:
    """Return ``url`` with our heartbeat (s), unless it names one. aiormq ignores the server's and would use 60 s.

    Raises:
        InvalidBrokerUrl: the URL is invalid.
    """
    if (problem := problem_of(url)) is not None:
        raise InvalidBrokerUrl(f"the broker's URL {problem}")
    parsed = URL(url.strip())
    return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=str(max(1, round(heartbeat))))


def _refusal(error: BaseException, url: str) -> str | None:
    """Return the error for a permanent refusal; None if the broker may accept the next try."""
    user, vhost = user_of(url), vhost_of(url)
    no_rights = f"the user {user!r} has no rights in the vhost {vhost!r}"
    match error:
        case AuthenticationError():
            return f"the broker does not support the mechanism of ?auth=; it supports {error.args[0]}"
        case ProbableAuthenticationError() if "vhost" in str(error):
            return no_rights
        case ProbableAuthenticationError():
            return f"the user {user!r} or the password is wrong, or this user may not connect from this machine"
        case ConnectionClosed(args=(530, str(text), *_)) if "not found" in text:
            return f"there is no vhost {vhost!r}; the URL's path is the vhost, with %2F for a /"
        case ConnectionClosed(args=(530, str(text), *_)) if not any(word in text for word in _PASSING):
            return no_rights if "refused for user" in text else text
    return None


def _distrust(error: BaseException | None, url: URL) -> str | None:
    """Return the fault of the broker's certificate or of our certificate files, if that is the cause of an error."""
    while error is not None:
        match error:
            case ssl.SSLCertVerificationError():
                return (
                    f"the certificate of {url.host}:{url.port} is not trusted: {error.verify_message.rstrip('.')}; "
                    "name a private CA's file with ?cafile=, and use a host name that the certificate has"
                )
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                return None  # it has hung up, and may not the next time
            case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
                return (
                    f"{url.host}:{url.port} does not speak TLS: "
                    "name the broker's port for TLS, usually 5671, or write amqp:// for a connection without TLS"
                )
            case ssl.SSLError() | FileNotFoundError() | PermissionError() | IsADirectoryError():
                files = ", ".join(f"{name}={url.query[name]}" for name in _FILES if name in url.query) or "no files"
                return f"TLS with {url.host}:{url.port} failed: {reason_of(error)} ({files})"
        error = error.__cause__ or error.__context__
    return None


_FILES = ("cafile", "capath", "certfile", "keyfile")


class Link:
    """Two connections that open and end together, each made by ``connection``.

    The link fails after a standstill of ``standstill`` seconds, if the heartbeat does not end it sooner. The broker has
    ``connect_timeout`` seconds to open each connection.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        heartbeat: float = 10.0,
        standstill: float = math.inf,
        connect_timeout: float = CONNECT_TIMEOUT,
        connection: Connect = TolerantConnection,
    ) -> None:
        self._given = url
        self._connect_timeout = connect_timeout
        self._silent = False
        self._url = connection_url(url, heartbeat)
        self._stall = min(STALL * float(self._url.query["heartbeat"]) or math.inf, standstill)
        self._name = name
        self._made_by = connection
        self._closing = Tasks()
        self._connections: list[AbstractConnection] = []
        self._consuming: AbstractConnection | None = None
        self.token = secrets.token_hex(3)
        """A random word for each link. The names of its exclusive queues contain it."""
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """A future that gets the reason when the link can no longer be used."""
        self._pending = Pending(self.lost)
        self._asking: tuple[AbstractChannel, Channel] | None = None
        """An idle channel for questions to the broker."""

    async def open(self) -> None:
        """Open the consuming connection. The caller must close the link, even if this fails.

        Raises:
            BrokerRefused: the broker knows no such user, password or vhost.
            BrokerUntrusted: TLS does not prove that it is the broker.
            BrokerSilent: it accepts the connection and does not answer.
        """
        self._consuming = await self._connect("consume")
        self._tick(asyncio.get_running_loop().time())

    async def _connect(self, role: str) -> AbstractConnection:
        connection = self._made_by(self._url, client_properties={"connection_name": f"{self._name} {role}"})
        # Closed with the link even if it never comes about: an open one left to the garbage collector closes itself
        # in whatever loop runs then, or in none.
        self._connections.append(connection)
        try:
            with library_gives_up():
                await connection.connect(timeout=self._connect_timeout)
        except Exception as error:
            if isinstance(error, TimeoutError) and await self._is_accepted():
                self._silent = True
                raise BrokerSilent(
                    f"it accepted the connection, and sent nothing for {self._connect_timeout:g} s"
                ) from error
            if self._url.scheme == "amqps" and (problem := _distrust(error, self._url)) is not None:
                raise BrokerUntrusted(problem) from error
            if (problem := _refusal(error, self._given)) is not None:
                raise BrokerRefused(problem) from error
            raise
        connection.close_callbacks.add(
            lambda _connection, error=None: self.fail(f"the {role} connection was closed{told(error)}")
        )
        return connection

    async def _is_accepted(self) -> bool:
        """Return whether anything accepts connections at the broker's address."""
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT):
                _, writer = await asyncio.open_connection(self._url.host, self._url.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def _tick(self, last: float) -> None:
        """Notice that this process stood still (SIGSTOP, a sleeping machine) before it handles what came meanwhile."""
        if self.lost.done():
            return
        loop = asyncio.get_running_loop()
        if loop.time() - last > self._stall:
            self.fail(f"this process stood still for {loop.time() - last:.1f} s")
        else:
            loop.call_later(TICK, self._tick, loop.time())

    def fail(self, reason: str) -> None:
        """Mark the link as lost. The first reason counts."""
        if not self.lost.done():
            self.lost.set_result(reason)

    async def channel(self, *, prefetch: int = MOST_HELD) -> Channel:
        """Open a channel of the consuming connection. If it is lost, so is the link.

        Raises:
            BrokerUnavailable: the connection is lost.
        """
        _, channel = await self._open_channel(self.fail, self.lost.done)
        await channel.prefetch(prefetch)
        return channel

    @contextlib.asynccontextmanager
    async def scratch(self) -> AsyncIterator[Channel]:
        """Open a channel that may fail. The broker closes the channel on which it answers with 404, 405 or 406.

        Raises:
            BrokerUnavailable: the connection is lost.
        """
        pika, channel = await self._open_channel(_ignored)
        try:
            yield channel
        finally:
            await self._close_channel(pika)

    @contextlib.asynccontextmanager
    async def trial(self) -> AsyncIterator[Channel]:
        """Open a channel that may fail within the block, which closes it then. Afterwards its loss ends the link.

        Raises:
            BrokerUnavailable: the connection is lost, or the channel is closed at the end of the block.
        """
        kept = False

        def lost(reason: str) -> None:
            if kept:
                self.fail(reason)

        pika, channel = await self._open_channel(lost, self.lost.done)
        try:
            await channel.prefetch(MOST_HELD)
            yield channel
            if channel.is_closed:
                raise BrokerUnavailable("the broker has closed the channel")
            kept = True
        finally:
            if not kept:
                await self._close_channel(pika)

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[Channel]:
        """Lend a channel for questions that change nothing. If a refusal has closed it, a new one is opened.

        Raises:
            BrokerUnavailable: the connection is lost.
        """
        idle, self._asking = self._asking, None
        pika, channel = idle if idle is not None and not idle[1].is_closed else await self._open_channel(_ignored)
        try:
            yield channel
        except BaseException:  # an answer may be on its way still
            await self._close_channel(pika)
            raise
        if self._asking is None:
            self._asking = pika, channel
        else:
            await self._close_channel(pika)  # two have asked at once

    async def _open_channel(
        self, on_loss: Callable[[str], None], is_lost: Callable[[], bool] = lambda: False
    ) -> tuple[AbstractChannel, Channel]:
        """Open a channel of the consuming connection. Return it with what closes it.

        Raises:
            BrokerUnavailable: the connection is lost.
        """
        assert self._consuming is not None, "open the link first"
        pika = self._consuming.channel(publisher_confirms=False)
        try:
            raw = await opened(pika, self._pending)
        except BaseException:
            await self._close_channel(pika)
            raise
        return pika, Channel(pika, raw, self._pending, on_loss, is_lost)

    async def _close_channel(self, pika: AbstractChannel) -> None:
        """Close a channel, even if the caller is cancelled: aiormq would then send a second Channel.Close.

        The broker answers a second one by closing the connection.
        """
        closing = self._closing.start(closed(pika), "scratch-close")
        await asyncio.wait({closing})  # if the link is lost meanwhile, ``close`` cancels it, and not the caller

    async def publishing(
        self, *, signed: bool = False, refused: Callable[[str], None] | None = None
    ) -> PublishChannels:
        """Open the publishing connection and its channels. ``signed`` messages carry the name of their user.

        With ``refused``, the link survives a publication that the broker refuses; see ``Publisher``.
        """
        connection = await self._connect("publish")
        user = await verified_user(connection, user_of(str(self._url))) if signed else None
        terms = PublishingTerms(self._pending, DirectReplies(self._is_direct_reply), user)
        if refused is None:
            return await SharedChannels.open(connection, terms, self.fail)
        return LentChannels(terms, connection, self._closing, refused)

    async def _is_direct_reply(self, address: str) -> bool | None:
        """Return whether a direct reply-to address is the broker's.

        The question has its own connection, which may be lost.
        """
        connection = TolerantConnection(self._url, client_properties={"connection_name": f"{self._name} look"})
        try:
            async with self._pending.bounded(CONNECT_TIMEOUT):
                try:
                    await connection.connect()
                    pika = connection.channel(publisher_confirms=False)
                    raw = await opened(pika, self._pending)
                except Exception as error:  # noqa: BLE001 - it lets nobody in just now, and says nothing of the address
                    log.warning("link.reply_address_unchecked", address=address, error=reason_of(error))
                    return None
                await raw.rpc(_DirectReplyLookup(queue=address, passive=True))
        except ChannelClosed:
            return True  # who has asked is gone
        except ConnectionClosed as error:
            log.warning("link.no_direct_reply", address=address, error=reason_of(error))
            return False
        except Exception as error:  # noqa: BLE001 - the link is lost, or the broker takes too long
            log.warning("link.reply_address_unchecked", address=address, error=reason_of(error))
            return None
        else:
            return True
        finally:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await connection.close()

    async def close(self) -> None:
        """Close both connections, each within a time limit. Idempotent.

        The broker requeues what was not acknowledged.
        """
        self.fail("closed by us")
        connections, self._connections = self._connections, []
        for connection in reversed(connections):
            try:
                async with asyncio.timeout(GIVE_UP_TIMEOUT if self._silent else CLOSE_TIMEOUT):
                    await connection.close()
            except Exception as error:  # noqa: BLE001 - a dead connection cannot be closed politely
                log.debug("link.close_failed", error=reason_of(error))
        await self._closing.cancel()
