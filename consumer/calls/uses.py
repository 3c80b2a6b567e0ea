"""Running what uses a session: looking at it, its tools, its resources, its prompts."""

from typing import Any, assert_never

from consumer.calls.context import Context
from consumer.calls.holdings import CallSession
from consumer.calls.reporting import session_info
from schemas.base import Json
from schemas.errors import SessionsError
from schemas.replies import Reply, failed, succeeded
from schemas.requests import (
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    SessionGet,
    SessionTouch,
    ToolsCall,
    ToolsList,
    Use,
)


def text_of(result: Json) -> str:
    """The text of a tool's answer: its text contents, a line each."""
    content: list[Any] = result.get("content") or []
    return "\n".join(part["text"] for part in content if part.get("type") == "text" and "text" in part)


class Uses:
    """Runs requests on sessions that are there."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self, session: CallSession, request: Use) -> Reply:
        """Run a request; errors become replies."""
        try:
            with session.in_use():
                return succeeded(await self._result(session, request))
        except SessionsError as error:
            return failed(error)

    async def _result(self, session: CallSession, request: Use) -> Json:
        match request:
            case SessionGet() | SessionTouch():
                session.touch()
                return session_info(self._context.worker_id, session).model_dump(mode="json")
            case ToolsList():
                return {"tools": await session.process.get_tools()}
            case ToolsCall(name=name, arguments=arguments, timeout=timeout, meta=meta):
                patience = timeout or self._context.services[session.service_name].call_timeout
                result = await session.process.call_tool(name, arguments, timeout=patience, meta=meta)
                return result | {"session_id": session.session_id, "text": text_of(result)}
            case ResourcesList(cursor=cursor):
                return await self._method(session, request, "resources/list", {"cursor": cursor} if cursor else {})
            case ResourcesRead(uri=uri):
                return await self._method(session, request, "resources/read", {"uri": uri})
            case PromptsList(cursor=cursor):
                return await self._method(session, request, "prompts/list", {"cursor": cursor} if cursor else {})
            case PromptsGet(name=name, arguments=arguments):
                return await self._method(session, request, "prompts/get", {"name": name, "arguments": arguments})
            case _:
                assert_never(request)

    async def _method(
        self,
        session: CallSession,
        request: ResourcesList | ResourcesRead | PromptsList | PromptsGet,
        method: str,
        params: Json,
    ) -> Json:
        patience = request.timeout or self._context.services[session.service_name].call_timeout
        return await session.process.call_method(method, params, timeout=patience)
