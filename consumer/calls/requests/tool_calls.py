"""Runs tool calls: at most once, within the caller's timeout, with the interim messages that the caller wants."""

import asyncio
import json
import time
import uuid
from functools import partial
from typing import Any

import structlog
from pydantic_core import PydanticSerializationError, from_json, to_json

from consumer.broker.errors import BrokerError
from consumer.broker.settling import Settler
from consumer.calls.cluster.statistics import Figures
from consumer.calls.context import Configured, Service
from consumer.calls.owned_call import CallSession, OwnedCall
from consumer.calls.requests.asked import Asked
from consumer.calls.requests.idempotency import AnswerWindows, Identity, KeptAnswer
from consumer.calls.requests.in_flight import InFlight
from consumer.calls.requests.kept_calls import KeptCall, KeptCalls
from consumer.calls.requests.pinned_arguments import bound_arguments
from consumer.calls.requests.running import Running
from consumer.calls.requests.session_for import SessionFor
from consumer.observability import metrics, tracing
from consumer.sessions.dialogue import Dialogue, OnQuestion
from schemas.base import Json
from schemas.errors import (
    InvalidMessage,
    McpError,
    OutcomeUnknown,
    SessionDied,
    SessionsError,
    ToolCancelled,
)
from schemas.interim import InputRequired, Interim, ToolsChanged, ToolsLog, ToolsPending, ToolsProgress, dump
from schemas.replies import failed
from schemas.requests import InputAnswer, ToolsCall, ToolsCancel
from schemas.text import replaced

log = structlog.get_logger(__name__)


def text_of(result: Json) -> str:
    """Return the text of a tool's answer: its text contents, one per line, or its structured content as JSON."""
    parts = (part for part in result.get("content") or () if isinstance(part, dict) and part.get("type") == "text")
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    structured = result.get("structuredContent")
    return "\n".join(texts) if texts or structured is None else _written(structured).decode()


def _written(value: Any) -> bytes:
    """Return the value as JSON without NaN, infinity or lone surrogates."""
    try:
        return to_json(value, inf_nan_mode="null")
    except PydanticSerializationError:
        return to_json(from_json(replaced(json.dumps(value, ensure_ascii=False))), inf_nan_mode="null")


def _check_size(asked: Asked, service: Service) -> None:
    size = len(asked.delivery.message.body)
    if size > service.max_arguments:
        raise InvalidMessage(
            f"tools.call: the request has {size} bytes, {service.max_arguments} are allowed (max_arguments)",
            size=size,
            limit=service.max_arguments,
        )


class ToolCalls:
    """Runs tool calls on sessions, and keeps the questions that servers ask during them."""

    def __init__(
        self,
        sessions: SessionFor,
        answers: AnswerWindows,
        in_flight: InFlight,
        kept: KeptCalls,
        *,
        settler: Settler,
        configured: Configured,
        figures: Figures,
    ) -> None:
        self._sessions = sessions
        self._answers = answers
        self._in_flight = in_flight
        self._kept = kept
        self._settler = settler
        self._configured = configured
        self._figures = figures
        self._questions: dict[str, asyncio.Future[Json]] = {}
        self.in_flight = 0

    def knows(self, asked: Asked, call: OwnedCall) -> bool:
        """Return whether a tool call with the same key runs, or was answered not long ago."""
        return self._answers.of(call).knows(asked.key)

    async def answer(self, asked: Asked, call: OwnedCall) -> KeptAnswer:
        """Return the answer of a tool call. The first call of a key runs; all others join it.

        Raises:
            InvalidMessage: the key was used for another request.
        """
        claim = self._answers.of(call).claim(asked.key, Identity.of(asked.request))
        listener = partial(self._tell, asked)
        if not claim.is_first:
            return await claim.joined(listener)
        with claim:
            await claim.running.join(listener)
            return claim.give(await self._execute(asked, call, claim.running))

    async def _execute(self, asked: Asked, call: OwnedCall, running: Running) -> KeptAnswer:
        """Run a tool call. Errors become replies. ``running`` has its listeners, and can cancel it."""
        request = asked.request
        service = request.service_name if request.service_name in self._configured.services else None
        with tracing.span(f"tools/call {request.name}", {"mcp_sessions.session_id": request.session_id}) as span:
            try:
                session = await self._sessions.ensure(call, request, asked.deadline, partial(_check_size, asked))
                service = session.service_name
                answer = await self._run_again_if_harmless(asked, call, session, running)
            except SessionsError as error:
                executed = error.executed is not False
                word = error.code.value.lower()
                answer = KeptAnswer(failed(error).dump(), executed=executed, outcome=word, problem=error.message)
            except asyncio.CancelledError:
                if not running.absorb():
                    raise
                cancelled = ToolCancelled(f"tools/call {request.name} was cancelled", idempotency_key=asked.key)
                answer = KeptAnswer(failed(cancelled).dump(), outcome=cancelled.code.value.lower())
            if answer.outcome != "ok":
                tracing.failed(span, answer.outcome)
        metrics.of(metrics.TOOL_CALLS, service or metrics.OTHER, answer.outcome).inc()
        return answer.of(service)

    async def _run_again_if_harmless(
        self, asked: Asked, call: OwnedCall, session: CallSession, running: Running
    ) -> KeptAnswer:
        try:
            return self._answered(asked, session, await self._run(asked, session, running))
        except (OutcomeUnknown, SessionDied) as error:
            # A session that was dead before has executed nothing: who named a service gets a fresh one.
            untried = isinstance(error, SessionDied) and asked.request.service_name is not None
            # A session that was closed on purpose is not opened again by a request that it cut off.
            repeatable = session.closed_because is None and self._may_repeat(asked, session)
            if not (untried or repeatable):
                raise
            log.info("tool.repeated", session_id=session.session_id, name=asked.request.name, after=error.message)
        fresh = await self._sessions.replacement(call, asked.request, session, asked.deadline)
        return self._answered(asked, fresh, await self._run(asked, fresh, running))

    def _may_repeat(self, asked: Asked, session: CallSession) -> bool:
        """Return whether a tool says that a second execution does no harm, and the service allows one."""
        service = session.process.service
        tool = next((one for one in session.process.tools if one.get("name") == asked.request.name), {})
        hints = tool.get("annotations")
        return (
            service.retry and isinstance(hints, dict) and bool(hints.get("readOnlyHint") or hints.get("idempotentHint"))
        )

    async def _run(self, asked: Asked, session: CallSession, running: Running) -> Json:
        request, process = asked.request, session.process
        service = process.service
        _check_size(asked, service)
        left = min(asked.check_deadline(), service.longest_call)
        if process.is_modern or not (request.questions == "return" or request.request_state is not None):
            ask = self._on_question(asked, session, running) if request.questions is True else None
            return await self._call(asked, session, running, left, ask)
        what = f"tools/call {request.name}"
        if request.request_state is not None:
            given = request.input_responses or {}
            return await self._kept.resume(session, what, request.request_state, given, left, running, asked.key)

        async def work(kept: KeptCall) -> Json:
            return await self._call(asked, session, running, service.longest_call, kept.ask)

        return await self._kept.begin(session, what, work, left, running, asked.key)

    async def _call(
        self, asked: Asked, session: CallSession, running: Running, left: float, ask: OnQuestion | None
    ) -> Json:
        with self._in_flight.at_server(session, f"tools/call {asked.request.name}"):
            return await self._at_server(asked, session, running, left, ask)

    async def _at_server(
        self, asked: Asked, session: CallSession, running: Running, left: float, ask: OnQuestion | None
    ) -> Json:
        request, service = asked.request, session.process.service
        tools = await session.process.get_tools() if service.bind else []
        arguments = bound_arguments(service.bind, session.metadata, tools, request.name, request.arguments)
        began = time.monotonic()
        pending = self._announce_pending(asked, session, running)
        failure = True
        result: Json = {}
        self.in_flight += 1
        try:
            result = await session.process.call_tool(
                request.name,
                arguments,
                timeout=left,
                meta=self._meta(asked, session),
                dialogue=self._dialogue(request, session, running, ask),
            )
            failure = bool(result.get("isError"))
        finally:
            self.in_flight -= 1
            if pending is not None:
                pending.cancel()
            took = time.monotonic() - began
            metrics.of(metrics.TOOL_CALL, session.service_name).observe(took)
            session.record.add(took, error=failure, bytes_in=len(asked.delivery.message.body))
            self._figures.called(session.service_name, took, error=failure)
        return result

    def _answered(self, asked: Asked, session: CallSession, result: Json) -> KeptAnswer:
        whole = result | {"session_id": session.session_id, "text": text_of(result)}
        if session.restored and session.record.calls == 1:
            whole["restored"] = True  # said once: what the session remembered is gone
        body = _written({"ok": True, "result": whole})
        session.record.bytes_out += len(body)
        limit = session.process.service.max_result
        if len(body) > limit:
            raise McpError(
                f"{asked.request.name}: the reply has {len(body)} bytes, and max_result is {limit}",
                size=len(body),
                limit=limit,
            )
        return KeptAnswer(body, outcome="tool_error" if result.get("isError") else "ok")

    def _meta(self, asked: Asked, session: CallSession) -> Json:
        # The MCP SDK adds the context of the trace, below a span of its own.
        given = asked.request.idempotency_key
        key = {} if given is None else {"idempotency_key": given}
        return {**(asked.request.meta or {}), "call_id": session.call_id, "session_id": session.session_id, **key}

    def cancel(self, call: OwnedCall, request: ToolsCancel) -> bool | None:
        """Cancel the tool call under a key. Return whether it was cancelled now; None if the key is unknown."""
        key, answers = request.idempotency_key, self._answers.of(call)
        if request.leaves:
            return answers.leave(key)
        return (answers.cancel(key) or self._kept.cancel(call.call_id, key)) or None

    def stop(self) -> None:
        """Cancel the calls that wait for an answer to their question."""
        self._kept.stop()

    # What the caller hears before the reply.

    async def _tell(self, asked: Asked, message: Interim) -> None:
        """Send a message to a requester's reply address; it may be lost with the connection."""
        if not asked.delivery.expects_answers:
            return
        try:
            await self._settler.answer(asked.delivery, dump(message), message.type)
        except BrokerError as error:
            log.debug("tool.interim_lost", type=message.type, error=str(error))

    def _dialogue(self, request: ToolsCall, session: CallSession, running: Running, ask: OnQuestion | None) -> Dialogue:
        session_id = session.session_id

        async def progress(done: float, total: float | None, message: str | None) -> None:
            await running.tell(ToolsProgress(session_id=session_id, progress=done, total=total, message=message))

        async def logged(level: str, logger: str | None, data: Any) -> None:
            await running.tell(ToolsLog(session_id=session_id, level=level, logger=logger, data=data))

        async def changed(changed_list: Any, uri: str | None) -> None:
            await running.tell(ToolsChanged(session_id=session_id, list=changed_list, uri=uri))

        return Dialogue(
            on_progress=progress if request.progress else None,
            on_log=logged if request.logs else None,
            on_change=changed if request.changes else None,
            on_question=ask,
            capabilities=request.client_capabilities,
            returned=request.questions == "return",
            input_responses=request.input_responses,
            request_state=request.request_state,
        )

    def _announce_pending(self, asked: Asked, session: CallSession, running: Running) -> asyncio.Task[None] | None:
        after = asked.request.pending_after or session.process.service.pending_after
        if after is None or not asked.delivery.expects_answers:
            return None

        async def announce() -> None:
            await asyncio.sleep(after)
            await running.tell(ToolsPending(session_id=session.session_id, name=asked.request.name, elapsed=after))

        return asyncio.create_task(announce(), name="tool-pending")

    def _on_question(self, asked: Asked, session: CallSession, running: Running) -> OnQuestion:
        async def ask(method: str, params: Json) -> Json:
            input_id = uuid.uuid4().hex
            longest = session.process.service.question_timeout
            timeout = max(0.001, min(longest, asked.deadline - time.monotonic()))
            question: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
            self._questions[input_id] = question
            asking = InputRequired(
                session_id=session.session_id, input_id=input_id, method=method, params=params, timeout=timeout
            )
            try:
                await running.tell(asking)
                async with asyncio.timeout(timeout):
                    return await question
            except TimeoutError:
                return {"action": "cancel"}
            finally:
                running.answered(input_id)
                del self._questions[input_id]

        return ask

    def take_answer(self, request: InputAnswer) -> Json:
        """Pass an answer to the server that asked.

        Raises:
            InvalidMessage: no such question is open (any more).
        """
        question = self._questions.get(request.input_id)
        if question is None or question.done():
            raise InvalidMessage("input.answer: input_id: no question with this id is open", input_id=request.input_id)
        content = {} if request.content is None else {"content": request.content}
        question.set_result(request.result or {"action": request.action, **content})
        return {"accepted": True}
