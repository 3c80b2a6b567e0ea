"""The tools of the echo server, and what a tool has at hand: its call, and the errors that it may raise.

``TOOLS`` below is the list. No import of anything outside the standard library, and no import of this project. What few
tools need is imported by them, because tests start the server thousands of times.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from json_rpc import Failure  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from echo import Server  # type: ignore[import-not-found]

    Json: TypeAlias = dict[str, Any]

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
STUBBORN = "import signal,time\nfor s in (1,2,15): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1000)\n"


class Call:
    """A tool call in flight: its request, whether it was cancelled, and the way back."""

    def __init__(self, server: Server, request_id: Any, params: Json) -> None:
        self.server, self.request_id = server, request_id
        self.meta = params.get("_meta") or {}
        self.cancelled = threading.Event()

    def progress(self, done: float, total: float, message: str | None = None) -> None:
        token = self.meta.get("progressToken")
        if token is not None:
            params = {"progressToken": token, "progress": done, "total": total}
            self.server.notify("notifications/progress", {**params, **({"message": message} if message else {})})


def failed(fault: BaseException | str) -> Json:
    return {"content": [{"type": "text", "text": str(fault)}], "isError": True}


def tool_echo(call: Call, text: Any = "", **more: Any) -> str:
    """The text it is given."""
    return str(text)


def tool_meta(call: Call, **more: Any) -> Json:
    """The ``_meta`` of this very call."""
    return {"meta": call.meta}


def tool_env(call: Call) -> Json:
    """All environment variables."""
    return {"env": dict(os.environ)}


def tool_cwd(call: Call) -> Json:
    """The working directory, and this process and its parent."""
    where = os.getcwd()  # noqa: PTH109 - pathlib takes a while to import
    return {"cwd": where, "pid": os.getpid(), "ppid": os.getppid(), "pgid": os.getpgid(0), "uid": os.getuid()}


def tool_counter(call: Call) -> Json:
    """Counts its own calls: the state of a session."""
    call.server.counter += 1
    return {"count": call.server.counter}


def tool_count_slowly(call: Call, seconds: float = 1.0) -> Json:
    """Counts as counter does, says so as progress, and takes its time."""
    counted = tool_counter(call)
    call.progress(0, 1)
    call.cancelled.wait(seconds)
    return counted


def tool_sleep(call: Call, seconds: float = 1.0) -> str:
    """Answers after so many seconds, unless cancelled."""
    call.cancelled.wait(seconds)
    return f"slept {seconds}"


def tool_nap(call: Call, seconds: float = 1.0) -> str:
    """Like sleep, and says of itself that it only reads."""
    return tool_sleep(call, seconds)


def tool_cancelled(call: Call) -> Json:
    """The ids of requests that were cancelled."""
    return {"ids": call.server.cancelled_ids}


def tool_progress(call: Call, steps: int = 5, interval: float = 0.0) -> str:
    """Reports progress that many times, with pauses of ``interval`` seconds."""
    for step in range(1, steps + 1):
        call.progress(step, steps, f"step {step}")
        if interval:
            time.sleep(interval)
    return f"{steps} steps"


def tool_fail(call: Call, message: str = "it failed") -> Json:
    """A result with isError."""
    return failed(message)


def tool_error(call: Call, code: int = -32000, message: str = "refused", data: Any = None) -> Json:
    """A JSON-RPC error."""
    raise Failure(code, message, data)


def tool_big(call: Call, size: int = 1000) -> str:
    """A text of that many characters."""
    return "x" * size


def tool_die(call: Call, code: int = 0, signal_number: int | None = None, stderr: str = "") -> Json:
    """Ends the server, with an exit code or by a signal, without an answer."""
    sys.stderr.write(stderr)
    sys.stderr.flush()
    if signal_number is not None:
        os.kill(os.getpid(), signal_number)
        time.sleep(5)
    os._exit(code)


def tool_stderr(call: Call, size: int = 1000, last: str = "the end") -> str:
    """Floods stderr with that many bytes and a last line."""
    sys.stderr.write(("e" * 99 + "\n") * (size // 100) + last + "\n")
    sys.stderr.flush()
    return f"{size} bytes on stderr"


def tool_stdout(call: Call, line: str = "nonsense", times: int = 1) -> str:
    """Writes lines to stdout that are not JSON-RPC, then answers."""
    call.server.write((line + "\n").encode("latin-1") * times)
    return "done"


def tool_invalid_utf8(call: Call) -> None:
    """Answers with a byte that is not UTF-8."""
    answer = {"jsonrpc": "2.0", "id": call.request_id, "result": {"content": [{"type": "text", "text": "a?z"}]}}
    call.server.write(json.dumps(answer).encode().replace(b"?", b"\xff") + b"\n")


def tool_surrogate(call: Call) -> str:
    """Answers with a lone surrogate, as JavaScript's JSON.stringify writes it."""
    return "a\ud800z"


def tool_content(call: Call) -> Json:
    """Every kind of content there is, and a ``_meta``."""
    return {
        "content": [
            {"type": "text", "text": "t", "annotations": {"audience": ["user"], "priority": 0.5}},
            {"type": "image", "data": PIXEL, "mimeType": "image/png"},
            {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "note://one", "name": "one"},
            {"type": "resource", "resource": {"uri": "note://one", "text": "text", "mimeType": "text/plain"}},
            {"type": "from-the-future", "anything": [1, 2.5, None, {"x": "y"}]},
        ],
        "structuredContent": {"answer": 42, "nested": {"list": [1, 2, 3]}},
        "_meta": {"example.com/trace": "abc"},
        "unknownField": True,
    }


def tool_hostile(call: Call) -> Json:
    """Structured content that its output schema checks with a pattern of exponential time."""
    return {"word": "a" * 40 + "!"}


def tool_ask(call: Call, question: str = "Really?") -> Json:
    """Asks the caller back (elicitation) and tells the answer."""
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    return {"reply": call.server.ask("elicitation/create", {"message": question, "requestedSchema": schema})}


def tool_request(call: Call, method: str = "roots/list", params: Json | None = None) -> Json:
    """Sends any request to the client and tells the answer."""
    return {"reply": call.server.ask(method, params or {})}


def tool_log(call: Call, text: str = "hello", times: int = 1) -> str:
    """Writes log messages at the level that was set."""
    for _ in range(times):
        params = {"level": call.server.level, "logger": "echo", "data": {"text": text}}
        call.server.notify("notifications/message", params)
    return "logged"


def tool_touch(call: Call, uri: str = "note://one", times: int = 1) -> str:
    """Says that a resource has changed, where that is subscribed to."""
    for _ in range(times if uri in call.server.subscribed else 0):
        call.server.notify("notifications/resources/updated", {"uri": uri})
    return "touched"


def tool_add_tool(call: Call, name: str) -> str:
    """From now on there is one tool more, which echoes; announced by list_changed."""
    call.server.extra_tools.append(name)
    call.server.notify("notifications/tools/list_changed")
    return f"added {name}"


def tool_write_file(call: Call, path: str, text: str = "") -> str | Json:
    """Writes a file, or tells why not."""
    from pathlib import Path

    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as fault:
        return failed(fault)
    return str(Path(path).absolute())


def tool_append(call: Call, path: str, line: str, die: bool = False) -> str:
    """Adds a line to a file in one write; with ``die`` it ends the server then, without an answer."""
    from pathlib import Path

    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    if die:
        os._exit(1)
    return line


def tool_read_file(call: Call, path: str) -> str | Json:
    """Reads a file, or tells why not."""
    from pathlib import Path

    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as fault:
        return failed(fault)


def tool_list_files(call: Call, path: str = ".") -> Json:
    """Lists a folder, or tells why not."""
    from pathlib import Path

    try:
        return {"names": sorted(entry.name for entry in Path(path).iterdir())}
    except OSError as fault:
        return failed(fault)


def tool_lock_files(call: Call) -> str:
    """Leaves a read-only folder with a read-only file behind."""
    from pathlib import Path

    Path("locked").mkdir()
    tool_write_file(call, "locked/file", "x")
    Path("locked/file").chmod(0o400)
    Path("locked").chmod(0o500)
    return "locked"


def tool_connect(call: Call, host: str, port: int) -> str | Json:
    """Opens a TCP connection, or tells why not."""
    import socket

    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError as fault:
        return failed(fault)
    return "connected"


def tool_allocate(call: Call, size: int) -> str | Json:
    """Allocates that many bytes, or tells that it could not."""
    try:
        block = bytearray(size)
    except MemoryError:
        return failed("MemoryError")
    return f"{len(block)} bytes"


def tool_burn(call: Call, seconds: float = 10.0) -> str:
    """Uses the processor for that long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return f"burnt {seconds}"


DAEMON = """
import subprocess, sys
null = subprocess.DEVNULL
command = [sys.executable, "-I", "-S", "-c", sys.argv[1]]
print(subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True).pid)
"""


def tool_spawn(
    call: Call,
    count: int = 1,
    stubborn: bool = False,
    escape: bool = False,
    daemon: bool = False,
    clean: bool = False,
    shed: bool = False,
) -> Json:
    """Starts children that sleep; tells their pids, or why it could not.

    ``escape`` gives each a session of its own; a ``daemon`` has no parent any more; ``clean`` is without environment;
    with ``shed`` the server itself first gives up being a subreaper.
    """
    import subprocess

    code = STUBBORN if stubborn else "import time; time.sleep(1000)"
    null = subprocess.DEVNULL
    env: Json | None = {} if clean else None
    pids = []
    if shed:
        import ctypes

        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    try:
        for _ in range(count):
            if daemon:
                between = [sys.executable, "-I", "-S", "-c", DAEMON, code]
                made = subprocess.run(between, stdin=null, stdout=subprocess.PIPE, stderr=null, env=env, check=True)
                pids.append(int(made.stdout))
                continue
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=null,
                stdout=null,
                stderr=null,
                start_new_session=escape,
                env=env,
            )
            call.server.grandchildren.append(child)
            pids.append(child.pid)
    except (OSError, subprocess.CalledProcessError) as fault:
        return {**failed(fault), "structuredContent": {"pids": pids}}
    return {"pids": pids}


def tool_close_stdout(call: Call) -> None:
    """Closes stdout, but stays."""
    os.close(1)


def tool_grandchildren(call: Call) -> Json:
    """The pids of all children."""
    return {"pids": [child.pid for child in call.server.grandchildren]}


TOOLS: dict[str, Callable[..., Any]] = {
    name[5:]: tool for name, tool in list(globals().items()) if name.startswith("tool_")
}
SLOW = {"count_slowly", "sleep", "nap", "progress", "ask", "request", "burn", "stderr"}
EXTRA: dict[str, Json] = {
    "nap": {"annotations": {"readOnlyHint": True}},
    "hostile": {
        "outputSchema": {"type": "object", "properties": {"word": {"type": "string", "pattern": "^(a+)+$"}}},
    },
    "echo": {
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "annotations": {"readOnlyHint": True},
    },
}
