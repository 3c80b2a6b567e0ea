"""A process that imports the command line once and forks a process of it for each start. Linux only.

Importing takes a second, and the tests start hundreds of workers, gateways and commands. Run as a program with one end
of a SOCK_SEQPACKET pair as standard input; :mod:`tests.programs` has the other end. Each message is a JSON object::

    it says    {"imported": 512}                                               modules; it forks from now on
    it hears   {"argv": [], "env": {}, "cwd": ""} + stdin, stdout, stderr      start a process; argv[0] may be a script
    it says    {"pid": 4711}
    it hears   {"reap": 4711}                                                  after that process has ended
    it says    {"status": 0}                                                   its exit code, -n for signal n

The kernel ends the forks with this process, and this process with the test run.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from typing import Any

MODULES = ("consumer.cli.app", "consumer.gateway.gateway", "consumer.processes.fork.child", "consumer.worker", "uvloop")
"""What commands import, most of it only when they run."""

MESSAGE_SIZE = 1 << 20
PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel end this process when ``parent``, its parent, ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def load() -> None:
    """Import what the forks need, and keep the garbage collector from copying it into each of them."""
    gc.disable()
    for module in MODULES:
        importlib.import_module(module)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - the number is all we want
        raise RuntimeError("importing has started a thread, which a fork would lose")
    gc.collect()
    gc.freeze()


def serve(connection: socket.socket) -> dict[str, Any]:
    """Fork and reap as told until the connection ends. Returns only in a fork, which is set up by then: its job."""
    ours = os.getpid()
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_SIZE, 3)
        if not data:
            os._exit(0)
        message: dict[str, Any] = json.loads(data)
        if "reap" in message:
            _, status = os.waitpid(message["reap"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            if (pid := os.fork()) == 0:
                connection.close()
                become(message, descriptors, ours)
                return message
            for descriptor in descriptors:
                os.close(descriptor)
            answer = {"pid": pid}
        connection.send(json.dumps(answer).encode())


def become(job: dict[str, Any], descriptors: list[int], parent: int) -> None:
    """Make this fork what a new process would be: its streams, environment, folder, arguments and signals."""
    end_with_parent(parent)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    sys.argv = job["argv"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As the interpreter opens them: what is on them decides about their buffers.
    sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False)  # noqa: SIM115
    gc.enable()


def run_script(path: str) -> None:
    """Run a Python script as the interpreter does."""
    runpy.run_path(path, run_name="__main__")


def main() -> None:
    """Import, then fork as told; in a fork, run the script or the command line."""
    connection = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    end_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, whose end is ours
    load()
    connection.send(json.dumps({"imported": len(sys.modules)}).encode())
    job = serve(connection)
    from consumer import cli
    from consumer.processes.fork.child import leave

    if job["script"]:
        leave(run_script, sys.argv[0])
    leave(cli.main, sys.argv[1:])


if __name__ == "__main__":
    main()
