"""Requests to the MCP server of a session: its tools."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypedDict

from consumer.client.arguments import check_function, check_seconds, kind_of, naming_arguments
from consumer.client.typed_requests import REPLY_TIMEOUT, Open, TypedRequests
from schemas.base import MAX_SECONDS, Json
from schemas.errors import InvalidArgument
from schemas.ids import call_id_of
from schemas.interim import InputRequired, Interim, ToolsChanged, ToolsLog, ToolsPending, ToolsProgress
from schemas.mcp import ListToolsResult
from schemas.replies import CancelResult, ToolCallResult
from schemas.requests import InputAnswer, ToolsCall, ToolsCancel, ToolsList


class Answer(TypedDict, total=False):
    """What ``on_question`` returns.

    To an elicitation ``action``, and with ``accept`` the ``content`` that the question's schema asks for; to another
    question the MCP ``result`` of its method, or the action ``decline``.
    """

    action: Literal["accept", "decline", "cancel"]
    content: Json | None
    result: Json


@naming_arguments
class ToolMethods(TypedRequests):
    """Lists and calls the tools of a session."""

    async def list_tools(
        self, session_id: str, *, service_name: str | None = None, reply_timeout: float = REPLY_TIMEOUT
    ) -> ListToolsResult:
        """List the tools of a session.

        Raises:
            SessionNotFound: there is no such session.
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
        open: Open | None = None,  # noqa: A002 - as the wire has it
        session_timeout: float | None = None,
        session_metadata: Json | None = None,
        timeout: float = REPLY_TIMEOUT,
        meta: Json | None = None,
        idempotency_key: str | None = None,
        pending_after: float | None = None,
        on_progress: Callable[[ToolsProgress], Awaitable[None] | None] | None = None,
        on_pending: Callable[[ToolsPending], Awaitable[None] | None] | None = None,
        on_log: Callable[[ToolsLog], Awaitable[None] | None] | None = None,
        on_change: Callable[[ToolsChanged], Awaitable[None] | None] | None = None,
        on_question: Callable[[InputRequired], Awaitable[Answer] | Answer] | None = None,
        return_questions: bool = False,
        input_responses: Json | None = None,
        request_state: str | None = None,
        client_capabilities: Json | None = None,
    ) -> ToolCallResult:
        """Call a tool. It is executed at most once, and the client never repeats it.

        If you stop waiting, for example because the task was cancelled, the call runs on at the server until
        ``timeout``, and counts towards ``max_calls``. ``cancel_tool`` stops it.

        A callback must return quickly, because the reply waits for it. Its exception is raised, and ends the waiting.

        Args:
            session_id: the session, or with ``service_name`` the call.
            name: the tool.
            arguments: the arguments of the tool.
            service_name: opens the session on this service when there is none.
            open: when it is opened: ``beside`` the call's other sessions (the default), ``alone``, only if no
                session has that id, or ``never``.
            session_timeout: idle timeout (s) of a session that this call opens.
            session_metadata: metadata of a session that this call opens.
            timeout: how long (s) the call may take, including a start. The client waits 1 s longer for the reply.
            meta: MCP's ``_meta`` for the server.
            idempotency_key: a repeated call with this key joins the one in flight, or gets its result, as long as the
                call stays with its owner. Another owner does not know the key, and executes it again.
            pending_after: after how long (s) ``on_pending`` is called.
            on_progress: is called with the server's progress.
            on_pending: is called once when the call takes longer than ``pending_after``.
            on_log: is called with the server's log messages.
            on_change: is called when the server says that one of its lists or a resource has changed.
            on_question: is called when the server asks a question; returns the answer. After a wrong answer the call
                raises ``InvalidArgument`` with ``executed`` None, and the tool waits at the server until ``timeout``.
            return_questions: return the server's questions instead: the result's ``result_type`` is then
                ``input_required``.
            input_responses: the answers to the ``input_requests`` of such a result, by their names there; goes with
                the same call under another ``idempotency_key``.
            request_state: the ``request_state`` of such a result.
            client_capabilities: MCP's ``ClientCapabilities``: what the server may ask. The default is elicitation.

        Returns:
            MCP's ``CallToolResult`` from the server, with the session and the plain text. If the tool reports an error,
            this is a result too: check ``is_error``.

        Raises:
            SessionNotFound: there is no session, and either no ``service_name`` or ``open`` is ``never``. If the
                session died in the last 30 seconds (``worker.tombstone``), the message says how, and the details are
                those of ``SessionDied``. Or the call ended less than ``worker.tombstone`` ago; after that, a call
                with a ``service_name`` opens a session for it again.
            SessionExists: ``open`` is ``alone``, and a session with that id is on another service.
            ToolNotFound: its server has no such tool.
            ToolTimeout: it took longer than ``timeout`` and was cancelled.
            ToolCancelled: it was cancelled with ``cancel_tool``.
            McpError: the server answered with an error. A server of 2026-07-28 answers so if it does not know the
                ``request_state``: call without it to start again.
            OutcomeUnknown: the server ended during the call; ``details["reason"]`` says if it was ended, for example
                because the caller hung up (``call_ended``).
            SessionDied: the server ended just before the call, and the worker has not closed the session yet.
            DeadlineExceeded: it waited longer than ``timeout``, and was not executed.
            NoReply, Disconnected: it is unknown whether it was executed. Repeated with the same ``idempotency_key``, it
                is executed at most once as long as the call stays with its owner.
            InvalidMessage: the arguments are too large, the key was used for another tool or other arguments, or the
                ``request_state`` is unknown or has expired: call without it to start again.
            LimitReached, StartFailed, StartTimeout, ServiceNotFound: as with ``create``, with a ``service_name``.
        """

        async def interim(message: Interim) -> None:
            match message:
                case ToolsProgress() if on_progress is not None:
                    await _awaited(on_progress(message))
                case ToolsPending() if on_pending is not None:
                    await _awaited(on_pending(message))
                case ToolsLog() if on_log is not None:
                    await _awaited(on_log(message))
                case ToolsChanged() if on_change is not None:
                    await _awaited(on_change(message))
                case InputRequired() if on_question is not None:
                    await self._answer(session_id, message, await _awaited(on_question(message)))
                case _:
                    pass

        check_seconds("timeout", timeout)
        heard = False
        for told, function in (
            ("on_progress", on_progress),
            ("on_pending", on_pending),
            ("on_log", on_log),
            ("on_change", on_change),
            ("on_question", on_question),
        ):
            if function is not None:
                check_function(told, function)
                heard = True
        return await self._session(
            ToolsCall,
            ToolCallResult,
            session_id,
            min(timeout + 1.0, MAX_SECONDS),  # the worker's own answer says more than our silence
            interim if heard else None,
            service_name=service_name,
            open=open,
            session_timeout=session_timeout,
            session_metadata=session_metadata,
            name=name,
            arguments={} if arguments is None else arguments,
            timeout=timeout,
            meta=meta,
            idempotency_key=idempotency_key,
            pending_after=pending_after,
            progress=on_progress is not None or None,
            logs=on_log is not None or None,
            changes=on_change is not None or None,
            questions="return" if return_questions else on_question is not None or None,
            input_responses=input_responses,
            request_state=request_state,
            client_capabilities=client_capabilities,
        )

    async def _answer(self, session_id: str, question: InputRequired, answer: object) -> None:
        """Answer a question of a tool call that runs.

        Raises:
            InvalidArgument: the answer is wrong; ``executed`` is None, because the call was sent.
        """
        try:
            if not isinstance(answer, Mapping):
                raise InvalidArgument(f"must be a dict such as {{'action': 'decline'}}, is {kind_of(answer)}")
            body = {"session_id": session_id, "input_id": question.input_id, **answer}
            await self._ask(InputAnswer, body, call_id_of(session_id), question.timeout)
        except InvalidArgument as error:
            wrong = InvalidArgument(
                f"on_question returned a wrong answer: {error}. The tool call was sent, and waits for an answer"
            )
            wrong.executed = None
            raise wrong from None

    async def cancel_tool(
        self, session_id: str, idempotency_key: str, *, reply_timeout: float = REPLY_TIMEOUT
    ) -> CancelResult:
        """Cancel the tool call that runs under an idempotency key, even one of another client.

        The server is notified, and the caller gets ``ToolCancelled``. It is not an error if there is no such call.
        """
        return await self._session(
            ToolsCancel, CancelResult, session_id, reply_timeout, idempotency_key=idempotency_key
        )


async def _awaited(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer
