"""A program in a real pseudo-terminal, and its screen as a person sees it."""

import asyncio
import fcntl
import os
import pty
import re
import shlex
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pyte

WAIT = 60.0
"""The bound (s) of every wait for something to be on the screen."""

LEADER = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Makes the terminal on stdin its own, then becomes another program."""

TELL = 'echo "ended with $?."; read -r'
"""The shell stays: when it ends, the kernel resets its terminal."""

UP, DOWN, ENTER, ESCAPE = "\x1b[A", "\x1b[B", "\r", "\x1b"


class Screen(pyte.Screen):
    """A screen that knows of dim letters, which pyte does not: it takes them for blinking ones, which nobody writes."""

    def select_graphic_rendition(self, *attributes: int, **more: Any) -> None:
        super().select_graphic_rendition(*attributes, *((5,) if 2 in attributes else ()), **more)


class Terminal:
    """A terminal of a size, in which a program runs."""

    def __init__(self, columns: int, lines: int) -> None:
        self._screen = Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Event()
        self.ours, self.theirs = pty.openpty()
        self._size(columns, lines)
        self.written = b""
        """Everything that the program wrote."""
        self.process: asyncio.subprocess.Process
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        data = os.read(self.ours, 65536)
        self.written += data
        self._stream.feed(data)
        self._changed.set()

    async def start(self, program: Sequence[str], **more: Any) -> None:
        """Run a program under a shell, whose terminal this is: Ctrl-C and a new size are signals to both."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", LEADER, "bash", "-c", f"{shlex.join(program)}; {TELL}"),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            **more,
        )

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Another size; what was on the screen is forgotten, so that what is there then is from after it."""
        self._screen.resize(lines, columns)
        self._screen.reset()
        self._size(columns, lines)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def screen(self) -> pyte.Screen:
        """The screen with its colours."""
        return self._screen

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until what is on the screen makes ``condition`` true; returns its value."""
        try:
            async with asyncio.timeout(WAIT):
                while True:
                    self._changed.clear()
                    if value := condition():
                        return value
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"it did not come to the screen within {WAIT:g} s:\n{self.text}") from None

    async def shows(self, *words: str) -> None:
        await self.until(lambda: all(word in self.text for word in words))

    async def hides(self, *words: str) -> None:
        await self.until(lambda: not any(word in self.text for word in words))

    async def quiet(self, seconds: float = 0.05) -> None:
        """Wait until nothing has been written for a while: what is on the screen is one picture then."""
        with suppress(TimeoutError):
            while True:
                self._changed.clear()
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def ended(self) -> int:
        """Wait for the program's end; its exit code, as the shell tells it."""
        found = await self.until(lambda: re.search(r"ended with (\d+)\.", self.text))
        return int(found[1])

    @property
    def settings(self) -> list[Any]:
        """What the terminal is set to."""
        return termios.tcgetattr(self.ours)

    async def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)
        os.close(self.theirs)


@asynccontextmanager
async def terminal(
    program: Sequence[str], environment: Mapping[str, str], columns: int = 80, lines: int = 24, **more: Any
) -> AsyncIterator[Terminal]:
    """A program in a terminal; it is ended in the end, if it has not ended by itself."""
    made = Terminal(columns, lines)
    await made.start(program, env={**environment, "TERM": "xterm", "LANG": "C.UTF-8"}, **more)
    try:
        yield made
    finally:
        await made.close()
