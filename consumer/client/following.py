"""Follows events of sessions and workers over each link of the client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from pydantic import ValidationError

from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.topology import Binding, Names, Queue
from consumer.client.broker_errors import translating
from schemas.errors import Disconnected
from schemas.events import CloudEvent


@dataclass(slots=True)
class _Followed:
    """One queue of the program, and the way events reach it on the current link."""

    pattern: str
    channel: Channel
    consumer_tag: str
    on_connection: Callable[[bool], None] | None
    connected: bool = True

    def tell(self, *, connected: bool) -> None:
        """Log once that events have stopped, and once that they arrive again."""
        changed, self.connected = self.connected != connected, connected
        if changed and self.on_connection is not None:
            self.on_connection(connected)


class _Events(asyncio.Queue["CloudEvent | None"]):
    """The events of one follower; None at their end, which stays in it for everybody who waits."""

    def get_nowait(self) -> CloudEvent:
        """Return the next event; ``get`` waits until there is one, and calls this.

        Raises:
            QueueEmpty: there is none.
            Disconnected: the client has disconnected, so no event comes any more.
        """
        event = super().get_nowait()
        if event is None:
            self.put_nowait(None)
            raise Disconnected("the client was disconnected; connect it, and follow again", executed=False)
        return event


class Followers:
    """The queues of a program that receive events over the current link.

    ``look_for`` raises ``NotRouted`` if an exchange does not exist, because a follower declares none.
    """

    def __init__(
        self, names: Names, linked: Callable[[], Link], look_for: Callable[[Link, str], Awaitable[None]]
    ) -> None:
        self._names = names
        self._linked = linked
        self._look_for = look_for
        self._link: Link | None = None
        self._followed: dict[_Events, _Followed] = {}

    async def attach(self, link: Link) -> None:
        """Follow the same events over a new link."""
        self._link = link
        for events, followed in self._followed.items():
            followed.channel, followed.consumer_tag = await self._follow(link, events, followed.pattern)
            followed.tell(connected=True)

    def close(self) -> None:
        """Note that the client disconnects: who waits for an event hears it, and nothing is followed any more."""
        for events in self._followed:
            events.put_nowait(None)
        self._followed.clear()

    def detach(self) -> None:
        """Note that the link is lost, so events have stopped."""
        self._link = None
        for followed in self._followed.values():
            followed.tell(connected=False)

    @contextlib.asynccontextmanager
    async def following(
        self, pattern: str, on_connection: Callable[[bool], None] | None = None
    ) -> AsyncIterator["asyncio.Queue[CloudEvent]"]:
        """Follow the events whose routing key matches ``pattern``, in a queue."""
        events = _Events()
        with translating():
            channel, consumer_tag = await self._follow(self._linked(), events, pattern)
            self._followed[events] = followed = _Followed(pattern, channel, consumer_tag, on_connection)
        try:
            yield cast("asyncio.Queue[CloudEvent]", events)
        finally:
            if self._followed.pop(events, None) and (link := self._link):  # else its queue has gone with the connection
                with contextlib.suppress(BrokerUnavailable):
                    await followed.channel.cancel(followed.consumer_tag)
                    await followed.channel.delete_queue(self._queue_of(link, events))
                    await followed.channel.close()

    def _queue_of(self, link: Link, events: _Events) -> str:
        return f"{self._names.prefix}.following.{link.token}.{id(events):x}"

    async def _follow(self, link: Link, events: _Events, pattern: str) -> tuple[Channel, str]:
        def heard(delivery: Delivery) -> None:
            with contextlib.suppress(ValidationError):
                events.put_nowait(CloudEvent.model_validate_json(delivery.message.body, extra="ignore"))

        await self._look_for(link, self._names.events)  # it says which exchange is not there
        name = self._queue_of(link, events)
        async with link.trial() as channel:  # what is refused closes its channel
            await channel.declare_queue(Queue(name, "events for a client", exclusive=True))
            try:
                await channel.bind(Binding(self._names.events, name, pattern))
                consumer_tag = await channel.consume(name, heard, no_ack=True)
            except BaseException:
                with contextlib.suppress(BrokerUnavailable):
                    async with link.scratch() as scratch:
                        await scratch.delete_queue(name)
                raise
        return channel, consumer_tag
