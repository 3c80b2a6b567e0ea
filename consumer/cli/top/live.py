"""The live view. It is redrawn after keys, changes and time, at a limited rate."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console

from consumer.cli.top.known import Now
from consumer.cli.top.picture import picture
from consumer.cli.top.terminal import Terminal
from consumer.cli.top.view import Close, Pause, Quit, Redraw, View, pressed
from consumer.cli.top.watching import Watcher

FASTEST = 0.1
"""The shortest time (s) between two pictures."""

SLOWEST = 1.0
"""The longest time (s) between two pictures, because ages and bars change by themselves."""

LEAVING = 1.0
"""How long (s) disconnecting from the broker may take."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def now() -> Now:
    """Return the current time."""
    return Now(asyncio.get_running_loop().time(), datetime.now(UTC))


class Screen:
    """Runs the view until the user quits."""

    def __init__(
        self, watcher: Watcher, screen: Console, keyboard: int, interval: float, changed: asyncio.Event
    ) -> None:
        self._watcher = watcher
        self._interval = interval
        self._changed = changed
        self._terminal = Terminal(screen, keyboard, self._press, self._hang_up)
        self._view = View()
        self._held_at: Now | None = None
        self._code: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Run the display. Return the exit code: 0 when it was quit, 128 and the number of the signal that ended it."""
        async with AsyncExitStack() as leaving:
            leaving.push_async_callback(self._cancel)
            self._start(self._watcher.watch(self._interval), "top-watch")
            self._start(self._watcher.follow(), "top-follow")
            self._listen(leaving)
            leaving.enter_context(self._terminal)
            while self._code is None:
                self._draw()
                with suppress(TimeoutError):
                    async with asyncio.timeout(SLOWEST):
                        await self._changed.wait()
                self._changed.clear()
                if self._code is None:
                    await asyncio.sleep(FASTEST)
        return self._code

    def _draw(self) -> None:
        for task in [one for one in self._tasks if one.done()]:
            self._tasks.discard(task)
            task.result()  # a defect of ours ends the view, and is told after the screen has been given back
        self._watcher.look()
        moment = now() if self._held_at is None else self._held_at
        shown = self._view if self._view.said_until > now().ticks else replace(self._view, said="")
        width, height = self._terminal.size
        lines = picture(self._watcher.known, shown, width, height, moment, paused=self._held_at is not None)
        self._terminal.draw(lines)

    def _press(self, key: str) -> None:
        self._view, action = pressed(self._view, key, self._watcher.known.sessions)
        match action:
            case Quit():
                self._code = 128 + signal.SIGINT if key == "INTERRUPT" else 0
            case Close(session_id=session_id):
                self._view = self._view.say(f"Closing {session_id} ...", now().ticks)
                self._start(self._close(session_id), "top-close")
            case Pause():
                self._pause()
            case Redraw():
                self._terminal.forget()
            case None:
                pass
        self._changed.set()

    def _pause(self) -> None:
        if self._held_at is None:
            self._held_at = now()
            self._watcher.hold()
        else:
            self._held_at = None
            self._watcher.go_on()

    async def _close(self, session_id: str) -> None:
        told = await self._watcher.close(session_id)
        self._view = self._view.say(told, now().ticks)
        self._changed.set()

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._changed.set())

    async def _cancel(self) -> None:
        for timeout in (LEAVING, None):  # a broker that is silent may keep us waiting once
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=timeout)

    # Signals.

    def _listen(self, leaving: AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        handlers = {number: partial(self._end, number) for number in ENDING}
        handlers |= {signal.SIGWINCH: partial(self._resized), signal.SIGTSTP: partial(self._suspend)}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            leaving.callback(loop.remove_signal_handler, number)

    def _end(self, number: int) -> None:
        self._code = 128 + number
        self._changed.set()

    def _hang_up(self) -> None:
        self._end(signal.SIGHUP)

    def _resized(self) -> None:
        self._terminal.forget()
        self._changed.set()

    def _suspend(self) -> None:
        self._terminal.suspend(lambda: os.kill(os.getpid(), signal.SIGSTOP))
        self._changed.set()
