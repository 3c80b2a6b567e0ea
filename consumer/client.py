"""The way in from Python: an asyncio client for telephony backends, agents and the command line.

::

    async with SessionClient("amqp://localhost") as client:
        await client.publish_call_event({"call_id": "c-1", "kind": "started"})
        answer = await client.call_tool("c-1", "add_todo", {"text": "call back"})
        print(answer["text"])
        async for event in client.events("session.closed.*"):
            print(event.subject, event.data["reason"])

It reconnects by itself; a request that was under way then raises ``BrokerUnavailable``, and may be repeated with the
same ``idempotency_key``. Errors of a worker are raised as the classes of ``schemas.errors``.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from consumer.broker.asking import Asker
from consumer.broker.channel import Channel
from consumer.broker.errors import BrokerUnavailable
from consumer.broker.link import Link
from consumer.broker.message import Delivery, Message
from consumer.broker.publisher import Publisher
from consumer.broker.supervisor import Supervisor
from consumer.broker.topology import Binding, Names, Queue, cluster
from consumer.calls.messages.forwarding import milliseconds
from consumer.observability.logs import quiet_unless_configured
from schemas.base import Json
from schemas.calls import CallEvent
from schemas.errors import DeadlineExceeded
from schemas.events import CloudEvent
from schemas.headers import DEADLINE
from schemas.ids import CallId, call_id_of, routing_key
from schemas.interim import INTERIM, InputRequired, Interim, ToolsPending, ToolsProgress
from schemas.replies import parse_reply
from schemas.requests import (
    CallEnded,
    CallProgress,
    CallRequest,
    CallStarted,
    InputAnswer,
    PromptsGet,
    PromptsList,
    ResourcesList,
    ResourcesRead,
    ServicesList,
    ServicesTools,
    SessionClose,
    SessionCreate,
    SessionGet,
    SessionsList,
    SessionTouch,
    ToolsCall,
    ToolsList,
    WorkersFigures,
    WorkersList,
)

OnInterim = Callable[[Interim], Awaitable[None]]

DEFAULT_PATIENCE = 30.0
"""How long (s) a request may take, unless its caller says otherwise."""

_DURABLE = {SessionCreate.type, SessionClose.type, CallStarted.type, CallProgress.type, CallEnded.type}
_CLUSTER = {SessionsList.type, ServicesList.type, ServicesTools.type, WorkersFigures.type, WorkersList.type}


def _body(values: Json) -> bytes:
    given = {name: value for name, value in values.items() if value is not None}
    return json.dumps(given, ensure_ascii=False).encode("utf-8", "surrogatepass")


class SessionClient:
    """A connection to the workers of one prefix; enter it before use. Safe for any number of requests at once."""

    def __init__(
        self, url: str = "amqp://guest:guest@localhost:5672/", *, prefix: str = "mcp", connect_timeout: float = 10.0
    ) -> None:
        quiet_unless_configured()
        self.names = Names(prefix)
        self._connect_timeout = connect_timeout
        self._publisher = Publisher(begins_traces=True)
        self._asker = Asker(self._publisher)
        self._followed: dict[asyncio.Queue[CloudEvent], tuple[str, Channel, str]] = {}
        self._link: Link | None = None
        self._answered_on: Link | None = None
        self._listening = asyncio.Lock()
        self._supervisor = Supervisor(
            url, "mcp-sessions client", self._publisher, attach=self._attach, detached=self._detached
        )
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(
            self._supervisor.run(connect_timeout=self._connect_timeout), name="client-supervisor"
        )
        up = asyncio.create_task(self._supervisor.up.wait(), name="client-up")
        await asyncio.wait({self._running, up}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            up.cancel()
            await self._running  # raises BrokerUnreachable
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _attach(self, link: Link) -> None:
        self._link = link
        with contextlib.suppress(BrokerUnavailable):  # a user that may not declare finds what the workers declared
            async with link.scratch() as scratch:
                for exchange in cluster(self.names).exchanges:
                    await scratch.declare_exchange(exchange)
        for events, (pattern, _, _) in self._followed.items():
            self._followed[events] = (pattern, *await self._follow(link, events, pattern))

    async def _detached(self) -> None:
        self._link = None
        self._asker.detach()

    def _linked(self) -> Link:
        if self._link is None:
            raise BrokerUnavailable("the connection to the broker is being restored")
        return self._link

    async def _listen(self) -> None:
        """Have a queue for answers; from the first request on, because who only publishes may have no queue."""
        async with self._listening:
            link = self._linked()
            if link is self._answered_on:
                return
            answers = Queue(f"{self.names.prefix}.replies.{link.token}", "answers to a client", exclusive=True)
            async with link.scratch() as scratch:  # what is refused closes its channel
                await scratch.declare_queue(answers)
            await (await link.channel()).consume(answers.name, self._heard, no_ack=True)
            self._asker.attach(answers.name)
            self._answered_on = link

    def _heard(self, delivery: Delivery) -> None:
        self._asker.heard(delivery)

    # Requests.

    async def request(
        self,
        message_type: str,
        body: Json,
        *,
        call_id: str | None = None,
        timeout: float = DEFAULT_PATIENCE,
        on_interim: OnInterim | None = None,
    ) -> Json:
        """Send any request and return its result; without a ``call_id`` it goes to the cluster.

        ``on_interim`` is given what comes before the reply: ``tools.progress``, ``tools.pending``, ``input.required``.

        Raises:
            SessionsError: the worker's error, as the class of its code.
            DeadlineExceeded: nobody answered within ``timeout`` seconds; whether it was executed is unknown.
            BrokerError: the broker cannot be reached.
        """
        await self._listen()
        if message_type in _CLUSTER or call_id is None:
            exchange, key = "", self.names.queries
        else:
            exchange = self.names.sessions if message_type in _DURABLE else self.names.requests
            key = routing_key(CallId(call_id))
        durable = message_type in _DURABLE  # what expires in a durable queue would be parked
        until = {DEADLINE: milliseconds(time.time() + timeout)} if message_type == SessionCreate.type else {}
        message = Message(
            body=_body(body),
            type=message_type,
            expiration=None if durable else round(timeout * 1000),
            persistent=durable,
            headers=until,
        )

        async def interim(delivery: Delivery) -> None:
            model = INTERIM.get(delivery.type or "")
            if on_interim is not None and model is not None:
                await on_interim(model.model_validate_json(delivery.message.body))

        try:
            # What exclusive queues are bound to is published without confirms; see ``publisher``.
            confirmed = exchange != self.names.requests
            answer = await self._asker.ask(
                message, exchange, key, timeout=timeout, confirmed=confirmed, interim=interim
            )
        except TimeoutError:
            raise DeadlineExceeded(f"nobody answered {message_type} within {timeout:g} s") from None
        return parse_reply(answer.message.body).unwrap()

    async def _session(
        self,
        model: type[CallRequest],
        session_id: str,
        *,
        patience: float,
        on_interim: OnInterim | None = None,
        **more: Any,
    ) -> Json:
        return await self.request(
            model.type,
            {"session_id": session_id, **more},
            call_id=call_id_of(session_id),
            timeout=patience,
            on_interim=on_interim,
        )

    async def create(
        self,
        session_id: str,
        service_name: str,
        *,
        timeout: float | None = None,
        metadata: Json | None = None,
        if_exists: str = "replace",
        patience: float = 60.0,
    ) -> Json:
        """Open a session; returns session info. ``timeout`` is the session's idle timeout (s)."""
        return await self._session(
            SessionCreate,
            session_id,
            patience=patience,
            service_name=service_name,
            timeout=timeout,
            metadata=metadata,
            if_exists=if_exists,
        )

    async def get(self, session_id: str) -> Json:
        """Session info; counts as a use."""
        return await self._session(SessionGet, session_id, patience=DEFAULT_PATIENCE)

    async def touch(self, session_id: str) -> Json:
        """Count a use; returns session info."""
        return await self._session(SessionTouch, session_id, patience=DEFAULT_PATIENCE)

    async def close(self, session_id: str) -> Json:
        """Close a session, or with a bare call id all sessions of the call."""
        return await self._session(SessionClose, session_id, patience=DEFAULT_PATIENCE)

    async def list_tools(self, session_id: str, *, service_name: str | None = None) -> list[Json]:
        """The tools of a session."""
        result = await self._session(ToolsList, session_id, patience=DEFAULT_PATIENCE, service_name=service_name)
        return list(result["tools"])

    async def call_tool(
        self,
        session_id: str,
        name: str,
        arguments: Json | None = None,
        *,
        service_name: str | None = None,
        timeout: float = DEFAULT_PATIENCE,
        meta: Json | None = None,
        idempotency_key: str | None = None,
        pending_after: float | None = None,
        on_progress: Callable[[ToolsProgress], Awaitable[None]] | None = None,
        on_pending: Callable[[ToolsPending], Awaitable[None]] | None = None,
        on_question: Callable[[InputRequired], Awaitable[Json]] | None = None,
    ) -> Json:
        """Call a tool; with a ``service_name`` the session is opened when there is none.

        ``on_question`` returns ``{"action": "accept" | "decline" | "cancel", "content": {...}}``.
        Returns MCP's ``CallToolResult`` with ``session_id`` and ``text``; an ``isError`` result is a result.
        """

        async def interim(message: Interim) -> None:
            match message:
                case ToolsProgress() if on_progress is not None:
                    await on_progress(message)
                case ToolsPending() if on_pending is not None:
                    await on_pending(message)
                case InputRequired() if on_question is not None:
                    answer = await on_question(message)
                    await self._session(
                        InputAnswer, session_id, patience=message.timeout, input_id=message.input_id, **answer
                    )
                case _:
                    pass

        return await self._session(
            ToolsCall,
            session_id,
            patience=timeout + 1.0,  # the worker's own answer says more than our silence
            on_interim=interim,
            service_name=service_name,
            name=name,
            arguments=arguments or {},
            timeout=timeout,
            meta=meta,
            idempotency_key=idempotency_key,
            pending_after=pending_after,
            progress=on_progress is not None or None,
            questions=on_question is not None or None,
        )

    async def list_resources(self, session_id: str, *, cursor: str | None = None, templates: bool = False) -> Json:
        """MCP ``resources/list`` (or ``resources/templates/list``) of a session, one page."""
        return await self._session(
            ResourcesList, session_id, patience=DEFAULT_PATIENCE, cursor=cursor, templates=templates or None
        )

    async def read_resource(self, session_id: str, uri: str) -> Json:
        """MCP ``resources/read`` of a session."""
        return await self._session(ResourcesRead, session_id, patience=DEFAULT_PATIENCE, uri=uri)

    async def list_prompts(self, session_id: str, *, cursor: str | None = None) -> Json:
        """MCP ``prompts/list`` of a session, one page."""
        return await self._session(PromptsList, session_id, patience=DEFAULT_PATIENCE, cursor=cursor)

    async def get_prompt(self, session_id: str, name: str, arguments: dict[str, str] | None = None) -> Json:
        """MCP ``prompts/get`` of a session."""
        return await self._session(
            PromptsGet, session_id, patience=DEFAULT_PATIENCE, name=name, arguments=arguments or {}
        )

    async def list_sessions(self, **filters: Any) -> Json:
        """``sessions.list``: filters are ``service_name``, ``call_id``, ``worker_id``, ``limit``, ``cursor``."""
        return await self.request(SessionsList.type, filters)

    async def list_services(self) -> Json:
        """The configured services, by name."""
        return dict((await self.request(ServicesList.type, {}))["services"])

    async def service_tools(self, service_name: str) -> list[Json]:
        """The tools of a service, without a session."""
        return list((await self.request(ServicesTools.type, {"service_name": service_name}))["tools"])

    async def list_workers(self) -> list[Json]:
        """The workers that are present."""
        return list((await self.request(WorkersList.type, {}))["workers"])

    async def worker_figures(self) -> Json:
        """``workers.figures``: what each worker did in the last minute, and which one places calls."""
        return await self.request(WorkersFigures.type, {})

    # The broker.

    @property
    def connected(self) -> bool:
        """Whether there is a connection at the moment; it is restored by itself."""
        return self._supervisor.up.is_set()

    async def parked(self) -> int:
        """How many messages are in the parking lot. Looks without touching any.

        Raises:
            BrokerUnavailable: there is no connection at the moment, or no parking lot because no worker ever was.
        """
        async with self._linked().scratch() as scratch:
            return await scratch.declare_queue(Queue(self.names.dead, "the parking lot"), passive=True)

    # Events.

    async def publish_call_event(
        self,
        event: CallEvent | Json | bytes,
        *,
        content_type: str = "application/json",
        exchange: str | None = None,
        routing_key: str = "",
    ) -> None:
        """Publish what a telephony platform says of a call; returns when the broker has it for sure."""
        match event:
            case bytes():
                body = event
            case BaseModel():
                body = event.model_dump_json().encode()
            case _:
                body = _body(event)
        await self._publisher.confirmed(
            Message(body=body, content_type=content_type), exchange or self.names.calls, routing_key
        )

    @contextlib.asynccontextmanager
    async def following(self, pattern: str = "#") -> AsyncIterator[asyncio.Queue[CloudEvent]]:
        """A queue of the events whose routing key (``session.<what>.<service>``, ``worker.<what>``) fits.

        The binding is there when this is entered: what happens from then on is in the queue.
        """
        events: asyncio.Queue[CloudEvent] = asyncio.Queue()
        self._followed[events] = (pattern, *await self._follow(self._linked(), events, pattern))
        try:
            yield events
        finally:
            _, channel, consumer_tag = self._followed.pop(events)
            with contextlib.suppress(BrokerUnavailable):  # then its queue has gone with the connection
                await channel.cancel(consumer_tag)
                await channel.delete_queue(self._events_queue(events))
                await channel.close()

    async def events(self, pattern: str = "#") -> AsyncIterator[CloudEvent]:
        """Follow events for ever; see ``following``."""
        async with self.following(pattern) as events:
            while True:
                yield await events.get()

    def _events_queue(self, events: asyncio.Queue[CloudEvent]) -> str:
        return f"{self.names.prefix}.following.{self._link.token if self._link else ''}.{id(events):x}"

    async def _follow(self, link: Link, events: asyncio.Queue[CloudEvent], pattern: str) -> tuple[Channel, str]:
        def heard(delivery: Delivery) -> None:
            with contextlib.suppress(ValidationError):
                events.put_nowait(CloudEvent.model_validate_json(delivery.message.body))

        channel = await link.channel()
        name = self._events_queue(events)
        await channel.declare_queue(Queue(name, "events for a client", exclusive=True))
        await channel.bind(Binding(self.names.events, name, pattern))
        return channel, await channel.consume(name, heard, no_ack=True)
