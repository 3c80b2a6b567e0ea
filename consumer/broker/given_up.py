"""Tells a cancellation of ours from one of the library's.

When a connection goes, aiormq cancels the tasks in which it waits for answers, and who awaits one of them gets
``CancelledError`` as if it had been cancelled itself. A task of ours would end of it, and nobody would be told.
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
