"""The peers of a worker: what it tells the other workers of itself, and what it hears of them."""

import asyncio
import math
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from pydantic import ValidationError

from consumer import __version__
from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery, Message
from consumer.calls.cluster.membership import SETTLE
from consumer.worker.wiring import Parts
from schemas.errors import SessionsError
from schemas.events import EndReason
from schemas.ids import CallId, WorkerId
from schemas.internal import EndedCalls, FiguresScatter, OwnerCheck, PresenceReport, PresenceRequest, SessionsScatter
from schemas.replies import REPLY_SUFFIX, parse_reply
from schemas.sessions import ServiceLoad, WorkerInfo

log = structlog.get_logger(__name__)

OLDER_EVERY = 0.9
"""How often (s) a worker reports while an older one is heard, which asks for a report every second."""


class Peers:
    """Tells the other workers of this one and hears what they say, over the exchange of all workers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._report_requested = False
        self._answered_older = -math.inf

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

    async def announce(self, *, to_placer: bool = False) -> None:
        """Tell everybody how it is here, or only the placer if we know who that is; without a link only ourselves.

        What the placer has told is known to all: another one speaks for it when it dies.
        """
        parts = self._parts
        message = PresenceReport(
            worker=self.info(),
            placements=dict(parts.owner.placements),
            told=parts.ownership.recovery.told,
        )
        reports_to = parts.rpc_client.reply_to if parts.placer.is_placing else None
        self._note_report(message, reports_to)
        exchange, key = parts.names.workers, ""
        placer, queue = parts.presence.placer or (parts.worker_id, "")
        if to_placer and placer != parts.worker_id:
            exchange, key = "", queue
        with suppress(BrokerError):  # with the next link everybody is told
            await parts.publisher.publish(
                Message(
                    body=message.model_dump_json().encode(),
                    type=PresenceReport.type,
                    reply_to=reports_to,
                    persistent=False,
                ),
                exchange,
                key,
                confirm=False,
            )
            if exchange:  # what was not sent does not come back, and who waited for it would wait for ever
                parts.presence.reported()

    async def keep_announcing(self, up: asyncio.Event) -> None:
        """Announce for ever: to everybody when asked, and changes of load to the placer; ``up`` tells of a link."""
        news = self._parts.news
        while True:
            await up.wait()  # before, the exchange may not be there
            await news.wait()
            if not self._report_requested:
                await asyncio.sleep(SETTLE)
            news.clear()
            everybody, self._report_requested = self._report_requested, False
            await self.announce(to_placer=not everybody)

    async def keep_watching(self, up: asyncio.Event, consumed: Callable[[WorkerId], Awaitable[bool]]) -> None:
        """Look after our neighbour, for ever: ``consumed`` says whether somebody consumes from a worker's inbox.

        So everybody knows of a worker that has gone, with calls or without, in the time that its calls wait for it.
        """
        presence = self._parts.presence
        while True:
            await up.wait()
            await asyncio.sleep(presence.watch_every)
            neighbour = presence.neighbour()
            if neighbour is None:
                continue
            with suppress(BrokerError):  # the link is lost, or will be
                if not await consumed(neighbour):
                    presence.missed()

    def hear(self, delivery: Delivery) -> None:
        """Take what came to the worker's own queue: the others' reports and questions, and answers to ours."""
        parts = self._parts
        if not parts.origins.heard(delivery):
            log.warning("peers.not_a_worker", type=delivery.type, user=delivery.user)
            return
        match delivery.type:
            case PresenceReport.type:
                self._hear_presence(delivery)
            case PresenceRequest.type:
                self._report_requested = True
                parts.news.set()
                parts.presence.asked()
                self._tell_endings(delivery.message.reply_to)
            case EndedCalls.type:
                parts.endings.hear(delivery)
            case SessionsScatter.type | FiguresScatter.type:
                if delivery.message.reply_to != parts.rpc_client.reply_to:  # or it is our own request to all workers
                    parts.queries.take_scatter(delivery)
            case kind if kind == OwnerCheck.type + REPLY_SUFFIX:
                self._hear_owner(delivery)
            case _:
                if not parts.rpc_client.receive(delivery):
                    log.debug("worker.heard_too_late", type=delivery.type)

    def _tell_endings(self, asker: str | None) -> None:
        if asker is None:
            return  # a new placer, whose link is an old one
        if asker == self._parts.rpc_client.reply_to:
            self._parts.endings.tell_again()
        else:
            self._parts.endings.tell_newcomer(asker)

    def _hear_presence(self, delivery: Delivery) -> None:
        try:
            message = PresenceReport.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version: it will be taken for silent
            log.warning("presence.unreadable", error=str(error))
            return
        if message.worker.worker_id == self._parts.worker_id:
            if message.worker.started_at == self._parts.started_at:
                self._parts.presence.echoed()
            else:
                self._hear_rival(message.worker)
        else:
            self._note_report(message, delivery.message.reply_to)
            if delivery.user is None:
                self._answer_older()

    def _note_report(self, message: PresenceReport, reports_to: str | None) -> None:
        self._parts.presence.heard(message, self._parts.worker_id, reports_to)
        self._parts.placer.look_for_room()

    def _answer_older(self) -> None:
        """An older worker reports every second, and takes whoever does not for dead."""
        now = asyncio.get_running_loop().time()
        if now - self._answered_older >= OLDER_EVERY:
            self._answered_older = now
            self._report_requested = True
            self._parts.news.set()

    def _hear_rival(self, rival: WorkerInfo) -> None:
        """Another process has our id: of two that came at the same time, the younger one goes."""
        goes = self._parts.joining or rival.started_at < self._parts.started_at
        if goes and not self._parts.rival.done():
            self._parts.rival.set_result(rival)

    def _hear_owner(self, delivery: Delivery) -> None:
        parts = self._parts
        try:
            answer = parse_reply(delivery.message.body).result or {}
        except SessionsError as error:
            log.warning("owner_check.unreadable", error=str(error))
            return
        call_id = CallId(str(answer.get("call_id")))
        if answer.get("ended"):
            parts.ownership.closing.give_up(call_id, EndReason.CALL_ENDED)
        elif answer.get("owner", parts.worker_id) != parts.worker_id:
            parts.ownership.closing.give_up(call_id, EndReason.SUPERSEDED)
