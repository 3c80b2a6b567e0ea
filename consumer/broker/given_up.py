"""Distinguishes a cancellation by this program from one by the AMQP library.

When a connection is lost, aiormq cancels the tasks that wait for responses, and a coroutine that awaits one gets
``CancelledError`` as if it had been cancelled itself. Its task would end without any report. The other way round, a
cancellation by this program can be lost in the library.
"""

import asyncio
from types import TracebackType


class _LibraryGivesUp:
    """Recognises a cancellation by the library. It is no generator, because each message passes it several times."""

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
        ConnectionError: the library has cancelled the operation.
        asyncio.CancelledError: this task is cancelled.
    """
    return _LIBRARY_GIVES_UP


def heed_cancellation() -> None:
    """Cancel this task again if the library has swallowed its cancellation.

    The library connects under ``asyncio.wait_for``. Up to Python 3.11 this drops a cancellation that comes at the
    moment when the awaited operation ends.

    Raises:
        asyncio.CancelledError: this task is cancelled.
    """
    if _cancelled():
        raise asyncio.CancelledError


def _cancelled() -> bool:
    """Return whether this program has cancelled the current task."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())
