"""Distinguishes a cancellation by this program from one by the AMQP library.

When a connection is lost, aiormq cancels the tasks that wait for responses, and a coroutine that awaits one gets
``CancelledError`` as if it had been cancelled itself. Its task would end without any report.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_gives_up() -> Iterator[None]:
    """Within this the library's cancellations are errors.

    Raises:
        ConnectionError: the library has given up what was awaited.
        asyncio.CancelledError: this task is cancelled.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the connection was closed meanwhile") from error
