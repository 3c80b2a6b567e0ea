"""Distinguishes a cancellation by this program from one by the AMQP library.

When a connection is lost, aiormq cancels the tasks that wait for responses, and a coroutine that awaits one gets
``CancelledError`` as if it had been cancelled itself. Its task would end without any report. The other way round, a
cancellation by this program can be lost in the library.
"""

import asyncio
from types import TracebackType


class _LibraryGivesUp:
    """Tells a cancellation of the library's. No generator: each message passes several times."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError) and not _cancelled():
            raise ConnectionError("the connection was closed meanwhile") from error


_LIBRARY_GIVES_UP = _LibraryGivesUp()


def library_gives_up() -> _LibraryGivesUp:
    """Turn the library's cancellations into errors within this block.

    Raises:
        ConnectionError: the library has given up what was awaited.
        asyncio.CancelledError: this task is cancelled.
    """
    return _LIBRARY_GIVES_UP


def heed_cancellation() -> None:
    """End a task that was cancelled and did not notice.

    The library connects under ``asyncio.wait_for``, which up to Python 3.11 drops a cancellation that comes at the
    moment at which what it waits for ends.

    Raises:
        asyncio.CancelledError: this task is cancelled.
    """
    if _cancelled():
        raise asyncio.CancelledError


def _cancelled() -> bool:
    """Whether this program has cancelled the task that runs."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())
