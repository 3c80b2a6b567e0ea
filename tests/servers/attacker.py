"""An MCP server that attacks: what a caller who has taken a server over would try. Each tool tells whether it could."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import echo_server  # type: ignore[import-not-found]

PTRACE_ATTACH, PTRACE_DETACH = 16, 17


def tried(what: Any) -> dict[str, Any]:
    """Whether ``what`` worked: it did unless it raises or returns something false."""
    try:
        worked, why = bool(what()), ""
    except Exception as error:  # noqa: BLE001 - whatever kept it from working
        worked, why = False, f"{type(error).__name__}: {error}"
    return {"structuredContent": {"worked": worked, "why": why}, "content": []}


def tool_read(_call: Any, path: str, word: str = "") -> Any:
    """Reads a file that contains ``word``; any file when there is no word."""
    return tried(lambda: word.encode() in Path(path).read_bytes() or not word)


def tool_list(_call: Any, path: str, name: str) -> Any:
    """Finds ``name`` in a folder."""
    return tried(lambda: name in [one.name for one in Path(path).iterdir()])


def tool_write(_call: Any, path: str) -> Any:
    """Makes a file."""
    return tried(lambda: Path(path).write_text("attacked") or True)


def tool_signal(_call: Any, pid: int) -> Any:
    """May it signal that process? Signal 0 asks for the same right as SIGKILL."""
    return tried(lambda: signalled(pid, 0))


def tool_see(_call: Any, pid: int) -> Any:
    """Reads the command line of a process."""
    return tried(lambda: is_the_one(pid))


def tool_environ(_call: Any, pid: int, word: str) -> Any:
    """Finds a secret in the environment of a process."""
    return tried(lambda: word.encode() in Path(f"/proc/{pid}/environ").read_bytes())


def tool_memory(_call: Any, pid: int) -> Any:
    """Opens the memory of a process."""

    def read() -> bool:
        with open(f"/proc/{pid}/mem", "rb"):  # noqa: PTH123 - who may open it may read it
            return is_the_one(pid)

    return tried(read)


def tool_trace(_call: Any, pid: int) -> Any:
    """Attaches to a process as a debugger does."""

    def attach() -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(PTRACE_ATTACH, pid, None, None):
            raise OSError(ctypes.get_errno(), "ptrace")
        os.waitpid(pid, 0x40000000)
        libc.ptrace(PTRACE_DETACH, pid, None, None)
        return is_the_one(pid)

    return tried(attach)


def tool_tcp(_call: Any, port: int) -> Any:
    """Connects to a port of the machine."""

    def connect() -> bool:
        with socket.create_connection(("127.0.0.1", port), 2):
            return True

    return tried(connect)


def tool_unix(_call: Any, path: str) -> Any:
    """Connects to a socket in the file system, or to an abstract one (``@name``)."""

    def connect() -> bool:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect("\0" + path[1:] if path.startswith("@") else path)
        return True

    return tried(connect)


def tool_powers(_call: Any) -> Any:
    """Has capabilities, or can get them from a set-user-id program."""

    def has() -> bool:
        status = Path("/proc/self/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        return bool(int(fields["CapEff"], 16)) or fields["NoNewPrivs"] == "0"

    return tried(has)


def tool_bomb(_call: Any, most: int) -> Any:
    """Forks as fast as it can, ``most`` times at most; could it?"""

    def bomb() -> bool:
        pids = []
        try:
            for _ in range(most):
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    while True:
                        time.sleep(1000)
                pids.append(pid)
        finally:
            for pid in pids[: len(pids) // 2]:  # the other half is there when the session ends
                os.kill(pid, signal.SIGKILL)
        return True

    return tried(bomb)


def tool_file(_call: Any, size: int) -> Any:
    """Makes a file of that many bytes."""
    return tried(lambda: Path("large").write_bytes(b"x" * size) == size)


def tool_files(_call: Any, count: int, size: int) -> Any:
    """Makes many files of that many bytes each."""
    return tried(lambda: all(Path(f"file-{n}").write_bytes(b"x" * size) == size for n in range(count)))


def tool_take(_call: Any, size: int) -> Any:
    """Takes that many bytes of memory."""
    return tried(lambda: len(bytearray(size)) == size)


def tool_hide(_call: Any, word: str) -> Any:
    """Leaves a process behind: its own session, no parent, no environment, every signal ignored; named ``word``."""
    code = "import signal, time; [signal.signal(n, 1) for n in (1, 2, 3, 15)]; time.sleep(1000)"
    between = (
        "import subprocess, sys; n = subprocess.DEVNULL; "
        "subprocess.Popen([sys.executable, '-I', '-S', '-c', *sys.argv[1:]],"
        " stdin=n, stdout=n, stderr=n, start_new_session=True, env={})"
    )
    null = subprocess.DEVNULL
    command = [sys.executable, "-I", "-S", "-c", between, code, word]
    return tried(lambda: subprocess.run(command, env={}, stdin=null, stdout=null, stderr=null, check=True))


def tool_kill(_call: Any, pid: int) -> Any:
    """Kills a process."""
    return tried(lambda: signalled(pid, signal.SIGKILL))


def signalled(pid: int, number: int) -> bool:
    """Send a signal to the process that is meant."""
    meant = is_the_one(pid)
    os.kill(pid, number)
    return meant


def is_the_one(pid: int) -> bool:
    """Whether the number means the process that was meant, and not one of our own namespace."""
    return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes() and pid > 50


echo_server.TOOLS.update({name[5:]: tool for name, tool in list(globals().items()) if name.startswith("tool_")})

if __name__ == "__main__":
    echo_server.main()
