"""The reports of workers: when this one reports and to whom, and how it handles those of others."""

import asyncio
from contextlib import suppress

from consumer.broker.errors import BrokerError
from consumer.broker.message import Message
from consumer.broker.publisher import Publisher
from consumer.broker.rpc import RpcClient
from consumer.broker.topology import Names
from consumer.calls.cluster.membership import SETTLE, Presence
from consumer.calls.placement.placer import Placer
from consumer.worker.own_report import OwnReport
from schemas.ids import WorkerId
from schemas.internal import PresenceReport


class Reports:
    """Publishes this worker's reports, and records every report, including its own.

    ``news`` is set when this worker should report.
    """

    def __init__(
        self,
        worker_id: WorkerId,
        names: Names,
        publisher: Publisher,
        rpc_client: RpcClient,
        *,
        own: OwnReport,
        presence: Presence,
        placer: Placer,
        news: asyncio.Event,
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._publisher = publisher
        self._rpc_client = rpc_client
        self._own = own
        self._presence = presence
        self._placer = placer
        self._news = news
        self._requested = False

    def request(self) -> None:
        """Make this worker report to all workers soon."""
        self._requested = True
        self._news.set()

    def note(self, report: PresenceReport, reports_to: str | None) -> None:
        """Record a report in the table of workers. It may bring room for a call that waits."""
        self._presence.heard(report, self._worker_id, reports_to)
        self._placer.look_for_room()

    async def announce(self, *, to_placer: bool = False) -> None:
        """Report to all workers, or only to the placer if it is known; without a link, only to this worker.

        The placer itself always reports to all, because another worker replaces it if it dies.
        """
        report = self._own.presence()
        reports_to = self._rpc_client.reply_to if self._placer.is_placing else None
        self.note(report, reports_to)
        exchange, key = self._names.workers, ""
        placer, queue = self._presence.placer or (self._worker_id, "")
        if to_placer and placer != self._worker_id:
            exchange, key = "", queue
        with suppress(BrokerError):  # with the next link everybody is told
            await self._publisher.publish(
                Message(
                    body=report.model_dump_json().encode(),
                    type=PresenceReport.type,
                    reply_to=reports_to,
                    persistent=False,
                ),
                exchange,
                key,
                confirm=False,
            )
            if exchange:  # what was not sent does not come back, and who waited for it would wait for ever
                self._presence.reported()

    async def keep_announcing(self, up: asyncio.Event) -> None:
        """Report until cancelled: to all workers on request, and changes of load to the placer.

        ``up`` is set with a link.
        """
        while True:
            await up.wait()  # before, the exchange may not be there
            await self._news.wait()
            if not self._requested:
                await asyncio.sleep(SETTLE)
            self._news.clear()
            asked, self._requested = self._requested, False
            await self.announce(to_placer=not asked)
            if asked:
                await self._prove_heard()

    async def _prove_heard(self) -> None:
        """Record that RabbitMQ has read the last report: it answers a question on the same connection."""
        with suppress(BrokerError):
            await self._publisher.proven()
            self._presence.answered()
