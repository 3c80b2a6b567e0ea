"""Processes for sessions: the protocol's second and third implementation, and what tests ask of a manager."""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from typing import Any, Self

from consumer.sessions import ProcessExit, Session, SessionCreated, SessionEnded, SessionManager
from schemas.ids import ServiceName, SessionId

ECHO = ("cat",)
SLOW_TO_STOP = ("sh", "-c", "cat >/dev/null; exec sleep 0.3")
TODO = ServiceName("todo")


class Child:
    """A child process that reads lines, and ends when its stdin does; killed when it is stubborn."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stops = 0
        self._callbacks: list[Callable[[ProcessExit], None]] = []
        self._exit: ProcessExit | None = None
        self._asking = asyncio.Lock()
        self._watch = asyncio.create_task(self._watched(), name=f"child {process.pid}")

    @classmethod
    async def start(cls, *command: str) -> Self:
        return cls(await asyncio.create_subprocess_exec(*(command or ECHO), stdin=PIPE, stdout=PIPE, stderr=PIPE))

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        if self._exit is not None:
            asyncio.get_running_loop().call_soon(callback, self._exit)
        else:
            self._callbacks.append(callback)

    async def stop(self) -> None:
        self.stops += 1
        self._callbacks.clear()
        assert self.process.stdin is not None
        self.process.stdin.close()
        _, late = await asyncio.wait({self._watch}, timeout=2)
        if late:
            self.process.kill()
            await asyncio.wait({self._watch})

    async def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self._asking:
            self.process.stdin.write(f"{line}\n".encode())
            return (await self.process.stdout.readline()).decode().strip()

    async def gone(self) -> None:
        """Wait until it has ended, however that came."""
        await asyncio.wait({self._watch})

    async def before_telling(self) -> None:
        """For those who take their time."""

    async def _watched(self) -> None:
        assert self.process.stderr is not None
        stderr = (await self.process.stderr.read()).decode()
        code = await self.process.wait()
        await self.before_telling()
        self._exit = ProcessExit(code if code >= 0 else None, -code if code < 0 else None, stderr)
        for callback in self._callbacks:
            callback(self._exit)


class Remote:
    """A server elsewhere: nothing to kill, and it dies when the test says so."""

    def __init__(self) -> None:
        self.is_alive = True
        self.stops = 0

    @classmethod
    async def start(cls) -> Self:
        return cls()

    def on_exit(self, callback: Callable[[ProcessExit], None]) -> None:
        """It never tells: that is what the sweep is for."""

    async def stop(self) -> None:
        self.stops += 1
        self.is_alive = False


class Events(list[SessionCreated[Any] | SessionEnded[Any]]):
    """What a manager told, in order."""

    __call__ = list.append

    def story(self) -> list[tuple[str, str]]:
        """``(session_id, "created" or the reason of the end)``, in order."""
        return [(e.session.session_id, e.reason if isinstance(e, SessionEnded) else "created") for e in self]

    def end_of(self, session: Session[Any]) -> SessionEnded[Any]:
        [end] = [event for event in self if isinstance(event, SessionEnded) and event.session is session]
        return end


def sid(text: str) -> SessionId:
    return SessionId(text)


async def opened(
    manager: SessionManager[Child],
    session_id: str,
    service_name: ServiceName = TODO,
    start: Callable[[], Awaitable[Child]] = Child.start,
    **options: Any,
) -> Session[Child]:
    return (await manager.open_session(sid(session_id), service_name, start, **options)).session


async def ended(session: Session[Any], within: float = 5) -> None:
    async with asyncio.timeout(within):
        await session.wait_ended()


class Gate:
    """A start that waits until it is let through, so that a test can look at the moment between."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        self.starts = 0
        self.started: list[Child] = []

    async def start(self) -> Child:
        self.starts += 1
        self.reached.set()
        await self.open.wait()
        child = await Child.start()
        self.started.append(child)
        return child
