"""Messages that workers send each other. They are part of the wire contract between versions of the worker."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from schemas.base import MAX_SECONDS, Json, Strict, Time
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, call_id_of
from schemas.sessions import WorkerFigures, WorkerInfo

MAX_RECIPE = 12 << 20
"""The most bytes of a recipe: from 4.0 RabbitMQ takes no message over 16 MiB, and closes the channel for one."""


class SessionRecipe(Strict):
    """The data to open one session again and to publish its events. ``life`` is the id of its terminal event.

    ``restores`` is the same for all sessions of a recipe: how many workers in a row have died with the call.
    """

    session_id: SessionId
    service_name: ServiceName
    created_at: Time
    last_accessed: Time
    timeout: Annotated[float, Field(gt=0, le=MAX_SECONDS)]
    metadata: Json
    life: str
    restores: int = Field(default=0, ge=0)


class Recipe(Strict):
    """The data to open a call's sessions again. The owner holds it unacknowledged in its inbox while the call lives.

    ``revision`` increases within an owner, so that the older of two recipes can be recognised.
    """

    type: ClassVar[str] = "call.recipe"
    call_id: CallId
    worker_id: WorkerId
    revision: int
    sessions: list[SessionRecipe]

    @model_validator(mode="after")
    def _of_one_call(self) -> Self:
        for one in self.sessions:
            if call_id_of(one.session_id) != self.call_id:
                raise ValueError(f"session {one.session_id!r} does not belong to the call {self.call_id!r}")
        return self


class OwnerCheck(Strict):
    """A worker that was disconnected asks, under the call's routing key, which worker owns the call now."""

    type: ClassVar[str] = "owner.check"
    call_id: CallId
    worker_id: WorkerId
    revision: int


class OwnerAnswer(Strict):
    """Result of ``owner.check``: the owner of the call, or that the call has ended.

    ``link`` is the queue of the link over which the owner answers. Older workers do not name it.
    """

    type: ClassVar[str] = "owner.check.reply"
    call_id: CallId
    owner: WorkerId | None = None
    link: str | None = None
    ended: bool = False


class Probe(Strict):
    """A worker's message to itself through its inbox. It proves that the worker can still take calls."""

    type: ClassVar[str] = "worker.probe"


class PresenceReport(Strict):
    """A worker's report to all others that it is present, with its load.

    ``placements`` maps a placer to the highest of its placement numbers that this load already counts, so that the
    placer can add the placements that are still on their way. ``told`` is the revision of this
    worker's recipes up to which the events of every session have been published. If the worker dies, the placer
    publishes the events of later ones.
    The placer's report has a ``reply_to``, the queue where it wants to get changes of load. This is not a field,
    because older workers read this message strictly, and one that cannot read it treats its sender as absent.
    """

    type: ClassVar[str] = "worker.presence"
    worker: WorkerInfo
    placements: dict[WorkerId, int] = Field(default_factory=dict)
    told: int = 0


class PresenceRequest(Strict):
    """A worker asks all others to report, because it reconnected, became the placer, or must know who is present.

    With a ``reply_to`` it asks for ``worker.endings`` and ``worker.closings`` as well.
    """

    type: ClassVar[str] = "worker.report"
    worker_id: WorkerId


class EndedCalls(Strict):
    """Calls that have ended, each with the time (s since the epoch).

    A call that ``lifted`` names, too, was opened again after its end, at that time. Older workers forget the end of
    such a call whenever they hear of it. They themselves name it in ``lifted`` only.
    """

    type: ClassVar[str] = "worker.endings"
    worker_id: WorkerId
    ended: dict[CallId, float]
    lifted: list[CallId] = Field(default_factory=list)


class ClosedSessions(Strict):
    """Sessions that ``session.close`` has closed, each with a time (s since the epoch): so was what is older than that.

    The id of a call stands for all its sessions. Older workers ignore this, because it is a message of its own.
    """

    type: ClassVar[str] = "worker.closings"
    worker_id: WorkerId
    closed: dict[SessionId, float]


class SessionsScatter(Strict):
    """``sessions.list`` as sent to every worker. Each answers with its sessions whose ids come after ``after``."""

    type: ClassVar[str] = "worker.sessions"
    service_name: ServiceName | None = None
    call_id: CallId | None = None
    limit: int | None = None
    after: SessionId | None = None


class SessionsGather(Strict):
    """One worker's part of ``sessions.list``: the JSON text of each session's info, by id.

    It is passed to the requester unchanged, because parsing a thousand of them would take longer than everything else.
    """

    type: ClassVar[str] = "worker.sessions.reply"
    worker_id: WorkerId
    sessions: dict[SessionId, str]


class FiguresScatter(Strict):
    """``workers.figures`` as sent to every worker. Older workers ignore it, because it is a message of its own."""

    type: ClassVar[str] = "worker.figures"


class FiguresGather(Strict):
    """One worker's part of ``workers.figures``."""

    type: ClassVar[str] = "worker.figures.reply"
    figures: WorkerFigures


INTERNAL: tuple[
    type[
        Recipe
        | OwnerCheck
        | Probe
        | PresenceReport
        | PresenceRequest
        | EndedCalls
        | ClosedSessions
        | SessionsScatter
        | FiguresScatter
    ],
    ...,
] = (
    Recipe,
    OwnerCheck,
    Probe,
    PresenceReport,
    PresenceRequest,
    EndedCalls,
    ClosedSessions,
    SessionsScatter,
    FiguresScatter,
)
"""The messages that workers send each other without a request."""

ANSWERS: tuple[type[OwnerAnswer | SessionsGather | FiguresGather], ...] = (OwnerAnswer, SessionsGather, FiguresGather)
"""The answers between workers, each the ``result`` of a reply of its type."""
