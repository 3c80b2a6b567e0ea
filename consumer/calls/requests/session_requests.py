"""Requests to a session other than tool calls: its state, its tools, its resources, its prompts."""

import time
from typing import assert_never

from consumer.calls.events import session_info
from consumer.calls.messages.deadlines import too_late
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.requests.in_flight import InFlight
from consumer.calls.requests.kept_calls import KeptCall, KeptCalls
from consumer.calls.requests.pinned_arguments import bound_prompt, public_tools
from consumer.calls.requests.session_for import SessionFor
from consumer.calls.requests.tool_calls import ToolCalls
from consumer.sessions.dialogue import Dialogue, OnQuestion
from schemas.base import Json
from schemas.errors import SessionsError
from schemas.ids import WorkerId
from schemas.replies import Reply, failed, succeeded
from schemas.requests import (
    CompletionComplete,
    InputAnswer,
    LoggingLevel,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    SessionDescribe,
    SessionGet,
    SessionTouch,
    ToolsList,
)

Plain = (
    ToolsList
    | ResourcesList
    | PromptsList
    | ResourcesSubscribe
    | ResourcesUnsubscribe
    | CompletionComplete
    | LoggingLevel
)
"""Requests that the session's server has to answer, and without a question."""

OpeningUse = (
    ResourcesList
    | PromptsList
    | ResourcesSubscribe
    | ResourcesUnsubscribe
    | CompletionComplete
    | LoggingLevel
    | ResourcesRead
    | PromptsGet
)
"""Requests that may open the session."""

Asking = Plain | ResourcesRead | PromptsGet
"""Requests that the session's server has to answer."""

AtOnce = SessionGet | SessionTouch | SessionDescribe | InputAnswer
"""Requests that need no answer of the session's server."""

Look = AtOnce | Asking
"""Every use of a session except tool calls."""


class SessionRequests:
    """Runs requests on open sessions."""

    def __init__(
        self,
        worker_id: WorkerId,
        sessions: SessionFor,
        tool_calls: ToolCalls,
        in_flight: InFlight,
        kept: KeptCalls,
    ) -> None:
        self._worker_id = worker_id
        self._sessions = sessions
        self._kept = kept
        self._in_flight = in_flight
        self._tool_calls = tool_calls

    async def open_and_run(self, call: OwnedCall, request: OpeningUse, deadline: float) -> Reply:
        """Open the session of a request and run the request on it. Errors become replies."""
        try:
            session = await self._sessions.ensure(call, request, deadline)
        except SessionsError as error:
            return failed(error)
        return await self.run(session, request, deadline - time.monotonic())

    async def run(self, session: CallSession, request: Look, left: float) -> Reply:
        """Run a request whose caller waits ``left`` more seconds; errors become replies."""
        try:
            if left <= 0:
                raise too_late(request)
            left = min(left, session.process.service.longest_call)
            if isinstance(request, AtOnce):
                with session.in_use():
                    return succeeded(self._at_once(session, request))
            if isinstance(request, ResourcesRead | PromptsGet):
                return succeeded(await self._interactive(session, request, left))
            with self._in_flight.at_server(session, request.type):
                return succeeded(await self._asked(session, request, left))
        except SessionsError as error:
            return failed(error)

    def _at_once(self, session: CallSession, request: AtOnce) -> Json:
        match request:
            case InputAnswer():
                return self._tool_calls.take_answer(request)
            case SessionDescribe():
                return {
                    "session_id": session.session_id,
                    "service_name": session.service_name,
                    **session.process.about,
                }
            case SessionGet() | SessionTouch():
                return session_info(self._worker_id, session)
            case _:
                assert_never(request)

    async def _interactive(self, session: CallSession, request: ResourcesRead | PromptsGet, left: float) -> Json:
        """Run a request that the server may answer with a question."""
        process = session.process
        match request:
            case ResourcesRead(uri=uri):
                method, named = "resources/read", uri
                params: Json = {"uri": uri}
            case PromptsGet(name=name, arguments=arguments):
                given = bound_prompt(process.service.bind, session.metadata, name, arguments or {})
                method, named = "prompts/get", name
                params = {"name": name, "arguments": given}
            case _:
                assert_never(request)

        async def at_server(timeout: float, ask: OnQuestion | None) -> Json:
            dialogue = Dialogue(
                on_question=ask,
                capabilities=request.client_capabilities,
                returned=request.questions == "return",
                input_responses=request.input_responses,
                request_state=request.request_state,
            )
            with self._in_flight.at_server(session, what):
                return await process.call_method(method, params, timeout=timeout, dialogue=dialogue)

        async def work(kept: KeptCall) -> Json:
            return await at_server(process.service.longest_call, kept.ask)

        what, state = f"{method} {named}", request.request_state
        if process.is_modern or not (request.questions == "return" or state is not None):
            return await at_server(left, None)
        if state is not None:
            return await self._kept.resume(session, what, state, request.input_responses or {}, left)
        return await self._kept.begin(session, what, work, left)

    async def _asked(self, session: CallSession, request: Plain, left: float) -> Json:
        call = session.process.call_method
        match request:
            case ToolsList():
                bind = session.process.service.bind
                return {"tools": public_tools(bind, await session.process.get_tools())}
            case ResourcesList(cursor=cursor, templates=templates):
                method = "resources/templates/list" if templates else "resources/list"
                return await call(method, _page(cursor), timeout=left)
            case PromptsList(cursor=cursor):
                return await call("prompts/list", _page(cursor), timeout=left)
            case CompletionComplete(ref=ref, argument=argument, context=context):
                more = {} if context is None else {"context": context}
                return await call("completion/complete", {"ref": ref, "argument": argument, **more}, timeout=left)
            case ResourcesSubscribe(uri=uri):
                await session.process.subscribe(uri, timeout=left)
                return {}
            case ResourcesUnsubscribe(uri=name):
                await session.process.unsubscribe(name, timeout=left)
                return {}
            case LoggingLevel(level=level):
                await session.process.set_log_level(level, timeout=left)
                return {}
            case _:
                assert_never(request)


def _page(cursor: str | None) -> Json:
    return {} if cursor is None else {"cursor": cursor}
