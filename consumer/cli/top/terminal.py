"""The screen and the keyboard of a terminal. Both are restored, however the program ends.

The alternate screen keeps what was on the screen before. Keys come one by one and are not echoed; Ctrl-C and Ctrl-Z
stay signals.
"""

import asyncio
import os
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live
from rich.text import Text

from consumer.cli.top.keys import Keys

ESCAPE_DELAY = 0.05
"""How long (s) after an escape the rest of an arrow key may arrive."""

READ = 4096


class Terminal:
    """The terminal, within a block. ``pressed`` is called with each key, ``hung_up`` when there is no more input."""

    def __init__(
        self, screen: Console, keyboard: int, pressed: Callable[[str], None], hung_up: Callable[[], None]
    ) -> None:
        self._screen = screen
        self._output = screen.file.fileno()
        self._keyboard = keyboard
        self._pressed = pressed
        self._hung_up = hung_up
        self._keys = Keys()
        self._live: Live | None = None
        self._before: list[Any] = []
        self._drawn: tuple[tuple[int, int], list[Text]] | None = None
        self._deciding: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._keyboard)
        try:
            self._take()
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _take(self) -> None:
        mode = termios.tcgetattr(self._keyboard)
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._keyboard, termios.TCSADRAIN, mode)
        self._screen.size = ConsoleDimensions(*self.size)
        self._live = Live(
            console=self._screen, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        self._drawn = None
        asyncio.get_running_loop().add_reader(self._keyboard, self._read)

    def _give_back(self) -> None:
        asyncio.get_running_loop().remove_reader(self._keyboard)
        if self._deciding is not None:
            self._deciding.cancel()
        live, self._live = self._live, None
        # What has gone (an ssh that was cut) needs nothing back.
        if live is not None:
            with suppress(OSError):
                live.stop()
        with suppress(termios.error):
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """Return the present columns and lines; 80 by 24 if the terminal does not know them."""
        try:
            columns, lines = os.get_terminal_size(self._output)
        except OSError:
            return 80, 24
        return (columns, lines) if columns and lines else (80, 24)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show these lines, which must match ``size``. Unchanged lines are not sent again."""
        picture = (self.size, list(lines))
        if self._live is None or picture == self._drawn:
            return
        self._drawn = picture
        self._screen.size = ConsoleDimensions(*self.size)
        self._live.update(Group(*lines), refresh=True)

    def forget(self) -> None:
        """Send the next picture as a whole, even if it is unchanged."""
        self._drawn = None

    def suspend(self, stop: Callable[[], None]) -> None:
        """Restore the terminal, ``stop`` this process, and take the terminal again when it continues."""
        self._give_back()
        stop()
        self._before = termios.tcgetattr(self._keyboard)
        self._take()

    def _read(self) -> None:
        try:
            data = os.read(self._keyboard, READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._keyboard)
            self._hung_up()
            return
        if self._deciding is not None:
            self._deciding.cancel()
        self._tell(self._keys.feed(data))
        if self._keys.waiting:
            self._deciding = asyncio.get_running_loop().call_later(ESCAPE_DELAY, self._undecided)

    def _undecided(self) -> None:
        self._tell(self._keys.flush())

    def _tell(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._pressed(key)
