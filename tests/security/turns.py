"""How long the turns of the event loop take that runs the test, in time of the processor: other load does not count."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Turns:
    """The longest turn so far, in seconds, and what it ran."""

    longest = 0.0
    ran = ""


@contextmanager
def measured_turns() -> Iterator[Turns]:
    """Measure what asyncio's own loop runs, one callback or one step of a task at a time."""
    turns, run = Turns(), asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        callback = handle._callback  # type: ignore[attr-defined]  # it is forgotten by who cancels the handle
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        if took > turns.longest:
            turns.longest, turns.ran = took, repr(callback)

    gc.collect()
    gc.freeze()  # as a worker does after its start; or what pytest has made is looked through again and again
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", measured)
            yield turns
    finally:
        gc.unfreeze()
