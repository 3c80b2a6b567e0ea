"""Answers requests to the sessions of a call: at the call's turn, at most once, while their callers wait."""

import asyncio
import time

from consumer.broker.message import Delivery
from consumer.broker.outcome import Done, Outcome, told_about
from consumer.calls.context import Configured
from consumer.calls.messages.deadlines import Heartbeat, deadline_of, may_have_been_executed, too_late
from consumer.calls.messages.parsing import about, service_named_by, timeout_named_by
from consumer.calls.owned_call import OwnedCall
from consumer.calls.ownership.owned_calls import OwnedCalls
from consumer.calls.ownership.recovery import Recovery
from consumer.calls.ownership.returns import Returns
from consumer.calls.requests.asked import Asked
from consumer.calls.requests.in_flight import InFlight
from consumer.calls.requests.session_for import find, missing
from consumer.calls.requests.session_requests import OpeningUse, SessionRequests
from consumer.calls.requests.tool_calls import ToolCalls
from consumer.concurrency.keyed_queues import KeyedQueues
from schemas.errors import Capacity, SessionsError
from schemas.ids import CallId
from schemas.replies import Reply, failed, succeeded
from schemas.requests import ToolsCall, ToolsCancel, Use

DEFAULT_TIMEOUT = 30.0
"""How long (s) a tool call may take if neither its requester nor a service says so."""


class CallRequests:
    """Runs the requests to sessions of calls, each in a task of its own."""

    def __init__(
        self,
        owned_calls: OwnedCalls,
        recovery: Recovery,
        lanes: KeyedQueues,
        returns: Returns,
        *,
        tool_calls: ToolCalls,
        session_requests: SessionRequests,
        in_flight: InFlight,
        configured: Configured,
        heartbeat: Heartbeat,
    ) -> None:
        self._owned_calls = owned_calls
        self._recovery = recovery
        self._lanes = lanes
        self._returns = returns
        self._tool_calls = tool_calls
        self._session_requests = session_requests
        self._in_flight = in_flight
        self._configured = configured
        self._heartbeat = heartbeat

    async def take(self, delivery: Delivery, call_id: CallId, request: Use) -> Outcome:
        """Answer a request, unless the worker already holds its maximum number."""
        try:
            with self._in_flight.held(len(delivery.message.body)):
                outcome = await self._run(delivery, call_id, request)
        except Capacity as error:
            await delivery.ack()
            outcome = Done(failed(error))
        return told_about(outcome, **about(request))

    async def _run(self, delivery: Delivery, call_id: CallId, request: Use) -> Outcome:
        deadline = deadline_of(delivery, self._timeout(call_id, request), self._heartbeat)
        if isinstance(request, ToolsCancel) and (cancelled := self._cancelled(call_id, request)) is not None:
            await delivery.ack()
            return Done(succeeded({"cancelled": cancelled}))  # also when the call waits for its turn on the lane
        if self._lanes.busy(call_id):
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._lanes.turn(call_id)
            except TimeoutError:
                await delivery.ack()
                busy = self._owned_calls.calls.get(call_id)
                starting = busy.starting.services if busy is not None else ()
                return Done(failed(too_late(request, starting, again=may_have_been_executed(delivery))))
        await delivery.ack()  # from here on it is at most once, here or elsewhere
        call = self._owned_calls.calls.get(call_id)
        if isinstance(request, ToolsCall) and may_have_been_executed(delivery):
            asked = Asked(request, delivery, deadline)
            if call is None or not self._tool_calls.knows(asked, call):
                return Done(what="not_repeated")  # it may have been executed, or answered: at most once
        if call is None:
            return self._returns.not_ours(delivery, call_id)
        if isinstance(request, ToolsCall):
            return await self._call_tool(Asked(request, delivery, deadline), call)
        if isinstance(request, ToolsCancel):
            return Done(succeeded({"cancelled": bool(self._cancelled(call_id, request))}))
        session = find(call, request)
        if session is None and isinstance(request, OpeningUse) and request.opens is not None:
            return Done(await self._open_and_use(call, request, deadline))
        if session is None:
            return Done(failed(self._not_found(call, request)))
        return Done(await self._session_requests.run(session, request, deadline - time.monotonic()))

    async def _call_tool(self, asked: Asked, call: OwnedCall) -> Done:
        try:
            with call.in_use():
                answer = await self._tool_calls.answer(asked, call)
        except SessionsError as error:
            return Done(failed(error))
        finally:
            if not call.sessions:
                self._recovery.keep_later(call.call_id)
        what = "done" if answer.outcome == "ok" else answer.outcome
        service = {} if answer.service is None else {"service": answer.service}
        return Done(answer.body, what, about=service, code=answer.code, problem=answer.problem)

    async def _open_and_use(self, call: OwnedCall, request: OpeningUse, deadline: float) -> Reply:
        try:
            with call.in_use():
                return await self._session_requests.open_and_run(call, request, deadline)
        finally:
            if not call.sessions:
                self._recovery.keep_later(call.call_id)

    def _not_found(self, call: OwnedCall, request: Use) -> SessionsError:
        """Return the error for a request without a session. It says so if the named service does not exist."""
        service = service_named_by(request)
        try:
            if service is not None:
                self._configured.service(service)
        except SessionsError as error:
            return error
        return missing(call, request)

    def _cancelled(self, call_id: CallId, request: ToolsCancel) -> bool | None:
        """Return whether a tool call was cancelled; None if no such call is known."""
        call = self._owned_calls.calls.get(call_id)
        return self._tool_calls.cancel(call, request) if call is not None else None

    def _timeout(self, call_id: CallId, request: Use) -> float:
        """Return how long (s) the caller waits: its own timeout within the service's limit, or the service's."""
        call = self._owned_calls.calls.get(call_id)
        session = find(call, request) if call is not None else None
        name = service_named_by(request)
        configured = self._configured.services.get(name) if name is not None else None
        service = session.process.service if session is not None else configured
        timeout = timeout_named_by(request)
        if timeout is None:
            return service.call_timeout if service is not None else DEFAULT_TIMEOUT
        known = [service] if service is not None else self._configured.services.values()
        return min(timeout, max((one.longest_call for one in known), default=DEFAULT_TIMEOUT))

    def stop(self) -> None:
        """Cancel the requests that wait for an answer to a server's question."""
        self._tool_calls.stop()
