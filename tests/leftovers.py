"""What a test has left behind."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def no_process_is_left() -> Iterator[None]:
    """Children of ours that were begun meanwhile have gone at the end."""
    before = set(psutil.Process().children())  # a broker of this test run, perhaps, which has children of its own
    yield
    assert set(psutil.Process().children()) <= before, "processes are left"
