"""Publishes messages through the current link.

There are three kinds of channels. On those with confirms, the message is in a queue when ``publish`` returns. The one
without confirms carries replies, presence and messages to exclusive queues, which nack while a cluster node is down.
The outbox has a channel of its own, which keeps the order of its events. ``publish_channels`` says what happens when a
channel is lost.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import aiormq
import structlog
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from consumer.broker.errors import (
    BrokerUnavailable,
    MessageTooLarge,
    NoExchange,
    PublishFailed,
    PublishUnknown,
    Unroutable,
    Unsendable,
)
from consumer.broker.given_up import library_gives_up
from consumer.broker.message import MAX_BODY, Message
from consumer.broker.properties import Encoded, encoded
from consumer.broker.publish_channels import PublishChannels
from consumer.broker.publish_frames import published
from consumer.broker.refused_operations import not_permitted
from consumer.broker.returned import Returned
from consumer.observability import tracing
from consumer.observability.reasons import reason_of

log = structlog.get_logger(__name__)

T = TypeVar("T")

CONFIRM_TIMEOUT = 30.0
"""How long (s) a confirm may take. A broker in a memory or disk alarm is slow."""

LOOK_TIMEOUT = 10.0
"""How long (s) the broker may take to answer a question, such as how many consumers a queue has."""


def _properties(message: Message, trace: Mapping[str, str], channel: aiormq.Channel, user: str | None) -> Encoded:
    properties = encoded(message, trace, channel.max_content_size, user)
    if properties.left_out:
        log.warning("publish.headers_left_out", type=message.type, headers=properties.left_out)
    return properties


class Publisher:
    """Publishes through the current link, if there is one.

    A message that is published during a trace becomes part of it. With ``begins_traces`` every message is traced. With
    ``signs``, messages carry the name of the connection's user (``user_id``), which RabbitMQ verifies.

    Without ``refused``, the link is lost when the broker refuses a publication. With it, other confirmed publications
    go on. It is called with the reason when the broker refuses a publication without a confirmation. The broker may
    then have dropped others without a confirmation, too.
    """

    def __init__(
        self, *, begins_traces: bool = False, signs: bool = False, refused: Callable[[str], None] | None = None
    ) -> None:
        self._begins_traces = begins_traces
        self.signs = signs
        self.refused = refused
        self._channels: PublishChannels | None = None
        self._attached = asyncio.Event()
        self._had_one = False
        self._returned = Returned()

    def attach(self, channels: PublishChannels) -> None:
        """Set the channels to publish through, those of a new link."""
        self._channels = channels
        self._attached.set()

    def detach(self) -> None:
        """Forget the channels: the link is lost."""
        self._had_one = self._had_one or self._channels is not None
        self._channels = None
        self._attached.clear()

    @property
    def user(self) -> str | None:
        """The user that messages are signed with; None without a link, or if the broker does not name the user."""
        return self._channels.terms.user if self._channels is not None else None

    @property
    def attached(self) -> bool:
        """Whether there is a link."""
        return self._channels is not None

    @property
    def why_away(self) -> str:
        """The reason why there is no link, as a sentence."""
        return "the connection to the broker is lost; reconnecting" if self._had_one else "connecting to the broker"

    async def wait_attached(self) -> None:
        """Wait until there is a link."""
        await self._attached.wait()

    def _get(self) -> PublishChannels:
        if self._channels is None:
            raise BrokerUnavailable(self.why_away)
        return self._channels

    def _traced(self, message: Message, exchange: str, key: str) -> AbstractContextManager[Mapping[str, str]]:
        return tracing.publishing(message.type, exchange, key, message.message_id, begin=self._begins_traces)

    async def publish(
        self,
        message: Message,
        exchange: str,
        routing_key: str,
        *,
        confirm: bool = True,
        mandatory: bool = True,
        outbox: bool = False,
        on_return: Callable[[], None] | None = None,
    ) -> None:
        """Publish a message. Return when the broker has confirmed it.

        Without ``confirm`` return at once. The message may be lost with the link, and ``on_return`` is called if no
        queue takes it. ``mandatory`` and ``outbox`` are for messages that are confirmed.

        Raises:
            BrokerUnavailable: there is no link; nothing was sent.
            MessageTooLarge: the message is too large for this broker or for any. It is in no queue.
            NotPermitted: the user may not publish there; the message is in no queue.
            PublishFailed: returned (no queue to route to) or refused: the message is in no queue.
            PublishUnknown: the link was lost or the confirmation did not come in time.
            Unsendable: the exchange or routing key is not valid in AMQP; nothing was sent.
        """
        if confirm:
            await self._publish_confirmed(message, exchange, routing_key, mandatory=mandatory, outbox=outbox)
        else:
            await self._publish_unconfirmed(message, exchange, routing_key, on_return)

    async def _publish_confirmed(
        self, message: Message, exchange: str, routing_key: str, *, mandatory: bool, outbox: bool
    ) -> None:
        channels = self._get()
        channel = await channels.take("outbox" if outbox else "message")
        failed = True
        try:
            with self._traced(message, exchange, routing_key) as trace:
                async with channels.terms.pending.bounded(CONFIRM_TIMEOUT):
                    with library_gives_up():
                        await channel.basic_publish(
                            message.body,
                            exchange=exchange,
                            routing_key=routing_key,
                            properties=_properties(message, trace, channel, channels.terms.user),
                            mandatory=mandatory,
                            wait=False,
                        )
            failed = False
        except PublishError as error:
            failed = False
            raise Unroutable(f"no queue takes {routing_key!r} from exchange {exchange!r}") from error
        except DeliveryError as error:
            raise PublishFailed(f"the broker refused a message for {exchange!r} {routing_key!r}") from error
        except ChannelNotFoundEntity as error:
            raise NoExchange(f"there is no exchange {exchange!r}: {reason_of(error)}") from error
        except ChannelAccessRefused as error:
            raise not_permitted(error, "publish") from error
        except ChannelPreconditionFailed as error:
            if self.refused is None:  # the channel was not ours alone, and neither may the refusal be
                raise PublishUnknown(f"no confirmation for {exchange!r} {routing_key!r}: {reason_of(error)}") from error
            raise MessageTooLarge(f"{message.type}: the broker refused it: {reason_of(error)}") from error
        except (ValueError, TypeError) as error:
            raise Unsendable(f"the message to {exchange!r} {routing_key!r} cannot be encoded: {error}") from error
        except Exception as error:  # a lost channel rejects its futures with whatever closed it
            raise PublishUnknown(f"no confirmation for {exchange!r} {routing_key!r}: {reason_of(error)}") from error
        finally:
            channels.give_back(channel, failed=failed)

    async def _publish_unconfirmed(
        self, message: Message, exchange: str, routing_key: str, on_return: Callable[[], None] | None
    ) -> None:
        if len(message.body) > MAX_BODY:
            raise MessageTooLarge(f"{message.type}: has {len(message.body)} bytes; a message can have {MAX_BODY}")
        channels = self._get()
        channel = await channels.unconfirmed()
        if channel.is_closed or channels.terms.pending.over:
            raise BrokerUnavailable("the connection to the broker was lost")
        if not exchange and not await channels.terms.direct_replies.can_be(routing_key):
            raise Unsendable(f"{routing_key!r} is no direct reply-to address of this broker")
        try:
            with self._traced(message, exchange, routing_key) as trace:
                properties = _properties(message, trace, channel, channels.terms.user).marshal()
                most = max(0, channel.max_content_size)
                frames = published(
                    channel.number,
                    exchange,
                    routing_key,
                    properties,
                    message.body,
                    most,
                    mandatory=on_return is not None,
                )
                if on_return is not None:
                    self._returned.expect(channel, message.message_id, on_return)
                try:
                    channel.write_queue.put_nowait(frames)
                except asyncio.QueueFull:
                    async with channels.terms.pending.bounded():
                        await channel.write_queue.put(frames)
        except (ValueError, TypeError) as error:
            raise Unsendable(f"the message to {exchange!r} {routing_key!r} cannot be encoded: {error}") from error
        except Exception as error:
            raise BrokerUnavailable(f"the connection to the broker was lost: {reason_of(error)}") from error

    async def consumers_of(self, queue: str) -> int:
        """Return how many consumers an existing queue has. No message is sent.

        In a memory or disk alarm, or if the queue has no leader, there is no answer, or the answer is 0.

        Raises:
            BrokerUnavailable: there is no link, or no answer.
        """
        channels = self._get()
        channel = await channels.take("question")
        failed = True
        try:
            declared = await _answer(channels, channel.queue_declare(queue, passive=True))
            failed = False
        except Exception as error:
            raise BrokerUnavailable(
                f"the broker did not say how many consumers {queue!r} has: {reason_of(error)}"
            ) from error
        finally:
            channels.give_back(channel, failed=failed)
        return declared.consumer_count or 0

    async def proven(self) -> None:
        """Wait for an answer of the broker: it has read everything that was published before, also without a confirm.

        In a memory or disk alarm there is no answer.

        Raises:
            BrokerUnavailable: there is no link, or no answer.
        """
        channels = self._get()
        channel = await channels.unconfirmed()
        try:
            await _answer(channels, channel.basic_qos(prefetch_count=0))  # changes nothing
        except Exception as error:
            raise BrokerUnavailable(f"the broker did not answer: {reason_of(error)}") from error


async def _answer(channels: PublishChannels, asking: Coroutine[Any, Any, T]) -> T:
    """Return the answer to a question. Giving it up leaves the channel as it is: the library would close it."""
    async with channels.terms.pending.bounded(LOOK_TIMEOUT):
        answer = asyncio.ensure_future(asking)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        with library_gives_up():
            return await asyncio.shield(answer)
