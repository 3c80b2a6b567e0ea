"""This worker among the others: what it tells of itself, and what it hears."""

import asyncio
import os
import socket
from contextlib import suppress

import structlog
from pydantic import ValidationError

from consumer import __version__
from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.calls.cluster.membership import INTERVAL, SETTLE
from consumer.worker.wiring import Parts
from schemas.errors import SessionsError
from schemas.events import EndReason
from schemas.ids import CallId
from schemas.internal import Endings as EndingsMessage
from schemas.internal import FiguresScatter, OwnerCheck, PresenceRequest, SessionsScatter
from schemas.internal import Presence as PresenceMessage
from schemas.replies import REPLY_SUFFIX, parse_reply
from schemas.sessions import ServiceLoad, WorkerInfo

log = structlog.get_logger(__name__)


class Others:
    """Tells the other workers of this one and hears what they say, over the exchange of all workers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def info(self) -> WorkerInfo:
        """This worker as the others see it."""
        parts = self._parts
        limits = parts.sessions.limits
        return WorkerInfo(
            worker_id=parts.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            state=parts.state,
            started_at=parts.started_at,
            sessions=parts.sessions.count(),
            capacity=limits.max_total_sessions,
            services={
                name: ServiceLoad(
                    sessions=parts.sessions.count(name),
                    max_sessions=limits.per_service.get(name, limits.max_sessions_per_service),
                    warm=parts.mcp.warm(name),
                    **service.public(),
                )
                for name, service in parts.settings.services.items()
            },
        )

    async def announce(self) -> None:
        """Tell everybody how it is here; without a link only ourselves."""
        parts = self._parts
        message = PresenceMessage(worker=self.info(), placements=dict(parts.owner.placements), told=parts.owner.told)
        parts.presence.heard(message, parts.worker_id)
        parts.presence.reported()
        with suppress(BrokerError):  # the next report is a second away
            await parts.publisher.fast(
                Message(body=message.model_dump_json().encode(), type=PresenceMessage.type, persistent=False),
                parts.names.workers,
                "",
            )

    async def keep_announcing(self, up: asyncio.Event) -> None:
        """Announce when there is news, and every ``INTERVAL`` seconds, for ever; ``up`` tells of a link."""
        news = self._parts.news
        while True:
            await up.wait()  # before, the exchange may not be there
            news.clear()
            await self.announce()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await news.wait()
                await asyncio.sleep(SETTLE)

    def hear(self, delivery: Delivery) -> None:
        """Take what came to the worker's own queue: the others' reports and questions, and answers to ours."""
        parts = self._parts
        if not parts.origins.heard(delivery):
            log.warning("peers.not_a_worker", type=delivery.type, user=delivery.user)
            return
        match delivery.type:
            case PresenceMessage.type:
                self._hear_presence(delivery)
            case PresenceRequest.type:
                parts.news.set()
                self._tell_endings(delivery.message.reply_to)
            case EndingsMessage.type:
                parts.endings.hear(delivery)
            case SessionsScatter.type | FiguresScatter.type:
                if delivery.message.reply_to != parts.asker.reply_to:  # or it is our own question to everybody
                    parts.queries.take_scatter(delivery)
            case kind if kind == OwnerCheck.type + REPLY_SUFFIX:
                self._hear_owner(delivery)
            case _:
                if not parts.asker.heard(delivery):
                    log.debug("worker.heard_too_late", type=delivery.type)

    def _tell_endings(self, asker: str | None) -> None:
        if asker is None:
            return  # a new placer, whose link is an old one
        if asker == self._parts.asker.reply_to:
            self._parts.endings.tell_again()
        else:
            self._parts.endings.tell_newcomer(asker)

    def _hear_presence(self, delivery: Delivery) -> None:
        try:
            message = PresenceMessage.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version: it will be taken for silent
            log.warning("presence.unreadable", error=str(error))
            return
        if message.worker.worker_id == self._parts.worker_id:
            self._parts.presence.echoed()
        else:
            self._parts.presence.heard(message, self._parts.worker_id)

    def _hear_owner(self, delivery: Delivery) -> None:
        parts = self._parts
        try:
            answer = parse_reply(delivery.message.body).result or {}
        except SessionsError as error:
            log.warning("owner_check.unreadable", error=str(error))
            return
        call_id = CallId(str(answer.get("call_id")))
        if answer.get("ended"):
            parts.owner.give_up(call_id, EndReason.CALL_ENDED)
        elif answer.get("owner", parts.worker_id) != parts.worker_id:
            parts.owner.give_up(call_id, EndReason.SUPERSEDED)
