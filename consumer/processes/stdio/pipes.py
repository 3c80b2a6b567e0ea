"""Our ends of a child's pipes, based only on ``add_reader`` and ``add_writer``.

The event loops' own pipe transports are not used: uvloop's closes a descriptor twice (libuv first, then the file
object, and in between a thread may have been given the number), and plain asyncio's cannot be aborted once closed.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable

READ_SIZE = 65_536
"""The most bytes of one read: as many as a pipe holds."""


class PipeReader:
    """Reads a pipe while it is open. Owns the descriptor.

    ``on_end`` is called once, when the other end is closed, or by ``finish``; not by ``close``.
    """

    def __init__(self, descriptor: int, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._on_data, self._on_end = on_data, on_end
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._on_data(data)
        else:
            self.finish()

    def pause(self) -> None:
        """Stop reading; idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Resume reading; idempotent."""
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._readable)

    def finish(self) -> None:
        """Close the pipe, and report its end if it was open. Idempotent."""
        if self._descriptor >= 0:
            self.close()
            self._on_end()

    def close(self) -> None:
        """Close the pipe. Idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


class PipeWriter:
    """Writes to a pipe without waiting. It owns the descriptor, and keeps data that cannot be written yet.

    ``on_end`` is called once, when the other end is closed; not when we close ours.
    """

    def __init__(self, descriptor: int, on_end: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._on_end = on_end
        self._kept: deque[memoryview] = deque()
        self.unsent = 0
        os.set_blocking(descriptor, False)
        # Nothing can be read here: it becomes readable when nobody is left to read the other end.
        self._loop.add_reader(descriptor, self._ended)

    def write(self, data: bytes) -> None:
        """Write what the pipe accepts now, and the rest later. Data is dropped if the other end is closed."""
        if self._descriptor < 0:
            return
        if self._kept:
            self._keep(memoryview(data))
        elif (written := self._try(data)) < len(data) and self._descriptor >= 0:
            self._keep(memoryview(data)[written:])
            self._loop.add_writer(self._descriptor, self._writable)

    def _keep(self, rest: memoryview) -> None:
        self._kept.append(rest)
        self.unsent += len(rest)

    def _try(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:  # the other end is closed
            self._ended()
            return 0

    def _ended(self) -> None:
        self.close()
        self._on_end()

    def _writable(self) -> None:
        written = self._try(self._kept[0])
        if self._descriptor < 0:
            return
        self.unsent -= written
        rest = self._kept.popleft()[written:]
        if rest:
            self._kept.appendleft(rest)
        elif not self._kept:
            self._loop.remove_writer(self._descriptor)

    def close(self) -> None:
        """Close the pipe and drop unsent data. Idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            if self._kept:
                self._loop.remove_writer(self._descriptor)
            self._kept.clear()
            self.unsent = 0
            os.close(self._descriptor)
            self._descriptor = -1
