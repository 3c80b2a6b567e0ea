"""The peers of a worker: handles their messages, and checks on one of them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from pydantic import ValidationError

from consumer.broker.errors import BrokerError
from consumer.broker.message import Delivery
from consumer.broker.rpc import RpcClient
from consumer.calls.cluster.ended_calls import Endings
from consumer.calls.cluster.membership import Presence
from consumer.calls.messages.origin import Origins
from consumer.calls.ownership.closing import Closing
from consumer.calls.queries import Queries
from consumer.worker.id_claim import IdClaim
from consumer.worker.reports import Reports
from schemas.errors import SessionsError
from schemas.ids import CallId, WorkerId
from schemas.internal import (
    ClosedSessions,
    EndedCalls,
    FiguresScatter,
    OwnerCheck,
    PresenceReport,
    PresenceRequest,
    SessionsScatter,
)
from schemas.replies import REPLY_SUFFIX, parse_reply

log = structlog.get_logger(__name__)


class Peers:
    """Handles messages of other workers, from the exchange of all workers and from this worker's own queue."""

    def __init__(
        self,
        worker_id: WorkerId,
        claim: IdClaim,
        reports: Reports,
        *,
        origins: Origins,
        presence: Presence,
        endings: Endings,
        queries: Queries,
        closing: Closing,
        rpc_client: RpcClient,
    ) -> None:
        self._worker_id = worker_id
        self._claim = claim
        self._reports = reports
        self._origins = origins
        self._presence = presence
        self._endings = endings
        self._queries = queries
        self._closing = closing
        self._rpc_client = rpc_client

    async def keep_watching(self, up: asyncio.Event, consumed: Callable[[WorkerId], Awaitable[bool]]) -> None:
        """Check our neighbour until cancelled. ``consumed`` says whether a worker's inbox has a consumer.

        So all workers know that a worker is gone within the time that its calls wait for it, even if it had none. Each
        worker also finds out whether a silent one hangs and still holds its calls.
        """
        while True:
            await up.wait()
            await asyncio.sleep(self._presence.watch_every)
            neighbour = self._presence.neighbour()
            with suppress(BrokerError):  # the link is lost, or will be
                if neighbour is not None and not await consumed(neighbour):
                    self._presence.missed()
                for worker in self._presence.unaccounted():
                    if await consumed(worker):
                        self._presence.held(worker)

    def hear(self, delivery: Delivery) -> None:
        """Take a message from the worker's own queue: reports, requests and replies of other workers."""
        if not self._origins.heard(delivery):
            log.warning("peers.not_a_worker", type=delivery.type, user=delivery.user)
            return
        match delivery.type:
            case PresenceReport.type:
                self._hear_presence(delivery)
            case PresenceRequest.type:
                self._reports.request()
                self._presence.asked()
                self._tell_endings(delivery.message.reply_to)
            case EndedCalls.type | ClosedSessions.type:
                for call_id in self._endings.hear(delivery):
                    self._closing.closed_elsewhere(call_id)
            case SessionsScatter.type | FiguresScatter.type:
                if delivery.message.reply_to != self._rpc_client.reply_to:  # or it is our own request to all workers
                    self._queries.take_scatter(delivery)
            case kind if kind == OwnerCheck.type + REPLY_SUFFIX:
                self._hear_owner(delivery)
            case _:
                if not self._rpc_client.receive(delivery):
                    log.debug("worker.heard_too_late", type=delivery.type)

    def _tell_endings(self, asker: str | None) -> None:
        if asker is None:
            return  # a new placer, whose link is an old one
        if asker == self._rpc_client.reply_to:
            self._endings.tell_again()
        else:
            self._endings.tell_newcomer(asker)

    def _hear_presence(self, delivery: Delivery) -> None:
        try:
            report = PresenceReport.model_validate_json(delivery.message.body)
        except ValidationError as error:  # of another version: it will be taken for silent
            log.warning("presence.unreadable", error=str(error))
            return
        if report.worker.worker_id != self._worker_id:
            self._reports.note(report, delivery.message.reply_to)
        elif self._claim.is_ours(report.worker):
            self._presence.echoed()
        else:
            self._claim.hear(report.worker)

    def _hear_owner(self, delivery: Delivery) -> None:
        try:
            answer = parse_reply(delivery.message.body).result or {}
        except SessionsError as error:
            log.warning("owner_check.unreadable", error=str(error))
            return
        call_id = CallId(str(answer.get("call_id")))
        if answer.get("ended"):
            self._closing.end_elsewhere(call_id)
        elif (owner := WorkerId(str(answer.get("owner", self._worker_id)))) != self._worker_id:
            self._closing.yield_to(call_id, owner, str(answer.get("link")))
