"""Connects an Asterisk with the broker: publishes the events of each connection, and those missed in between."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog
import tenacity
from pydantic_core import to_json

from consumer.bridges.asterisk.known_calls import KnownCalls, Missed
from consumer.bridges.asterisk.pbx import CannotTell, Heard, Pbx, PbxLost, PbxRefused, PbxUnreachable
from consumer.bridges.event_sender import EventSender
from consumer.bridges.kept import Waiting
from consumer.broker.message import Message
from consumer.observability import metrics
from consumer.telephony import Ignored, Translated, translate
from schemas.base import Json, iso
from schemas.calls import CallEvent, CallId

log = structlog.get_logger(__name__)

BACK_OFF = tenacity.wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.2)

TELL_EVERY = 60.0
"""How often (s) an unavailable PBX is logged."""

PING_EVERY = 10.0
PING_TIMEOUT = 10.0
"""How long (s) after a ping a silent PBX is considered lost."""


class Bridge:
    """Receives events of a PBX while ``run`` runs. ``connect`` makes a connection that is not open yet."""

    def __init__(self, connect: Callable[[], Pbx], sender: EventSender, where: str) -> None:
        self._connect = connect
        self._sender = sender
        self._where = where
        self._calls = KnownCalls()
        self._heard_at: datetime | None = None
        self.up = asyncio.Event()
        """Set while the connection to the PBX is up."""

    def __len__(self) -> int:
        """Return how many calls are known to be alive."""
        return len(self._calls)

    async def run(self, *, connect_timeout: float) -> None:
        """Receive events of the PBX until cancelled.

        Raises:
            PbxUnreachable: no first connection within ``connect_timeout`` seconds.
            PbxRefused: wrong credentials at the first connection, or another program has taken our place.
        """
        first = tenacity.AsyncRetrying(
            wait=BACK_OFF,
            stop=tenacity.stop_after_delay(connect_timeout),
            retry=tenacity.retry_if_exception_type(PbxUnreachable),
            before_sleep=self._teller(),
            reraise=True,
        )
        pbx: Pbx = await first(self._opened)
        while True:
            await self._listen(pbx)
            again = tenacity.AsyncRetrying(
                wait=BACK_OFF,
                retry=tenacity.retry_if_exception_type((PbxUnreachable, PbxRefused)),  # a password is changed back
                before_sleep=self._teller(),
            )
            pbx = await again(self._opened)

    async def _opened(self) -> Pbx:
        pbx = self._connect()
        self._calls.cut_off()
        try:
            await pbx.open()
        except BaseException:
            await pbx.close()
            raise
        return pbx

    def _teller(self) -> Callable[[tenacity.RetryCallState], None]:
        told = -TELL_EVERY

        def tell(state: tenacity.RetryCallState) -> None:
            nonlocal told
            away = state.seconds_since_start or 0.0
            if away - told >= TELL_EVERY:
                told = away
                error = state.outcome.exception() if state.outcome else None
                log.info("pbx.reconnecting", pbx=self._where, error=str(error), tries=state.attempt_number)

        return tell

    async def _listen(self, pbx: Pbx) -> None:
        """Receive the events of one connection until it is lost.

        Raises:
            PbxRefused: another program has taken our place.
        """
        reason = ""
        refused: PbxRefused | None = None
        since, self._heard_at = self._heard_at, datetime.now(UTC)
        self.up.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(pbx, group), name="pbx-hear")
                group.create_task(self._keep_alive(pbx), name="pbx-keep-alive")
                group.create_task(self._catch_up(pbx, group, since), name="pbx-catch-up")
        except* PbxLost as lost:
            reason = str(lost.exceptions[0])
        except* PbxRefused as group_of_one:
            refused = next(one for one in group_of_one.exceptions if isinstance(one, PbxRefused))
        finally:
            self.up.clear()
            await pbx.close()
        if refused is not None:
            raise refused
        log.warning("pbx.lost", pbx=self._where, reason=reason, last_heard=_told(self._heard_at))

    async def _hear(self, pbx: Pbx, group: asyncio.TaskGroup) -> None:
        async for heard in pbx.events():
            self._heard_at = datetime.now(UTC)
            self._take(heard, pbx, group)

    def _take(self, heard: Heard, pbx: Pbx, group: asyncio.TaskGroup) -> None:
        match translate(heard.body, platform="asterisk"):
            case Translated(event=event):
                first = self._calls.heard(event, heard.payload)
                self._publish(heard.body, event, first=first)
                if first:
                    group.create_task(self._follow(pbx, event.call_id, heard.payload), name="pbx-follow")
            case Ignored():
                metrics.of(metrics.BRIDGE_EVENTS, "ignored").inc()
            case _:  # a worker makes a dead letter of it, and says why
                self._sender.put(Waiting(Message(heard.body), None, None, at=self._heard_at))

    async def _follow(self, pbx: Pbx, call: CallId, start: Json) -> None:
        if not await pbx.follow(start):
            self._calls.forget(call)
            log.warning(
                "pbx.not_followed",
                call_id=call,
                hint="the PBX refuses the subscription to the channel, so its end may not be heard: give the user of "
                "ARI read_only = no, or set asterisk.subscribe_all",
            )

    def _publish(self, body: bytes, event: CallEvent, *, first: bool = False) -> None:
        self._sender.put(Waiting(Message(body), event.call_id, event.kind, first, datetime.now(UTC)))

    async def _keep_alive(self, pbx: Pbx) -> None:
        while True:
            await asyncio.sleep(PING_EVERY)
            try:
                async with asyncio.timeout(PING_TIMEOUT):
                    await pbx.ping()
            except TimeoutError:
                raise PbxLost(f"the PBX has not answered for {PING_TIMEOUT:g} s") from None
            self._heard_at = datetime.now(UTC)

    async def _catch_up(self, pbx: Pbx, group: asyncio.TaskGroup, since: datetime | None) -> None:
        """List the live channels, and publish what was missed since the connection was lost, or before the start."""
        connected_at = datetime.now(UTC)
        why = None
        missed = Missed([], [], [])
        try:
            starts = [(_event_of(start), start) for start in await pbx.living()]
        except CannotTell as error:
            self._calls.cannot_compare()
            why = str(error)
        else:
            living = {event.call_id: (event, start) for event, start in starts if event is not None}
            missed = self._calls.missed(living, starts=pbx.knows_starts)
            self._make_up(pbx, missed, connected_at)
            for call in [call for call in living if call in self._calls]:
                group.create_task(self._follow(pbx, call, living[call][1]), name="pbx-follow")
        told = {"started": len(missed.started), "changed": len(missed.changed), "ended": len(missed.ended)}
        if since is None:
            unknown = {"calls_unknown": why} if why else {}
            log.info("pbx.attached", pbx=self._where, calls=len(self._calls), **unknown)
            return
        metrics.BRIDGE_GAPS.inc()
        log.warning(
            "pbx.gap",
            pbx=self._where,
            since=iso(since),
            until=iso(connected_at),
            seconds=round((connected_at - since).total_seconds(), 1),
            made_up=told,
            not_made_up=why
            or (None if pbx.knows_starts else "starts, because the application is not subscribed to all channels"),
            hint="the bridge cannot know of calls that began and ended in this time",
        )

    def _make_up(self, pbx: Pbx, missed: Missed, at: datetime) -> None:
        made = [
            *missed.started,
            *(pbx.changed(start, at) for start in missed.changed),
            *(pbx.ended(last, at) for last in missed.ended),
        ]
        for payload in made:
            event = _event_of(payload)
            if event is not None:
                self._calls.heard(event, payload)
                metrics.of(metrics.BRIDGE_EVENTS, "made_up").inc()
                self._publish(to_json(payload), event)


def _event_of(payload: Json) -> CallEvent | None:
    match translate(to_json(payload), platform="asterisk"):
        case Translated(event=event):
            return event
        case _:
            return None


def _told(moment: datetime | None) -> str | None:
    return iso(moment) if moment else None
