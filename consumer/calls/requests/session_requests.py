"""Running what uses a session, but for tool calls: looking at it, its tools, its resources, its prompts."""

from typing import assert_never

from consumer.calls.context import Context
from consumer.calls.events import session_info
from consumer.calls.messages.deadlines import too_late
from consumer.calls.ownership.owned_calls import CallSession
from consumer.calls.requests.in_flight import InFlight
from consumer.calls.requests.pinned_arguments import bound_prompt, public_tools
from consumer.calls.requests.tool_calls import ToolCalls
from schemas.base import Json
from schemas.errors import SessionsError
from schemas.replies import Reply, failed, succeeded
from schemas.requests import (
    InputAnswer,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    SessionGet,
    SessionTouch,
    ToolsList,
)

Asking = ToolsList | ResourcesList | ResourcesRead | PromptsList | PromptsGet
"""Uses of a session that its server has to answer."""

Look = SessionGet | SessionTouch | InputAnswer | Asking
"""Every use of a session that is no tool call."""


class Uses:
    """Runs requests on sessions that are there."""

    def __init__(self, context: Context, tool_calls: ToolCalls, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._context = context
        self._tool_calls = tool_calls

    async def run(self, session: CallSession, request: Look, left: float) -> Reply:
        """Run a request whose caller waits ``left`` more seconds; errors become replies."""
        try:
            if left <= 0:
                raise too_late(request)
            left = min(left, session.process.service.longest_call)
            if isinstance(request, SessionGet | SessionTouch | InputAnswer):
                with session.in_use():
                    return succeeded(self._at_once(session, request))
            with self._in_flight.at_server(session):
                return succeeded(await self._asked(session, request, left))
        except SessionsError as error:
            return failed(error)

    def _at_once(self, session: CallSession, request: SessionGet | SessionTouch | InputAnswer) -> Json:
        if isinstance(request, InputAnswer):
            return self._tool_calls.take_answer(request)
        return session_info(self._context.worker_id, session)

    async def _asked(self, session: CallSession, request: Asking, left: float) -> Json:
        call = session.process.call_method
        match request:
            case ToolsList():
                bind = session.process.service.bind
                return {"tools": public_tools(bind, await session.process.get_tools())}
            case ResourcesList(cursor=cursor, templates=templates):
                method = "resources/templates/list" if templates else "resources/list"
                return await call(method, _page(cursor), timeout=left)
            case ResourcesRead(uri=uri):
                return await call("resources/read", {"uri": uri}, timeout=left)
            case PromptsList(cursor=cursor):
                return await call("prompts/list", _page(cursor), timeout=left)
            case PromptsGet(name=name, arguments=arguments):
                given = bound_prompt(session.process.service.bind, session.metadata, name, arguments or {})
                return await call("prompts/get", {"name": name, "arguments": given}, timeout=left)
            case _:
                assert_never(request)


def _page(cursor: str | None) -> Json:
    return {} if cursor is None else {"cursor": cursor}
