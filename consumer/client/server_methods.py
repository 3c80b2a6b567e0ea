"""Requests to the MCP server of a session: its resources and prompts, and what it tells of itself."""

from collections.abc import AsyncIterator
from typing import Literal

from consumer.client.typed_requests import REPLY_TIMEOUT, TypedRequests
from schemas.base import Json
from schemas.mcp import (
    CompleteResult,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    Prompt,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
)
from schemas.replies import McpResult
from schemas.requests import (
    CompletionComplete,
    LoggingLevel,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
)


class ServerMethods(TypedRequests):
    """Lists and uses what the MCP server of a session has beside tools.

    With a ``service_name`` and ``open`` the session is opened where there is none, as ``call_tool`` does.
    """

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
        self,
        session_id: str,
        uri: str,
        *,
        service_name: str | None = None,
        open: Literal["beside", "alone", "never"] | None = None,  # noqa: A002 - as the wire has it
        return_questions: bool = False,
        input_responses: Json | None = None,
        request_state: str | None = None,
        client_capabilities: Json | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> ReadResourceResult:
        """Read a resource (MCP ``resources/read``); with questions and answers as ``call_tool`` has them.

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(
            ResourcesRead,
            ReadResourceResult,
            session_id,
            reply_timeout,
            service_name=service_name,
            open=open,
            uri=uri,
            questions="return" if return_questions else None,
            input_responses=input_responses,
            request_state=request_state,
            client_capabilities=client_capabilities,
        )

    async def subscribe_resource(
        self,
        session_id: str,
        uri: str | None = None,
        *,
        service_name: str | None = None,
        open: Literal["beside", "alone", "never"] | None = None,  # noqa: A002 - as the wire has it
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> None:
        """Have changes of a resource told as events ``session.resource_updated``, for as long as the session lives.

        Without ``uri`` only changes of the server's lists are told (``session.list_changed``).

        Raises:
            SessionNotFound: there is none.
            McpError: the server refuses.
        """
        await self._session(
            ResourcesSubscribe, McpResult, session_id, reply_timeout, service_name=service_name, open=open, uri=uri
        )

    async def unsubscribe_resource(
        self, session_id: str, uri: str, *, service_name: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> None:
        """Have changes of a resource told no longer; raises as ``subscribe_resource``."""
        await self._session(
            ResourcesUnsubscribe, McpResult, session_id, reply_timeout, service_name=service_name, uri=uri
        )

    async def set_logging_level(
        self,
        session_id: str,
        level: Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"],
        *,
        service_name: str | None = None,
        open: Literal["beside", "alone", "never"] | None = None,  # noqa: A002 - as the wire has it
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> None:
        """Say from which level on a session's server tells its log messages to ``on_log`` of tool calls.

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        await self._session(
            LoggingLevel, McpResult, session_id, reply_timeout, service_name=service_name, open=open, level=level
        )

    async def complete(
        self,
        session_id: str,
        ref: Json,
        argument: Json,
        *,
        context: Json | None = None,
        service_name: str | None = None,
        open: Literal["beside", "alone", "never"] | None = None,  # noqa: A002 - as the wire has it
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> CompleteResult:
        """Complete an argument of a prompt or of a resource template (MCP ``completion/complete``).

        Args:
            session_id: the session.
            ref: MCP's reference: ``{"type": "ref/prompt", "name": ...}`` or ``{"type": "ref/resource", "uri": ...}``.
            argument: its ``name``, and the ``value`` so far.
            context: MCP's context: ``{"arguments": {...}}`` that are known already.
            service_name: the service of the call that is meant.
            open: whether the session is opened where there is none.
            reply_timeout: how long (s) to wait.

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(
            CompletionComplete,
            CompleteResult,
            session_id,
            reply_timeout,
            service_name=service_name,
            open=open,
            ref=ref,
            argument=argument,
            context=context,
        )

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
        service_name: str | None = None,
        open: Literal["beside", "alone", "never"] | None = None,  # noqa: A002 - as the wire has it
        return_questions: bool = False,
        input_responses: Json | None = None,
        request_state: str | None = None,
        client_capabilities: Json | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> GetPromptResult:
        """Get a prompt with its arguments filled in (MCP ``prompts/get``); with questions and answers as ``call_tool``.

        Raises:
            SessionNotFound: there is none.
            McpError: the server answered with an error.
        """
        return await self._session(
            PromptsGet,
            GetPromptResult,
            session_id,
            reply_timeout,
            service_name=service_name,
            open=open,
            name=name,
            arguments=arguments or {},
            questions="return" if return_questions else None,
            input_responses=input_responses,
            request_state=request_state,
            client_capabilities=client_capabilities,
        )
