"""Answers requests to the cluster: the workers, the services, and the open sessions of all workers."""

import base64
import binascii
from collections.abc import Callable
from contextlib import aclosing
from typing import Protocol, assert_never

from pydantic import ValidationError
from pydantic_core import to_json

from consumer.broker.message import Delivery, Message
from consumer.broker.outcome import Done, Outcome, told_about
from consumer.broker.rpc import RpcClient
from consumer.broker.settling import Settler
from consumer.broker.topology import Names
from consumer.calls.cluster.membership import PRESENCE_TIMEOUT, Presence
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Configured, ToolProcess
from consumer.calls.events import session_info
from consumer.calls.messages.parsing import about, refused
from consumer.concurrency.task_set import Tasks
from consumer.observability import mask_command
from consumer.sessions import SessionManager
from schemas.base import Json
from schemas.errors import InvalidMessage, SessionsError
from schemas.ids import SessionId, WorkerId, call_id_of
from schemas.internal import FiguresGather, FiguresScatter, SessionsScatter
from schemas.replies import (
    FiguresResult,
    Reply,
    ServicesResult,
    ServiceTools,
    WorkersResult,
    failed,
    parse_reply,
    succeeded,
)
from schemas.requests import (
    ClusterRequest,
    ServicesDescribe,
    ServicesList,
    ServicesTools,
    SessionsList,
    WorkersFigures,
    WorkersList,
    parse_request,
)
from schemas.sessions import ServiceInfo, WorkerFigures

GATHER_TIMEOUT = 1.0
"""How long (s) other workers may take to list their sessions. Those that do not are in ``missing_workers``."""

Scatter = SessionsScatter | FiguresScatter

Told = ServicesList | ServicesTools | ServicesDescribe | WorkersList | WorkersFigures
"""The models of results that are made here."""


class ServiceCatalogue(Protocol):
    """Describes services without a session, starting a server if necessary."""

    async def get_service_tools(self, service_name: str) -> list[Json]:
        """List the tools of a service's server."""
        ...

    async def describe_service(self, service_name: str) -> Json:
        """Return how a service's server describes itself."""
        ...


class Queries:
    """Takes deliveries of the queries queue, and the other workers' questions."""

    def __init__(
        self,
        worker_id: WorkerId,
        names: Names,
        settler: Settler,
        rpc_client: RpcClient,
        *,
        sessions: SessionManager[ToolProcess],
        catalogue: ServiceCatalogue,
        presence: Presence,
        figures: Figures,
        configured: Configured,
        is_placer: Callable[[], bool],
    ) -> None:
        self._worker_id = worker_id
        self._names = names
        self._settler = settler
        self._presence = presence
        self._figures = figures
        self._configured = configured
        self._sessions = sessions
        self._catalogue = catalogue
        self._rpc_client = rpc_client
        self._is_placer = is_placer
        self._tasks = Tasks()

    def take(self, delivery: Delivery) -> None:
        """Answer a request to the cluster."""
        # It is addressed to the cluster: its routing key may be anything, and names no call.
        self._tasks.start(
            self._settler.settle(delivery.about_call(""), self._answer(delivery)), f"query {delivery.type}"
        )

    async def drain(self, timeout: float) -> bool:
        """Wait until the requests in progress are answered."""
        return await self._tasks.drain(timeout)

    async def detach(self) -> None:
        """Drop the requests in progress: the link is lost, and the broker has them back."""
        await self._tasks.cancel()

    async def _answer(self, delivery: Delivery) -> Outcome:
        try:
            request = parse_request(delivery.type, delivery.message.body)
            if not isinstance(request, ClusterRequest):
                raise InvalidMessage(
                    f"{delivery.type} is addressed to a call: publish it to {self._names.sessions!r} or "
                    f"{self._names.requests!r} with the call's routing key",
                    type=delivery.type,
                )
        except SessionsError as error:
            return refused(error)
        return told_about(await self._answered(request), **about(request))

    async def _answered(self, request: ClusterRequest) -> Outcome:
        try:
            if not (isinstance(request, WorkersList) and request.known):
                await self._presence.has_listened(PRESENCE_TIMEOUT)
                # Lists of sessions and figures are asked of each worker; what else is told is in their reports.
                await self._presence.refreshed(0 if isinstance(request, ServicesList | WorkersList) else None)
            return Done(await self._reply(request), routine=not isinstance(request, ServicesTools | ServicesDescribe))
        except SessionsError as error:
            return Done(failed(error))

    async def _reply(self, request: ClusterRequest) -> Reply | bytes:
        if isinstance(request, SessionsList):
            return await self._list(request)
        return succeeded(await self._result(request))

    async def _result(self, request: Told) -> Json:
        match request:
            case ServicesList():
                silent = sorted(self._unaccounted())
                return ServicesResult(services=self._services(), missing_workers=silent).model_dump(mode="json")
            case ServicesTools(service_name=service):
                self._configured.service(service)
                tools = await self._catalogue.get_service_tools(service)
                return ServiceTools(service_name=service, tools=tools).model_dump(mode="json")
            case ServicesDescribe(service_name=service):
                self._configured.service(service)
                return {"service_name": service, **await self._catalogue.describe_service(service)}
            case WorkersList():
                workers = list(self._presence.workers())
                silent = sorted(self._unaccounted())
                return WorkersResult(workers=workers, missing_workers=silent).model_dump(mode="json")
            case WorkersFigures():
                return (await self._figures_of_all()).model_dump(mode="json")
            case _:
                assert_never(request)

    def _services(self) -> dict[str, ServiceInfo]:
        configured = {str(name): service for name, service in self._configured.services.items()}
        found: dict[str, ServiceInfo] = {}
        for worker in self._presence.workers():
            for name, load in worker.services.items():
                before = found.get(name, ServiceInfo())
                found[name] = ServiceInfo(
                    description=load.description,
                    enabled=load.enabled,
                    transport=load.transport,
                    sessions=before.sessions + load.sessions,
                    max_sessions=before.max_sessions + load.max_sessions,
                    command=mask_command(configured[name].command or ()) if name in configured else [],
                )
        return dict(sorted(found.items()))

    async def _list(self, request: SessionsList) -> bytes:
        """Return a reply with a ``SessionsPage``, assembled from the JSON of the workers."""
        scatter = SessionsScatter(
            service_name=request.service_name,
            call_id=request.call_id,
            limit=None if request.limit is None else request.limit + 1,
            after=None if request.cursor is None else _after(request.cursor),
        )
        asked = {worker.worker_id for worker in self._presence.workers()}
        if request.worker_id is not None:
            asked &= {request.worker_id}
        others = asked - {self._worker_id}
        found = self.own_sessions(scatter) if self._worker_id in asked else {}
        answers = await self._ask_others(scatter, others)
        for worker in others & answers.keys():
            part: dict[SessionId, str] = answers[worker]["sessions"]
            found |= part
        missing = (others | self._unaccounted(request.worker_id)) - answers.keys()
        ids = sorted(found)
        more = request.limit is not None and len(ids) > request.limit
        page = ids[: request.limit] if more else ids
        told: Json = {"complete": not missing, "missing_workers": sorted(missing)}
        if more:
            told["next_cursor"] = _cursor(page[-1])
        return _page_reply({session_id: found[session_id] for session_id in page}, told)

    def _unaccounted(self, worker_id: WorkerId | None = None) -> set[WorkerId]:
        """The silent workers whose sessions are not reported as lost yet, or one of them. They are not waited for."""
        silent = self._presence.unaccounted()
        return silent if worker_id is None else silent & {worker_id}

    async def _figures_of_all(self) -> FiguresResult:
        mine = self._worker_id
        others = {worker.worker_id for worker in self._presence.workers()} - {mine}
        answers = await self._ask_others(FiguresScatter(), others)
        found = {mine: self._own_figures()}
        for worker, answer in answers.items():
            found[worker] = FiguresGather.model_validate(answer, strict=False).figures
        return FiguresResult(
            workers=[found[worker] for worker in sorted(found)],
            missing_workers=sorted((others | self._unaccounted()) - answers.keys()),
        )

    def _own_figures(self) -> WorkerFigures:
        return self._figures.last_minute(self._worker_id, placer=self._is_placer())

    async def _ask_others(self, question: Scatter, awaited: set[WorkerId]) -> dict[WorkerId, Json]:
        """Ask all other workers. Return their answers when all awaited ones have come, or at the timeout."""
        if not awaited:
            return {}
        message = Message(body=question.model_dump_json().encode(), type=question.type, persistent=False)
        # Everybody hears the fanout, we ourselves included: we do not answer ourselves. Of a list of one worker the
        # others answer as well, and may be faster.
        answers: dict[WorkerId, Json] = {}
        replies = self._rpc_client.gather(message, self._names.workers, "", timeout=GATHER_TIMEOUT)
        async with aclosing(replies):
            async for heard in replies:
                reply = parse_reply(heard.message.body)
                if reply.ok and reply.result:  # one of another version may not understand
                    answers[_answered_by(reply.result)] = reply.result
                    if awaited <= answers.keys():
                        break
        return answers

    def own_sessions(self, scatter: SessionsScatter) -> dict[SessionId, str]:
        """Return this worker's matching sessions in the order of their ids, each as the JSON text of its info."""
        fitting = sorted(
            session_id
            for session_id, session in self._sessions.sessions.items()
            if (scatter.service_name is None or session.service_name == scatter.service_name)
            and (scatter.call_id is None or call_id_of(session_id) == scatter.call_id)
            and (scatter.after is None or session_id > scatter.after)
        )
        sessions = self._sessions.sessions
        return {
            session_id: _json(session_info(self._worker_id, sessions[session_id]))
            for session_id in fitting[: scatter.limit]
        }

    def take_scatter(self, delivery: Delivery) -> None:
        """Answer a request that another worker sent to all workers."""
        self._tasks.start(self._settler.settle(delivery.about_call(""), self._gathered(delivery)), "query-scatter")

    async def _gathered(self, delivery: Delivery) -> Outcome:
        mine = self._worker_id
        if delivery.type == FiguresScatter.type:
            figures = FiguresGather.model_construct(figures=self._own_figures())
            return Done(succeeded(figures.model_dump(mode="json")), routine=True)
        try:
            scatter = SessionsScatter.model_validate_json(delivery.message.body)
        except ValidationError as error:  # a newer worker's question: it will miss our answer, and say so
            return refused(InvalidMessage(str(error)))
        return Done(succeeded({"worker_id": mine, "sessions": self.own_sessions(scatter)}), routine=True)


def _answered_by(answer: Json) -> WorkerId:
    """Return the worker that sent this part of an answer."""
    return WorkerId((answer.get("figures") or answer)["worker_id"])


def _json(value: object) -> str:
    """Return JSON text in the form that the models write."""
    return to_json(value, inf_nan_mode="null").decode()


def _page_reply(sessions: dict[SessionId, str], told: Json) -> bytes:
    """Return the body of a reply with the result ``told`` and the JSON text of ``sessions``."""
    infos = ",".join([f"{_json(session_id)}:{info}" for session_id, info in sessions.items()])
    return f'{{"ok":true,"result":{{"sessions":{{{infos}}},{_json(told)[1:]}}}'.encode()


def _cursor(session_id: SessionId) -> str:
    return base64.urlsafe_b64encode(session_id.encode("utf-8", "surrogatepass")).decode()


def _after(cursor: str) -> SessionId:
    try:
        return SessionId(
            base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode("utf-8", "surrogatepass")
        )
    except (binascii.Error, UnicodeError) as error:
        raise InvalidMessage(
            "sessions.list: cursor: was not returned with an earlier page", faults=[{"field": "cursor"}]
        ) from error
