"""Requests that stay open at a server while their requester finds the answer to the server's question.

A server up to 2025-11-25 asks while a request runs. A requester that wants questions returned gets them as the result,
with a state. The request goes on at the server until the answers come with this state, or until ``question_timeout`` is
over.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

from consumer.calls.owned_call import CallSession
from consumer.calls.requests.running import Running
from schemas.base import Json
from schemas.errors import InvalidMessage, ToolTimeout
from schemas.ids import CallId
from schemas.text import in_seconds

STOP_TIMEOUT = 2.0
"""How long (s) telling a server that its request is cancelled may take."""

Work = Callable[["KeptCall"], Awaitable[Json]]
"""Runs the request at the server; its questions go to ``KeptCall.ask``."""


class KeptCall:
    """One request at a server, and its questions that wait for answers."""

    def __init__(self, session: CallSession, what: str, work: Work) -> None:
        self.state = uuid.uuid4().hex
        self.session = session
        self.what = what
        self.keys: set[str] = set()
        self.origin: Running | None = None
        """The running call of the first request. The server's messages go through it."""
        self.timer: asyncio.TimerHandle | None = None
        self._open: dict[str, tuple[Json, asyncio.Future[Json]]] = {}
        self._news = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(work))
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _run(self, work: Work) -> Json:
        return await work(self)

    async def ask(self, method: str, params: Json) -> Json:
        """Ask the requester, and wait for its answer."""
        input_id = uuid.uuid4().hex
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._open[input_id] = ({"method": method, "params": params}, answer)
        self._news.set()
        try:
            return await answer
        finally:
            self._open.pop(input_id, None)

    def answer(self, responses: Json) -> None:
        """Send answers to the server; a question without an answer is reported to it as cancelled."""
        for input_id, response in responses.items():
            if (asked := self._open.pop(input_id, None)) is not None and not asked[1].done():
                asked[1].set_result(response if isinstance(response, dict) else {})

    async def outcome(self, left: float) -> Json:
        """Wait for the server's result or question. After ``left`` seconds, cancel the request."""
        until = time.monotonic() + left
        news: asyncio.Task[bool] | None = None
        try:
            while not self._task.done() and not self._open:
                self._news.clear()
                news = asyncio.ensure_future(self._news.wait())
                await asyncio.wait(
                    {self._task, news}, timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
                )
                news.cancel()
                if time.monotonic() >= until and not self._task.done() and not self._open:
                    told = f"{self.what} did not finish within {in_seconds(left)}; it was cancelled at the server"
                    raise ToolTimeout(told, timeout=left)
        except BaseException:
            if news is not None:
                news.cancel()
            await self.stop()
            raise
        if self._task.done():
            return self._task.result()
        asked = {input_id: question for input_id, (question, _) in self._open.items()}
        return {"resultType": "input_required", "inputRequests": asked, "requestState": self.state}

    @property
    def done(self) -> bool:
        """Whether the server has answered."""
        return self._task.done()

    def cancel(self) -> None:
        """Cancel the request at the server."""
        self._task.cancel()

    async def stop(self) -> None:
        """Cancel it at the server, and wait until the cancellation is sent."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=STOP_TIMEOUT)


class KeptCalls:
    """The kept requests of a worker. Each counts towards the limit of requests at its server.

    A request is kept while no requester waits for its outcome. A requester that resumes it has it alone until the
    server asks again.
    """

    def __init__(self) -> None:
        self._kept: dict[str, KeptCall] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def begin(
        self, session: CallSession, what: str, work: Work, left: float, running: Running | None = None, key: str = ""
    ) -> Json:
        """Run a request. Return the server's result, or its questions with the state for resuming."""
        kept = KeptCall(session, what, work)
        kept.origin = running
        return await self._wait(kept, left, key)

    async def resume(
        self,
        session: CallSession,
        what: str,
        state: str,
        responses: Json,
        left: float,
        running: Running | None = None,
        key: str = "",
    ) -> Json:
        """Resume a request, with the answers to its questions.

        Raises:
            InvalidMessage: none is kept under ``state`` for this session (any more), or it is another one.
        """
        kept = self._kept.get(state)
        if kept is None or kept.session is not session:
            raise InvalidMessage(
                "request_state: is unknown or has expired; send the request without it to start again",
                request_state=state[:64],
            )
        if kept.what != what:
            raise InvalidMessage(f"request_state: belongs to {kept.what}, not to {what}", request_state=state)
        del self._kept[state]
        if kept.timer is not None:
            kept.timer.cancel()
        if kept.origin is not None:
            kept.origin.listen_as(running)
        kept.answer(responses)
        return await self._wait(kept, left, key)

    async def _wait(self, kept: KeptCall, left: float, key: str) -> Json:
        kept.keys.add(key)
        result = await kept.outcome(left)
        if not kept.done:
            self._keep(kept)
        return result

    def _keep(self, kept: KeptCall) -> None:
        if kept.origin is not None:
            kept.origin.listen_as(None)
        self._kept[kept.state] = kept
        timeout = kept.session.process.service.question_timeout
        kept.timer = asyncio.get_running_loop().call_later(timeout, self._drop, kept)

    def _drop(self, kept: KeptCall) -> None:
        if self._kept.pop(kept.state, None) is not None:
            if kept.timer is not None:
                kept.timer.cancel()
            kept.cancel()

    def cancel(self, call_id: CallId, key: str) -> bool:
        """Cancel a waiting request that was begun or resumed under an idempotency key. Return whether there was one."""
        found = [one for one in self._kept.values() if key in one.keys and one.session.call_id == call_id]
        for kept in found:
            self._drop(kept)
        return bool(found)

    def stop(self) -> None:
        """Cancel all kept requests."""
        for kept in list(self._kept.values()):
            self._drop(kept)
