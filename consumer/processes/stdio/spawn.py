"""Forks a child of the worker, the same way on every event loop.

``loop.subprocess_exec`` is not used: uvloop's leaves duplicates of the pipes open in the child, so that it cannot
close its stdout, and plain asyncio's takes a thread for each child. Here a child inherits its three standard streams
and nothing else, and its exit is noticed through a pidfd while it is still a zombie, so that its process group can be
signalled before its number can become another's.
"""

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Mapping


def fork(
    argv: list[str], *, stdin: int, stdout: int, stderr: int, environment: Mapping[str, str], cwd: str | None = None
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own. Call it from the main thread, see :class:`LocalLauncher`.

    Blocks for the millisecond until the child has exec'ed. Raises :class:`OSError`.
    """
    return subprocess.Popen(  # noqa: S603 - the command is the operator's
        argv, stdin=stdin, stdout=stdout, stderr=stderr, env=dict(environment), cwd=cwd, start_new_session=True
    )


def watch(child: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
    """Call ``on_exit`` once in the event loop when ``child`` has ended. ``on_exit`` has to call ``child.wait()``."""
    loop = asyncio.get_running_loop()
    if not hasattr(os, "pidfd_open"):  # macOS: here a thread waits, and has reaped the child when it tells
        _watch_by_thread(child, loop, on_exit)
        return
    pidfd = os.pidfd_open(child.pid)

    def ready() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        on_exit()

    loop.add_reader(pidfd, ready)


def _watch_by_thread(
    child: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]
) -> None:
    def wait() -> None:
        child.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(on_exit)

    threading.Thread(target=wait, name=f"wait-{child.pid}", daemon=True).start()
