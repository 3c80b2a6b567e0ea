"""Publishing, through whichever link is alive.

Three kinds of channels: with confirms (the message is in a queue when ``publish`` returns), without (replies, presence
and whatever goes to exchanges that exclusive queues are bound to, which nack while a cluster node is down), and one
of its own for the outbox, whose order must be kept. ``publish_channels`` says what the loss of one costs.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

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

CONFIRM_TIMEOUT = 30.0
"""How long (s) a confirmation may take; a broker in a memory or disk alarm takes its time."""

LOOK_TIMEOUT = 10.0
"""How long (s) the broker may take to say who consumes from a queue."""


def _properties(message: Message, trace: Mapping[str, str], channel: aiormq.Channel, user: str | None) -> Encoded:
    properties = encoded(message, trace, channel.max_content_size, user)
    if properties.left_out:
        log.warning("publish.headers_left_out", type=message.type, headers=properties.left_out)
    return properties


class Publisher:
    """Publishes through the current link; there may be none for a while.

    What is published while something is traced becomes part of that trace; with ``begins_traces`` everything is traced.
    One that ``signs`` publishes under the name of its user (``user_id``), which RabbitMQ verifies.

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
        """Publish through these channels from now on."""
        self._channels = channels
        self._attached.set()

    def detach(self) -> None:
        """Note that there is no link."""
        self._had_one = self._had_one or self._channels is not None
        self._channels = None
        self._attached.clear()

    @property
    def user(self) -> str | None:
        """The user that messages are signed with; None while there is no link, or when nobody can say."""
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
        """Publish, and return when the broker has taken the message over.

        Without ``confirm`` return at once: what is lost with the link is lost, and ``on_return`` is called when no
        queue takes it. ``mandatory`` and ``outbox`` are for messages that are confirmed.

        Raises:
            BrokerUnavailable: there is no link; nothing was sent.
            MessageTooLarge: the broker does not take it, or none does: nothing was sent, or it is in no queue.
            NotPermitted: the user may not publish there; the message is in no queue.
            PublishFailed: returned (no queue to route to) or refused: the message is in no queue.
            PublishUnknown: the link was lost or the confirmation did not come in time.
            Unsendable: no exchange or routing key can be called that; nothing was sent.
        """
        if confirm:
            await self._publish_confirmed(message, exchange, routing_key, mandatory=mandatory, outbox=outbox)
        else:
            await self._publish_unconfirmed(message, exchange, routing_key, on_return)

    async def _publish_confirmed(
        self, message: Message, exchange: str, routing_key: str, *, mandatory: bool, outbox: bool
    ) -> None:
        channels = self._get()
        channel = await channels.take(outbox=outbox)
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
        """How many consume from a queue, which must be there: asked without a message, where messages are published.

        In a memory or disk alarm, and from a queue without a leader, no answer comes, or none that counts anybody.

        Raises:
            BrokerUnavailable: there is no link, or no answer.
        """
        channels = self._get()
        try:
            async with channels.terms.pending.bounded(LOOK_TIMEOUT):
                looking = asyncio.ensure_future(channels.look().queue_declare(queue, passive=True))
                looking.add_done_callback(lambda done: done.cancelled() or done.exception())  # we may have given it up
                with library_gives_up():
                    declared = await asyncio.shield(looking)
        except Exception as error:
            raise BrokerUnavailable(
                f"the broker does not say who consumes from {queue!r}: {reason_of(error)}"
            ) from error
        return declared.consumer_count or 0
