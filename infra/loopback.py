"""Ports and processes on loopback: finds, probes and watches them, and ends them without leftovers.

The ports lie below the range that the kernel gives to outgoing connections. In that range a client that retries a
stopped broker may be handed the broker's own port as its source and connect to itself.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Each line that it reads replaces the process groups to end; an empty line says that there is nothing left to do.
GUARD = """
while read -r groups; do [ -n "$groups" ] || exit 0; ours=$groups; done
for group in $ours; do kill -s KILL -- "-$group"; done 2>/dev/null
rm -rf -- "$1"
"""


class BrokerFailed(RuntimeError):
    """A node did not start, or rabbitmqctl failed; the message ends with what it said last."""


def free_port() -> int:
    """Return a free TCP port of loopback, outside the range for outgoing connections."""
    for port in random.SystemRandom().sample(range(12_000, 32_000), k=100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    raise BrokerFailed("no free TCP port between 12000 and 32000")


def speaks_amqp(port: int) -> bool:
    """Return whether a broker answers the protocol header on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2) as peer:
        peer.sendall(b"AMQP\x00\x00\x09\x01")
        return peer.recv(1) == b"\x01"  # a method frame: connection.start
    return False


def end_group(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """Send SIGKILL to a process group, and return when no process of it is left."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        except PermissionError:  # macOS says so of a group that holds only zombies
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
        time.sleep(0.01)
    process.wait(timeout=1)


def epmd_program(server: Path) -> str:
    """Return the Erlang port mapper: beside ``server``, on the PATH, or in Erlang's own folder.

    Raises:
        BrokerFailed: there is none.
    """
    found = shutil.which("epmd", path=str(server.parent)) or shutil.which("epmd")
    if found:
        return found
    asked = ["erl", "-noinput", "-eval", 'io:format("~ts",[code:root_dir()]),halt().']
    root = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
    for program in (Path(root, "bin", "epmd"), *Path(root).glob("erts-*/bin/epmd")):
        if program.exists():
            return str(program)
    raise BrokerFailed(f"Erlang at {root} has no epmd")


class Guard:
    """Ends process groups and removes a folder when this process is gone: its pipe closes then."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def watch(self, groups: Iterable[int]) -> None:
        """Set the process groups to end. Without arguments nothing changes."""
        line = " ".join(map(str, groups))
        if line and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()

    def dismiss(self) -> None:
        """Stop guarding: nothing is left to end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(b"\n", timeout=5)
