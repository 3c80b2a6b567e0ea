"""A worker's launcher with an attacker and a victim below it; prints which attacks worked, as JSON.

Run as ``python -m tests.security.host.stage KIND FOLDER`` with a secret in AMQP_URL, as whatever user is to be tried.
``FOLDER`` is writable for that user.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from consumer.privacy import become_private
from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.launch.launcher import LocalLauncher
from consumer.processes.service import MCPService
from schemas.errors import SessionsError

SECRET = "correct-horse"
SERVER = Path(__file__).parents[2] / "servers" / "attacker.py"

Attack = Callable[[str, dict[str, Any]], Awaitable[bool]]


def service(kind: str) -> MCPService:
    """The attacker under a kind of sandbox, with limits where it can have them."""
    limits = {} if kind == "none" else {"processes": 50, "memory": "512M", "file_size": "1M"}
    command = [sys.executable, "-S", str(SERVER)]
    return MCPService.model_validate({"name": "attacker", "command": command, "sandbox": {"kind": kind, **limits}})


async def attacks(kind: str, folder: Path) -> dict[str, bool]:
    """Every attack, by its row in the table: whether it worked."""
    launcher = LocalLauncher(parent=folder / "sandbox")
    attacker, victim = (MCPClient(service(kind), launcher=launcher) for _ in range(2))
    await asyncio.gather(attacker.start(), victim.start())
    assert victim.process is not None
    home = Path((await victim.call_tool("cwd"))["structuredContent"]["cwd"])
    await victim.call_tool("write_file", {"path": str(home / "theirs"), "text": "theirs"})
    private, public = folder / "private", folder / "public"
    private.touch(0o600)
    private.write_text(SECRET)
    public.write_text("for all")
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        abstract.bind(f"\0mcp-{os.getpid()}")
        tcp = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
        named.listen()
        abstract.listen()

        async def worked(tool: str, **arguments: Any) -> bool:
            result = await attacker.call_tool(tool, arguments)
            found = result["structuredContent"]
            sys.stderr.write(f"{tool} {arguments} {found}\n")
            return bool(found["worked"])

        me, them, keeper = os.getpid(), psutil.Process(victim.process.pid), launcher.keeper_pid
        server = next(
            (p.pid for p in [*them.children(recursive=True)][::-1] if "attacker" in p.cmdline()[-1]), them.pid
        )
        found = {
            "read the password that the worker was started with": await worked("environ", pid=me, word=SECRET),
            "read the worker's memory": await worked("memory", pid=me) or await worked("trace", pid=me),
            "read the keeper's memory": await worked("memory", pid=keeper) or await worked("trace", pid=keeper),
            "read another server's environment": await worked("environ", pid=server, word="HOME"),
            "read another server's memory": await worked("memory", pid=server) or await worked("trace", pid=server),
            "signal the worker": await worked("signal", pid=me),
            "signal the keeper": await worked("signal", pid=keeper),
            "signal another server": await worked("signal", pid=server),
            "see the command lines of other processes": await worked("see", pid=me),
            "find the folders of other sessions": await worked("list", path=str(home.parent), name=home.name),
            "read a file in another session's folder": await worked("read", path=str(home / "theirs"), word="theirs"),
            "read a file that only the worker's user may read": await worked("read", path=str(private), word=SECRET),
            "read `/etc/shadow`": await worked("read", path="/etc/shadow"),
            "read a file that everybody may read": await worked("read", path=str(public), word="for all"),
            "write where everybody may write": await written(worked, shared),
            "connect to a port of the machine": await worked("tcp", port=tcp.sockets[0].getsockname()[1]),
            "connect to a socket in the file system": await worked("unix", path=str(folder / "socket")),
            "connect to an abstract socket": await worked("unix", path=f"@mcp-{me}"),
            "have or gain privileges": await worked("powers"),
            "take more memory than `memory`": await worked("take", size=600 << 20),
            "write a file larger than `file_size`": await worked("file", size=2 << 20),
            "fill the disk with many files": await worked("files", count=5, size=900 << 10),
            "have more processes than `processes`": await worked("bomb", most=200),
        }
        await attacker.stop()
        tcp.close()
        await tcp.wait_closed()
    found["leave a process behind when the session ends"] = await left_by_a_session(kind, launcher)
    found["leave a process behind by killing the keeper first"] = await left_by_a_session(
        kind, launcher, killing=launcher.keeper_pid
    )
    await victim.stop()
    await launcher.close()
    found["leave a process behind when the worker is killed"] = await left_by_a_worker(kind, folder)
    return found


async def written(worked: Any, shared: Path) -> bool:
    """A bubble may have a folder of that name; what counts is what has come to ours."""
    await worked("write", path=str(shared / "attacked"))
    return (shared / "attacked").exists()


async def left_by_a_session(kind: str, launcher: LocalLauncher, *, killing: int | None = None) -> bool:
    """Whether what a session has hidden lives two seconds after its end; it may try to kill somebody first."""
    client = MCPClient(service(kind), launcher=launcher)
    await client.start()
    word = f"hidden-{os.getpid()}-{time.monotonic_ns()}"
    assert (await client.call_tool("hide", {"word": word}))["structuredContent"]["worked"]
    left = hidden(word)
    if killing is not None:
        with contextlib.suppress(SessionsError):  # it may be the end of the attacker as well
            await client.call_tool("kill", {"pid": killing})
    await client.stop()
    return await outlives(left)


async def left_by_a_worker(kind: str, folder: Path) -> bool:
    """The same when a worker is SIGKILLed."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name, kind, str(folder), "hide"), stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    word = (await asyncio.wait_for(worker.stdout.readline(), 30)).decode().strip()
    left = hidden(word)
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    return await outlives(left)


async def hide(kind: str, folder: Path) -> None:
    """Be a worker that is about to be killed."""
    client = MCPClient(service(kind), launcher=LocalLauncher(parent=folder / "sandbox"))
    await client.start()
    word = f"hidden-{os.getpid()}"
    assert (await client.call_tool("hide", {"word": word}))["structuredContent"]["worked"]
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def hidden(word: str) -> list[psutil.Process]:
    """The processes that were named so: they must be there to be ended."""
    found = [one for one in psutil.process_iter(["cmdline"]) if word in (one.info["cmdline"] or []) and lives(one)]
    assert found
    return found


async def outlives(left: list[psutil.Process]) -> bool:
    """Whether one of them outlives two seconds; ended by us then."""
    for _ in range(100):
        if not (left := [process for process in left if lives(process)]):
            return False
        await asyncio.sleep(0.02)
    for process in left:
        process.kill()
    return True


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended; what has ended and nobody has asked for is a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main() -> None:
    """Attack."""
    become_private()
    kind, folder, *hiding = sys.argv[1:]
    if hiding:
        asyncio.run(hide(kind, Path(folder)))
    else:
        sys.stdout.write(json.dumps(asyncio.run(attacks(kind, Path(folder)))))


if __name__ == "__main__":
    main()
