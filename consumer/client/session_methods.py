"""Requests about sessions, services and workers."""

from collections.abc import AsyncIterator
from typing import Literal

from consumer.client.arguments import check_count, naming_arguments
from consumer.client.typed_requests import REPLY_TIMEOUT, TypedRequests, pages
from schemas.base import Json
from schemas.mcp import ListToolsResult
from schemas.replies import CloseResult, FiguresResult, ServerDescription, ServicesResult, SessionsPage, WorkersResult
from schemas.requests import (
    MAX_PAGE,
    ServicesDescribe,
    ServicesList,
    ServicesTools,
    SessionClose,
    SessionCreate,
    SessionDescribe,
    SessionGet,
    SessionsList,
    SessionTouch,
    WorkersFigures,
    WorkersList,
)
from schemas.sessions import SessionInfo

CREATE_TIMEOUT = 60.0
"""How long (s) for ``create``, which includes the wait for room and the start of the MCP server."""

PAGE_SIZE = 500
"""How many sessions ``iter_sessions`` asks for at once."""


@naming_arguments
class SessionMethods(TypedRequests):
    """Opens, reads, lists and closes sessions, and describes services and workers."""

    async def create(
        self,
        session_id: str,
        service_name: str,
        *,
        timeout: float | None = None,
        metadata: Json | None = None,
        if_exists: Literal["replace", "keep", "reject"] = "replace",
        reply_timeout: float = CREATE_TIMEOUT,
    ) -> SessionInfo:
        """Open a session.

        Args:
            session_id: the call's id, or ``<call_id>#<name>`` for a further session of the call. The name is usually
                the service's. It may be any other, because only ``service_name`` selects the service.
            service_name: a configured service.
            timeout: the session's idle timeout (s); without one the configured one.
            metadata: is kept with the session and is part of its events. Bound arguments take their values from it.
            if_exists: what happens if a session with this id is open; ``keep`` returns it if it is on this service.
            reply_timeout: how long (s) to wait. If the start is still waiting for its turn then, it is not carried out.
                One that is under way goes on, and the session may open later.

        Raises:
            ServiceNotFound, ServiceDisabled: there is no such service.
            LimitReached: there is no room (``SessionLimit``, ``ServiceSessionLimit``, ``Capacity``); try again later.
            StartFailed, StartTimeout: its MCP server did not start; details have the last lines of stderr.
            SessionExists: ``if_exists`` is ``reject``, or it is ``keep`` and the open session is on another service.
            NoReply: ``reply_timeout`` is over; the session may open later.
            DeadlineExceeded: it waited longer than ``reply_timeout``, and was not opened. As the client stops waiting
                at the same moment, it mostly raises ``NoReply`` instead.
        """
        return await self._session(
            SessionCreate,
            SessionInfo,
            session_id,
            reply_timeout,
            service_name=service_name,
            timeout=timeout,
            metadata=metadata,
            if_exists=if_exists,
        )

    async def get(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> SessionInfo:
        """Return a session. This counts as a use.

        Raises:
            SessionNotFound: there is no such session.
        """
        return await self._session(SessionGet, SessionInfo, session_id, reply_timeout)

    async def touch(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> SessionInfo:
        """Count a use of a session.

        Raises:
            SessionNotFound: there is no such session.
        """
        return await self._session(SessionTouch, SessionInfo, session_id, reply_timeout)

    async def describe(
        self, session_id: str, *, service_name: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ServerDescription:
        """Return how the MCP server of a session describes itself: era, protocol version, capabilities, instructions.

        Raises:
            SessionNotFound: there is no such session.
        """
        return await self._session(
            SessionDescribe, ServerDescription, session_id, reply_timeout, service_name=service_name
        )

    async def close(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> CloseResult:
        """Close a session, or with a call's id all its sessions. It is not an error if there is none."""
        return await self._session(SessionClose, CloseResult, session_id, reply_timeout)

    async def list_sessions(
        self,
        *,
        service_name: str | None = None,
        call_id: str | None = None,
        worker_id: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> SessionsPage:
        """List the open sessions of all workers, or one page of them; ``cursor`` is the last page's ``next_cursor``."""
        return await self._cluster(
            SessionsList,
            SessionsPage,
            reply_timeout,
            service_name=service_name,
            call_id=call_id,
            worker_id=worker_id,
            limit=limit,
            cursor=cursor,
        )

    async def iter_sessions(
        self,
        *,
        service_name: str | None = None,
        call_id: str | None = None,
        worker_id: str | None = None,
        page_size: int = PAGE_SIZE,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> AsyncIterator[SessionInfo]:
        """Iterate over the open sessions of all workers, page after page, in the order of their ids."""
        check_count("page_size", page_size, MAX_PAGE)
        async for page in pages(
            lambda cursor: self.list_sessions(
                service_name=service_name,
                call_id=call_id,
                worker_id=worker_id,
                limit=page_size,
                cursor=cursor,
                reply_timeout=reply_timeout,
            )
        ):
            for session in page.sessions.values():
                yield session

    async def list_services(self, *, reply_timeout: float = REPLY_TIMEOUT) -> ServicesResult:
        """List the configured services."""
        return await self._cluster(ServicesList, ServicesResult, reply_timeout)

    async def service_tools(self, service_name: str, *, reply_timeout: float = REPLY_TIMEOUT) -> ListToolsResult:
        """List the tools of a service, without a session.

        Raises:
            ServiceNotFound, ServiceDisabled: there is no such service.
            StartFailed, StartTimeout: its server was started for this request, and the start failed.
        """
        return await self._cluster(ServicesTools, ListToolsResult, reply_timeout, service_name=service_name)

    async def describe_service(self, service_name: str, *, reply_timeout: float = REPLY_TIMEOUT) -> ServerDescription:
        """Return how the MCP server of a service describes itself, without a session.

        Raises:
            ServiceNotFound, ServiceDisabled: there is no such service.
            StartFailed, StartTimeout: its server was started for this request, and the start failed.
        """
        return await self._cluster(ServicesDescribe, ServerDescription, reply_timeout, service_name=service_name)

    async def list_workers(self, *, reply_timeout: float = REPLY_TIMEOUT) -> WorkersResult:
        """List the workers that are present."""
        return await self._cluster(WorkersList, WorkersResult, reply_timeout)

    async def worker_figures(self, *, reply_timeout: float = REPLY_TIMEOUT) -> FiguresResult:
        """Return what each worker did in the last minute, and which one places calls."""
        return await self._cluster(WorkersFigures, FiguresResult, reply_timeout)
