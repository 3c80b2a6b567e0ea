"""The fork server itself: imports a Python server once and forks a process of it per session. Standard library only.

Run by the server's own interpreter as ``python fork/child.py <module:function> <folder> <sys.argv> ...``, where
``folder`` is put into ``sys.path`` unless it is empty, with one end of a SOCK_SEQPACKET pair as standard input.
It speaks and forks as the keeper does (:mod:`consumer.processes.launch.keeper_child`); beside that it says::

    {"failed": "why"}                    it cannot import the server; the process ends

The end of its input means that the worker is gone; it ends then, and the kernel ends its forks with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import random
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from consumer.processes.launch.keeper_child import PR_SET_PDEATHSIG, Job, Parent, prctl
else:  # the server's interpreter may not have our package; the keeper's file needs nothing but the standard library
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))
    from keeper_child import PR_SET_PDEATHSIG, Job, Parent, prctl

    sys.path.pop(0)

PR_SET_NAME = 15

REHEARSAL_TIMEOUT = 2
"""Seconds that the rehearsal may take. A server that does not exit when its input ends takes all of them."""

_CLIENT = {"name": "mcp-sessions", "version": "0"}
_MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "mcp-sessions", "version": "0"},
}
CONVERSATION: list[tuple[str, dict[str, Any]]] = [
    ("server/discover", {"_meta": _MODERN}),
    ("initialize", _HANDSHAKE),
    ("notifications/initialized", {}),
    ("tools/list", {"_meta": _MODERN}),
]
"""The first messages of any session, in either era of MCP. Those of the other era get an error."""


def forget(job: Job) -> None:
    """Renew the state that a fork must not share: environment, caches, random seeds."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = list(job["argv"])
    tempfile.tempdir = None
    time.tzset()
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()  # type: ignore[attr-defined,unused-ignore]
    prctl(PR_SET_NAME, Path(sys.argv[0]).name.encode()[:15])
    gc.enable()


def load(target: str) -> Callable[[], Any]:
    """Import ``module:function``, and return the function."""
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    if not callable(found):
        raise TypeError(f"{target} is not a function")
    be_alone()
    rehearse(found)
    be_alone()
    return found  # type: ignore[no-any-return]


def be_alone() -> None:
    """Raise RuntimeError if the import has started threads, which a fork would lose."""
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - names are all we want
        raise RuntimeError("importing it starts threads, which a fork would lose")


def rehearse(function: Callable[[], Any]) -> None:
    """Import what the function imports only when it runs, by running it once on a short session in a fork.

    This saves a third of a start. The fork has no client and ends with its input. It has the helper's environment and
    folder.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _rehearse(function, writing)
    os.close(writing)
    names = b""
    while select.select([reading], [], [], REHEARSAL_TIMEOUT + 1)[0] and (more := os.read(reading, 65536)):
        names += more
    os.close(reading)
    for signalled in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            signalled(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for name in names.decode().split():
        with contextlib.suppress(Exception):  # it may only be there under some condition
            importlib.import_module(name)


def _rehearse(function: Callable[[], Any], writing: int) -> NoReturn:
    before = set(sys.modules)
    end = os._exit

    def leave(status: int = 0, *_: object) -> NoReturn:  # noqa: ARG001 - it is called as os._exit and by a signal
        os.write(writing, "\n".join(name for name in list(sys.modules) if name not in before).encode())
        end(0)

    try:
        os._exit = leave  # the way out of servers whose threads still wait for input
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGALRM, leave)
        signal.alarm(REHEARSAL_TIMEOUT)
        theirs, ours = os.pipe()
        for number, (method, params) in enumerate(CONVERSATION):
            message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
            if not method.startswith("notifications/"):
                message["id"] = number
            os.write(ours, json.dumps(message).encode() + b"\n")
        os.close(ours)
        os.dup2(theirs, 0)
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        run(function)
    finally:
        leave()


def run(function: Callable[[], Any]) -> Any:
    """Call the function as a console script does, or run it when it is a coroutine function."""
    outcome = function()
    if inspect.iscoroutine(outcome):
        import asyncio  # noqa: PLC0415 - a server that is not asynchronous need not have it

        outcome = asyncio.run(outcome)
    return outcome


def leave(work: Callable[..., Any], *arguments: Any) -> NoReturn:
    """Do the work and exit as the interpreter does, but without freeing memory.

    Freeing would copy most of the memory that the fork shares with the helper, and take longer than the start.
    """
    code = 1
    try:
        sys.exit(work(*arguments))
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code = end.code or 0
        else:
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - as at the top of any program
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as multiprocessing does here
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code & 0xFF)


def main() -> None:
    """Import, fork when told, and in the forks run the function as a console script does."""
    target, folder, *sys.argv = sys.argv[1:]
    here = str(Path(__file__).parent)
    sys.path[:] = [*([folder] if folder else []), *(path for path in sys.path if path != here)]
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        function = load(target)
    except BaseException as error:
        connection.send(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        raise
    helper = Parent(connection)
    # What is there now is never collected, so that the collector does not copy every page into every fork.
    gc.collect()
    gc.disable()
    gc.freeze()
    sys.stdout.flush()
    sys.stderr.flush()
    helper.say(ready=os.getpid())
    forget(helper.serve(lambda: os._exit(0)))
    leave(run, function)


if __name__ == "__main__":
    main()
