"""Requests to the MCP server of a session: resources, prompts, completions and logging."""

from collections.abc import AsyncIterator
from typing import Literal, Unpack

from consumer.client.arguments import naming_arguments
from consumer.client.typed_requests import (
    REPLY_TIMEOUT,
    OpeningOptions,
    QuestionOptions,
    TypedRequests,
    on_the_wire,
    pages,
)
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


@naming_arguments
class ServerMethods(TypedRequests):
    """Lists and uses what the MCP server of a session offers besides tools.

    With ``service_name`` and ``open`` a session is opened if there is none, as in ``call_tool``.
    """

    async def list_resources(
        self, session_id: str, *, cursor: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListResourcesResult:
        """List one page of a session's resources (MCP ``resources/list``).

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        return await self._session(ResourcesList, ListResourcesResult, session_id, reply_timeout, cursor=cursor)

    async def iter_resources(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> AsyncIterator[Resource]:
        """Iterate over a session's resources, page after page; raises as ``list_resources``."""
        async for page in pages(
            lambda cursor: self.list_resources(session_id, cursor=cursor, reply_timeout=reply_timeout)
        ):
            for one in page.resources:
                yield one

    async def list_resource_templates(
        self, session_id: str, *, cursor: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListResourceTemplatesResult:
        """List one page of a session's resource templates (MCP ``resources/templates/list``).

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        return await self._session(
            ResourcesList, ListResourceTemplatesResult, session_id, reply_timeout, cursor=cursor, templates=True
        )

    async def iter_resource_templates(
        self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT
    ) -> AsyncIterator[ResourceTemplate]:
        """Iterate over a session's resource templates; raises as ``list_resource_templates``."""
        async for page in pages(
            lambda cursor: self.list_resource_templates(session_id, cursor=cursor, reply_timeout=reply_timeout)
        ):
            for one in page.resource_templates:
                yield one

    async def read_resource(
        self,
        session_id: str,
        uri: str,
        *,
        reply_timeout: float = REPLY_TIMEOUT,
        **options: Unpack[QuestionOptions],
    ) -> ReadResourceResult:
        """Read a resource (MCP ``resources/read``); questions work as in ``call_tool``.

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        return await self._session(
            ResourcesRead, ReadResourceResult, session_id, reply_timeout, uri=uri, **on_the_wire(options)
        )

    async def subscribe_resource(
        self,
        session_id: str,
        uri: str | None = None,
        *,
        reply_timeout: float = REPLY_TIMEOUT,
        **options: Unpack[OpeningOptions],
    ) -> None:
        """Subscribe to changes of a resource, which become events ``session.resource_updated`` until the session ends.

        Without ``uri``, only changes of the server's lists become events (``session.list_changed``).

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server refuses.
        """
        await self._session(ResourcesSubscribe, McpResult, session_id, reply_timeout, uri=uri, **options)

    async def unsubscribe_resource(
        self, session_id: str, uri: str, *, service_name: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> None:
        """End a subscription to a resource; raises as ``subscribe_resource``."""
        await self._session(
            ResourcesUnsubscribe, McpResult, session_id, reply_timeout, service_name=service_name, uri=uri
        )

    async def set_logging_level(
        self,
        session_id: str,
        level: Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"],
        *,
        reply_timeout: float = REPLY_TIMEOUT,
        **options: Unpack[OpeningOptions],
    ) -> None:
        """Set the lowest level of the log messages that a session's server sends to ``on_log`` of tool calls.

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        await self._session(LoggingLevel, McpResult, session_id, reply_timeout, level=level, **options)

    async def complete(
        self,
        session_id: str,
        ref: Json,
        argument: Json,
        *,
        context: Json | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
        **options: Unpack[OpeningOptions],
    ) -> CompleteResult:
        """Complete an argument of a prompt or of a resource template (MCP ``completion/complete``).

        Args:
            session_id: the session.
            ref: MCP's reference: ``{"type": "ref/prompt", "name": ...}`` or ``{"type": "ref/resource", "uri": ...}``.
            argument: its ``name``, and the ``value`` so far.
            context: MCP's context: ``{"arguments": {...}}``, the arguments that are already known.
            reply_timeout: how long (s) to wait.
            options: ``service_name`` selects the session, and ``open`` says whether it is opened.

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        return await self._session(
            CompletionComplete,
            CompleteResult,
            session_id,
            reply_timeout,
            ref=ref,
            argument=argument,
            context=context,
            **options,
        )

    async def list_prompts(
        self, session_id: str, *, cursor: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListPromptsResult:
        """List one page of a session's prompts (MCP ``prompts/list``).

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        return await self._session(PromptsList, ListPromptsResult, session_id, reply_timeout, cursor=cursor)

    async def iter_prompts(self, session_id: str, *, reply_timeout: float = REPLY_TIMEOUT) -> AsyncIterator[Prompt]:
        """Iterate over a session's prompts, page after page; raises as ``list_prompts``."""
        async for page in pages(
            lambda cursor: self.list_prompts(session_id, cursor=cursor, reply_timeout=reply_timeout)
        ):
            for one in page.prompts:
                yield one

    async def get_prompt(
        self,
        session_id: str,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        reply_timeout: float = REPLY_TIMEOUT,
        **options: Unpack[QuestionOptions],
    ) -> GetPromptResult:
        """Get a prompt with its arguments filled in (MCP ``prompts/get``); questions work as in ``call_tool``.

        Raises:
            SessionNotFound: there is no such session.
            McpError: the server answered with an error.
        """
        return await self._session(
            PromptsGet,
            GetPromptResult,
            session_id,
            reply_timeout,
            name=name,
            arguments={} if arguments is None else arguments,
            **on_the_wire(options),
        )
