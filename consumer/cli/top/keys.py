"""Parses keys from the bytes of a terminal; pure. A key is a letter, or a word in capitals: ``UP``, ``ENTER``.

A lone escape and the beginning of an arrow key are the same byte: ``waiting`` says that more input may follow, and
``flush`` decides that none does.
"""

import codecs
import re

_NAMES = {
    b"\x1b[A": "UP",
    b"\x1b[B": "DOWN",
    b"\x1bOA": "UP",
    b"\x1bOB": "DOWN",
    b"\x1b[5~": "PAGE_UP",
    b"\x1b[6~": "PAGE_DOWN",
    b"\x1b[H": "HOME",
    b"\x1bOH": "HOME",
    b"\x1b[1~": "HOME",
    b"\x1b[F": "END",
    b"\x1bOF": "END",
    b"\x1b[4~": "END",
}
_LETTERS = {
    "\r": "ENTER",
    "\n": "ENTER",
    "\x7f": "BACKSPACE",
    "\x08": "BACKSPACE",
    "\x03": "INTERRUPT",
    "\x0c": "REDRAW",
    "\x15": "CLEAR",
}
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?$")


class Keys:
    """Collects bytes and returns keys."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def waiting(self) -> bool:
        """Whether an escape waits that is the Esc key or begins a sequence."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Take input, and return the complete keys. Unknown sequences are dropped."""
        keys: list[str] = []
        data, self._rest = self._rest + data, b""
        while data:
            text, escape, after = data.partition(b"\x1b")
            keys += self._letters(text)
            data = escape + after
            if not data:
                break
            if found := _SEQUENCE.match(data):
                if name := _NAMES.get(found[0]):
                    keys.append(name)
                data = data[found.end() :]
            elif _UNFINISHED.fullmatch(data):
                self._rest, data = data, b""
            else:
                keys.append("ESCAPE")
                data = data[1:]
        return keys

    def flush(self) -> list[str]:
        """Return the Esc key if an escape waits: no more input has come."""
        rest, self._rest = self._rest, b""
        return ["ESCAPE"] if rest else []

    def _letters(self, data: bytes) -> list[str]:
        return [
            _LETTERS.get(letter, letter)
            for letter in self._decoder.decode(data)
            if letter in _LETTERS or letter.isprintable()
        ]
