"""Ports and processes of our own on loopback: found, probed, watched, and ended without leftovers.

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
    """A TCP port of loopback that nobody listens on and no outgoing connection is given."""
    for port in random.SystemRandom().sample(range(12_000, 32_000), k=100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return port
    raise BrokerFailed("no free TCP port between 12000 and 32000")


def speaks_amqp(port: int) -> bool:
    """Whether a broker answers the protocol header on this port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2) as peer:
        peer.sendall(b"AMQP\x00\x00\x09\x01")
        return peer.recv(1) == b"\x01"  # a method frame: connection.start
    return False


def end_group(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """SIGKILL a process with its group, and return when none of the group is left."""
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
    """The Erlang port mapper: beside ``server``, else on the PATH, else where Erlang itself is.

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
    """Ends process groups and removes a folder when this process is gone, however it went: its pipe closes then."""

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
        """From now on these are the process groups to end; none changes nothing."""
        line = " ".join(map(str, groups))
        if line and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()

    def dismiss(self) -> None:
        """There is nothing left to guard."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(b"\n", timeout=5)
