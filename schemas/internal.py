"""Messages that workers send each other. They are part of the wire contract between versions of the worker."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from schemas.base import MAX_SECONDS, Json, Strict, Time
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, call_id_of
from schemas.sessions import WorkerFigures, WorkerInfo

MAX_RECIPE = 12 << 20
"""The most bytes of a recipe: from 4.0 RabbitMQ takes no message over 16 MiB, and closes the channel for one."""


class SessionRecipe(Strict):
    """What is needed to open one session again, and to tell of it; ``life`` is the id of its terminal event."""

    session_id: SessionId
    service_name: ServiceName
    created_at: Time
    last_accessed: Time
    timeout: Annotated[float, Field(gt=0, le=MAX_SECONDS)]
    metadata: Json
    life: str
    restores: int = Field(default=0, ge=0)


class Recipe(Strict):
    """What is needed to open a call's sessions again; held unacknowledged in the owner's inbox while the call lives.

    ``revision`` counts up within an owner, so that an older recipe is known when both come back.
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
                raise ValueError(f"session {one.session_id!r} is not one of the call {self.call_id!r}")
        return self


class OwnerCheck(Strict):
    """A worker that was away asks, under the call's routing key, who owns the call now."""

    type: ClassVar[str] = "owner.check"
    call_id: CallId
    worker_id: WorkerId
    revision: int


class OwnerAnswer(Strict):
    """Result of ``owner.check``: who owns the call, or that it has ended."""

    type: ClassVar[str] = "owner.check.reply"
    call_id: CallId
    owner: WorkerId | None = None
    ended: bool = False


class Probe(Strict):
    """A worker's message to itself through its inbox, which proves that it can still be given a call."""

    type: ClassVar[str] = "worker.probe"


class PresenceReport(Strict):
    """What a worker tells all others: that it is there, and its load.

    ``placements`` maps a placer to the highest of its placement numbers that this load already counts, so that the
    placer can add what is still on its way. ``told`` is the highest revision of a recipe of its own up to which the
    world has been told of every session: should the worker die, the placer tells of those that came later.
    The placer's has a ``reply_to``: the queue in which it wants to hear of changes of load. It is no field, because
    older workers read this strictly, and one that cannot read it takes its sender for absent.
    """

    type: ClassVar[str] = "worker.presence"
    worker: WorkerInfo
    placements: dict[WorkerId, int] = Field(default_factory=dict)
    told: int = 0


class PresenceRequest(Strict):
    """A worker asks everybody to report: it has a new link, has become the placer, or must know who lives.

    With a ``reply_to`` it asks for ``worker.endings`` as well.
    """

    type: ClassVar[str] = "worker.report"
    worker_id: WorkerId


class EndedCalls(Strict):
    """Calls that have ended, and when (s since the epoch); and calls that were opened again though they had."""

    type: ClassVar[str] = "worker.endings"
    worker_id: WorkerId
    ended: dict[CallId, float]
    lifted: list[CallId] = Field(default_factory=list)


class SessionsScatter(Strict):
    """``sessions.list`` on its way to every worker; each answers with what it has after ``after``, by id."""

    type: ClassVar[str] = "worker.sessions"
    service_name: ServiceName | None = None
    call_id: CallId | None = None
    limit: int | None = None
    after: SessionId | None = None


class SessionsGather(Strict):
    """One worker's part of ``sessions.list``: by id the JSON text of each session's info.

    It goes on to who asked as it is: reading and writing a thousand of them takes longer than all the rest.
    """

    type: ClassVar[str] = "worker.sessions.reply"
    worker_id: WorkerId
    sessions: dict[SessionId, str]


class FiguresScatter(Strict):
    """``workers.figures`` on its way to every worker. A message of its own: older workers take no notice of it."""

    type: ClassVar[str] = "worker.figures"


class FiguresGather(Strict):
    """One worker's part of ``workers.figures``."""

    type: ClassVar[str] = "worker.figures.reply"
    figures: WorkerFigures


INTERNAL: tuple[
    type[
        Recipe | OwnerCheck | Probe | PresenceReport | PresenceRequest | EndedCalls | SessionsScatter | FiguresScatter
    ],
    ...,
] = (
    Recipe,
    OwnerCheck,
    Probe,
    PresenceReport,
    PresenceRequest,
    EndedCalls,
    SessionsScatter,
    FiguresScatter,
)
"""What workers send each other unasked."""

ANSWERS: tuple[type[OwnerAnswer | SessionsGather | FiguresGather], ...] = (OwnerAnswer, SessionsGather, FiguresGather)
"""What workers answer each other: each the ``result`` of a reply of its type."""
