"""The synchronous version of ``SessionClient``: the same client on an event loop in a separate thread.

Each method runs the asyncio client's method on that loop, and waits for its result. Callbacks (``on_progress``,
``on_question``) run in the thread that called the method, as synchronous code expects.

::

    with SyncSessionClient("amqp://localhost") as client:
        client.publish_call_event({"call_id": "c-1", "kind": "started"})
        print(client.call_tool("c-1", "add_todo", {"text": "call back"}).text)
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import os
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from consumer.client.arguments import check_seconds
from consumer.client.client import SessionClient
from consumer.client.home import FORKED
from schemas.errors import Disconnected, NotConnectedHere
from schemas.events import CloudEvent

P = ParamSpec("P")
T = TypeVar("T")

_Work = Callable[[], None]


def _blocking(
    method: Callable[Concatenate[SessionClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncSessionClient", P], T]:
    """Return a method that waits for the result of the asyncio method."""

    @functools.wraps(method)
    def call(self: "SyncSessionClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        here = _Here()
        for name, given in kwargs.items():
            if name.startswith("on_") and callable(given):
                kwargs[name] = here.bridge(given)
        return self._run(lambda: method(self._client, *args, **kwargs), here)

    return call


def _iterating(
    method: Callable[Concatenate[SessionClient, P], AsyncIterator[T]],
) -> Callable[Concatenate["SyncSessionClient", P], Iterator[T]]:
    """Return an iterator that waits for each step of the asyncio iterator."""

    @functools.wraps(method)
    def call(self: "SyncSessionClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._iterate(method(self._client, *args, **kwargs))

    return call


def _at_once(
    method: Callable[Concatenate[SessionClient, P], T],
) -> Callable[Concatenate["SyncSessionClient", P], T]:
    """Return a method that calls the asyncio client's method directly, because it does not wait."""

    @functools.wraps(method)
    def call(self: "SyncSessionClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self._client, *args, **kwargs)

    return call


class _Here:
    """The thread that waits for a result, and runs callbacks for the loop meanwhile."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    def bridge(self, function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
        """Wrap ``function`` so that the loop can await it while it runs in this thread."""

        async def call(message: Any) -> Any:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Any] = loop.create_future()

            def work() -> None:
                try:
                    result, error = function(message), None
                except BaseException as failure:  # noqa: BLE001 - it is raised where the call is waited for
                    result, error = None, failure
                with contextlib.suppress(RuntimeError):  # the function has disconnected the client
                    loop.call_soon_threadsafe(_settle, answer, result, error)

            self._work.put(work)
            return await answer

        return call

    def wait(self, future: "concurrent.futures.Future[T]") -> T:
        """Return the result of ``future``, and run callbacks until then."""
        future.add_done_callback(lambda _: self._work.put(None))
        try:
            while (work := self._work.get()) is not None:
                work()
        except BaseException:  # Ctrl-C
            future.cancel()
            raise
        return future.result()


def _settle(answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class SyncEvents:
    """The followed events: ``get`` waits for one, and iteration ends when the client disconnects."""

    def __init__(self, client: "SyncSessionClient", events: "asyncio.Queue[CloudEvent]") -> None:
        self._client = client
        self._events = events

    def get(self, timeout: float | None = None) -> CloudEvent:
        """Return the next event. A ``timeout`` of 0 returns only one that has come.

        Raises:
            TimeoutError: none came within ``timeout`` seconds.
            Disconnected: the client is disconnected.
        """
        if timeout is not None and timeout != 0:
            check_seconds("timeout", timeout)

        async def next_one() -> CloudEvent:
            async with asyncio.timeout(timeout):
                return await self._events.get()

        return self._client._run(next_one, _Here())  # noqa: SLF001 - a part of it

    def __iter__(self) -> Iterator[CloudEvent]:
        with contextlib.suppress(Disconnected):
            while True:
                yield self.get()


class SyncSessionClient:
    """A connection to the workers of one prefix, for synchronous code. It can be used from many threads at once.

    It has the methods, arguments, results and errors of ``SessionClient``. ``with`` connects and disconnects it, and so
    do ``connect`` and ``disconnect``. ``with`` blocks may be nested, and entered by several threads: leaving the last
    one disconnects. Disconnecting also ends its thread. Callbacks run in the thread that called the method. Its methods
    block, so do not call them in an event loop.

    Args:
        url: the broker; ``amqps://`` is verified.
        prefix: the first word of every name on the broker; the same as the workers'.
        connect_timeout: how long (s) the first connection may take. A broker that accepts the connection and then does
            not answer has at least 5 s.
        token_keys: the keys of ``mint_token``, the same as the gateway's ``token_keys``; the first one signs.

    Raises:
        InvalidUrl: ``url`` is invalid.
        InvalidKey: one of ``token_keys`` is neither a secret of 32 bytes or more nor an Ed25519 key.
    """

    def __init__(
        self,
        url: str = "amqp://guest:guest@localhost:5672/",
        *,
        prefix: str = "mcp",
        connect_timeout: float = 10.0,
        token_keys: Sequence[str] = (),
    ) -> None:
        self._made = functools.partial(
            SessionClient, url, prefix=prefix, connect_timeout=connect_timeout, token_keys=token_keys
        )
        self._client = self._made()
        self._abandoned: list[object] = []
        """The client and loop of the parent process, after a fork; see ``AmqpConnection``."""
        self._make_parts()

    def _make_parts(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._blocks = 0

    def _leave_parent_behind(self) -> None:
        """Replace thread, loop and lock after a fork: they belong to the parent, where a thread may hold the lock."""
        if self._process != os.getpid():
            self._abandoned.append((self._client, self._loop))
            self._client = self._made()
            self._make_parts()

    def connect(self) -> None:
        """Connect to the broker, and stay connected until ``disconnect``; ``with`` does both. Idempotent.

        Raises:
            CannotConnect: no broker answers within ``connect_timeout``; ``AccessRefused`` if it refuses the user.
        """
        self._leave_parent_behind()
        with self._lock:
            if self._thread is not None:
                return
            up: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
            self._client, self._stop = self._made(), asyncio.Event()  # both belong to one loop only
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._live(up)), name="mcp-sessions client", daemon=True
            )
            self._thread.start()
            try:
                self._loop = up.result()
            except BaseException:
                self._thread.join()
                self._thread = None
                raise

    async def _live(self, up: "concurrent.futures.Future[asyncio.AbstractEventLoop]") -> None:
        try:
            await self._client.connect()
        except BaseException as error:  # noqa: BLE001 - it is raised by connect
            up.set_exception(error)
            return
        up.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        await self._client.disconnect()

    def disconnect(self) -> None:
        """Disconnect from the broker and end the thread. Requests in flight raise ``Disconnected``. Idempotent."""
        self._leave_parent_behind()
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            if loop is not None:
                loop.call_soon_threadsafe(self._stop.set)
        if thread is not None:
            thread.join()

    def __enter__(self) -> Self:
        self.connect()
        with self._lock:
            self._blocks += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave_parent_behind()
        with self._lock:
            self._blocks -= 1
            if self._blocks > 0:
                return
        self.disconnect()

    @property
    def connected(self) -> bool:
        """Whether the client is connected now. When the connection is lost, it reconnects."""
        return self._client.connected

    create = _blocking(SessionClient.create)
    get = _blocking(SessionClient.get)
    touch = _blocking(SessionClient.touch)
    describe = _blocking(SessionClient.describe)
    close = _blocking(SessionClient.close)
    list_sessions = _blocking(SessionClient.list_sessions)
    iter_sessions = _iterating(SessionClient.iter_sessions)
    list_tools = _blocking(SessionClient.list_tools)
    call_tool = _blocking(SessionClient.call_tool)
    cancel_tool = _blocking(SessionClient.cancel_tool)
    list_resources = _blocking(SessionClient.list_resources)
    iter_resources = _iterating(SessionClient.iter_resources)
    list_resource_templates = _blocking(SessionClient.list_resource_templates)
    iter_resource_templates = _iterating(SessionClient.iter_resource_templates)
    read_resource = _blocking(SessionClient.read_resource)
    subscribe_resource = _blocking(SessionClient.subscribe_resource)
    unsubscribe_resource = _blocking(SessionClient.unsubscribe_resource)
    set_logging_level = _blocking(SessionClient.set_logging_level)
    complete = _blocking(SessionClient.complete)
    list_prompts = _blocking(SessionClient.list_prompts)
    iter_prompts = _iterating(SessionClient.iter_prompts)
    get_prompt = _blocking(SessionClient.get_prompt)
    list_services = _blocking(SessionClient.list_services)
    service_tools = _blocking(SessionClient.service_tools)
    describe_service = _blocking(SessionClient.describe_service)
    list_workers = _blocking(SessionClient.list_workers)
    worker_figures = _blocking(SessionClient.worker_figures)
    count_dead_letters = _blocking(SessionClient.count_dead_letters)
    publish_call_event = _blocking(SessionClient.publish_call_event)
    request = _blocking(SessionClient.request)
    mint_token = _at_once(SessionClient.mint_token)

    @contextlib.contextmanager
    def following(
        self, pattern: str = "#", *, on_connection: Callable[[bool], None] | None = None
    ) -> Iterator[SyncEvents]:
        """Follow the events whose routing key (``session.<what>.<service>``, ``worker.<what>``) matches.

        Every event from the moment this is entered is received. Events are missed while the connection is lost.

        Args:
            pattern: a topic pattern for the routing key.
            on_connection: called in the client's thread, with ``False`` when the connection is lost, and with ``True``
                when events are received again. It must not raise.

        Raises:
            Disconnected: the client is not connected now.
            NotRouted: no worker has ever run under this prefix, so there is no exchange for events.
        """
        followed = self._client.following(pattern, on_connection=on_connection)
        events = self._run(followed.__aenter__, _Here())
        try:
            yield SyncEvents(self, events)
        finally:
            with contextlib.suppress(Disconnected, NotConnectedHere):  # then nothing is followed any more
                self._run(lambda: followed.__aexit__(None, None, None), _Here())

    def events(self, pattern: str = "#") -> Iterator[CloudEvent]:
        """Follow events until the client is disconnected; see ``following``."""
        with self.following(pattern) as events:
            yield from events

    def _run(self, start: Callable[[], Awaitable[T]], here: _Here) -> T:
        """Run ``start()`` on the loop, and wait for it here."""

        async def run() -> T:
            return await start()

        if self._process != os.getpid():
            raise NotConnectedHere(FORKED)
        with self._lock:
            if self._loop is None:
                raise Disconnected("the client is not connected: enter it with 'with', or call connect", executed=False)
            future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return here.wait(future)
        except concurrent.futures.CancelledError:
            raise Disconnected("the client was disconnected before the answer came") from None

    def _iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        end = object()

        async def step() -> T | object:
            return await anext(iterator, end)

        try:
            while (one := self._run(step, _Here())) is not end:
                yield one  # type: ignore[misc]  # it is not the end
        finally:
            if inspect.isasyncgen(iterator):
                with contextlib.suppress(Disconnected, NotConnectedHere):
                    self._run(iterator.aclose, _Here())
