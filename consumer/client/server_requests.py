"""Requests to the MCP server of a session: its tools, resources and prompts."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, Required, TypedDict

from consumer.client.asking import REPLY_TIMEOUT, Asking
from schemas.base import Json
from schemas.ids import call_id_of
from schemas.interim import InputRequired, Interim, ToolsPending, ToolsProgress
from schemas.mcp import (
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    Prompt,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
)
from schemas.replies import ToolCallResult
from schemas.requests import InputAnswer, PromptsGet, PromptsList, ResourcesList, ResourcesRead, ToolsCall, ToolsList


class Answer(TypedDict, total=False):
    """What ``on_question`` returns; ``content`` is what the question's schema asks for."""

    action: Required[Literal["accept", "decline", "cancel"]]
    content: Json | None


class ServerRequests(Asking):
    """Lists and uses what the MCP server of a session has."""

    async def list_tools(
        self, session_id: str, *, service_name: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListToolsResult:
        """List the tools of a session.

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(ToolsList, ListToolsResult, session_id, reply_timeout, service_name=service_name)

    async def call_tool(
        self,
        session_id: str,
        name: str,
        arguments: Json | None = None,
        *,
        service_name: str | None = None,
        open: Literal["beside", "alone", "never"] | None = None,  # noqa: A002 - as the wire has it
        session_timeout: float | None = None,
        session_metadata: Json | None = None,
        timeout: float = REPLY_TIMEOUT,
        meta: Json | None = None,
        idempotency_key: str | None = None,
        pending_after: float | None = None,
        on_progress: Callable[[ToolsProgress], Awaitable[None] | None] | None = None,
        on_pending: Callable[[ToolsPending], Awaitable[None] | None] | None = None,
        on_question: Callable[[InputRequired], Awaitable[Answer] | Answer] | None = None,
    ) -> ToolCallResult:
        """Call a tool. It is executed once at most, and never repeated by the client.

        Args:
            session_id: the session, or the call whose session on ``service_name`` is meant.
            name: the tool.
            arguments: what it takes.
            service_name: opens the session on this service when there is none.
            open: whether it is opened ``beside`` what the call has (as without it), ``alone``: only where no session
                has that id, or ``never``.
            session_timeout: idle timeout (s) of a session that is opened.
            session_metadata: metadata of a session that is opened.
            timeout: how long (s) the call may take, a start included; the worker's answer is waited for 1 s longer.
            meta: MCP's ``_meta`` for the server.
            idempotency_key: a call that is repeated with it joins the one in flight or gets its answer.
            pending_after: after how long (s) ``on_pending`` is called.
            on_progress: is called with the server's progress.
            on_pending: is called once when the call takes longer than ``pending_after``.
            on_question: is called when the server asks something; returns the answer.

        Returns:
            MCP's ``CallToolResult`` as the server gave it, with the session and its plain text. A tool that failed and
            says so is a result, too: look at ``is_error``.

        Raises:
            SessionNotFound: there is no session and no ``service_name``, or ``open`` is ``never``.
            SessionExists: ``open`` is ``alone``, and a session of that id is on another service.
            ToolNotFound: its server has no such tool.
            ToolTimeout: it took longer than ``timeout`` and was cancelled.
            McpError: the server answered with an error.
            OutcomeUnknown, SessionDied: the server ended under the call, or before it.
            DeadlineExceeded: its turn came too late; it was not executed.
            NoReply, Disconnected: nobody knows whether it was executed; repeat with the same ``idempotency_key``.
            InvalidMessage: the arguments are too large, or the key was used for another call.
            LimitReached, StartFailed, StartTimeout, ServiceNotFound: as with ``create``, with a ``service_name``.
        """

        async def interim(message: Interim) -> None:
            match message:
                case ToolsProgress() if on_progress is not None:
                    await _awaited(on_progress(message))
                case ToolsPending() if on_pending is not None:
                    await _awaited(on_pending(message))
                case InputRequired() if on_question is not None:
                    answer = await _awaited(on_question(message))
                    await self.request(
                        InputAnswer.type,
                        {"session_id": session_id, "input_id": message.input_id, **answer},
                        call_id=call_id_of(session_id),
                        reply_timeout=message.timeout,
                    )
                case _:
                    pass

        heard = on_progress is not None or on_pending is not None or on_question is not None
        return await self._session(
            ToolsCall,
            ToolCallResult,
            session_id,
            timeout + 1.0,  # the worker's own answer says more than our silence
            interim if heard else None,
            service_name=service_name,
            open=open,
            session_timeout=session_timeout,
            session_metadata=session_metadata,
            name=name,
            arguments=arguments or {},
            timeout=timeout,
            meta=meta,
            idempotency_key=idempotency_key,
            pending_after=pending_after,
            progress=on_progress is not None or None,
            questions=on_question is not None or None,
        )

    async def list_resources(
        self, session_id: str, *, cursor: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListResourcesResult:
        """List one page of a session's resources (MCP ``resources/list``).

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(ResourcesList, ListResourcesResult, session_id, reply_timeout, cursor=cursor)

    async def iter_resources(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> AsyncIterator[Resource]:
        """Iterate over a session's resources, page after page; raises as ``list_resources``."""
        page = await self.list_resources(session_id, reply_timeout=reply_timeout)
        while True:
            for one in page.resources:
                yield one
            if page.next_cursor is None:
                return
            page = await self.list_resources(session_id, cursor=page.next_cursor, reply_timeout=reply_timeout)

    async def list_resource_templates(
        self, session_id: str, *, cursor: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListResourceTemplatesResult:
        """List one page of a session's resource templates (MCP ``resources/templates/list``).

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(
            ResourcesList, ListResourceTemplatesResult, session_id, reply_timeout, cursor=cursor, templates=True
        )

    async def iter_resource_templates(
        self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT
    ) -> AsyncIterator[ResourceTemplate]:
        """Iterate over a session's resource templates; raises as ``list_resource_templates``."""
        page = await self.list_resource_templates(session_id, reply_timeout=reply_timeout)
        while True:
            for one in page.resource_templates:
                yield one
            if page.next_cursor is None:
                return
            page = await self.list_resource_templates(session_id, cursor=page.next_cursor, reply_timeout=reply_timeout)

    async def read_resource(
        self, session_id: str, uri: str, *, reply_timeout: float = REPLY_TIMEOUT
    ) -> ReadResourceResult:
        """Read a resource (MCP ``resources/read``).

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(ResourcesRead, ReadResourceResult, session_id, reply_timeout, uri=uri)

    async def list_prompts(
        self, session_id: str, *, cursor: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListPromptsResult:
        """List one page of a session's prompts (MCP ``prompts/list``).

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(PromptsList, ListPromptsResult, session_id, reply_timeout, cursor=cursor)

    async def iter_prompts(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> AsyncIterator[Prompt]:
        """Iterate over a session's prompts, page after page; raises as ``list_prompts``."""
        page = await self.list_prompts(session_id, reply_timeout=reply_timeout)
        while True:
            for one in page.prompts:
                yield one
            if page.next_cursor is None:
                return
            page = await self.list_prompts(session_id, cursor=page.next_cursor, reply_timeout=reply_timeout)

    async def get_prompt(
        self,
        session_id: str,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> GetPromptResult:
        """Get a prompt with its arguments filled in (MCP ``prompts/get``).

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(
            PromptsGet, GetPromptResult, session_id, reply_timeout, name=name, arguments=arguments or {}
        )


async def _awaited(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer
