"""What a test has left behind."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests import fork_server


@contextmanager
def no_process_is_left() -> Iterator[None]:
    """Children of ours that were begun meanwhile have gone at the end."""
    before = set(psutil.Process().children())  # a broker of this test run, perhaps, which has children of its own
    yield
    left = [child for child in set(psutil.Process().children()) - before if not _serves_the_run(child)]
    assert not left, "processes are left"


def _serves_the_run(process: psutil.Process) -> bool:
    """Whether it is the fork server, which the first program of a run starts, and which ends with the run."""
    return fork_server.__file__ in process.cmdline()
