"""A small, correct MCP server in the standard library: starts in about 20 ms, keeps state, does what a test asks.

It speaks the handshake revisions of MCP (up to 2025-11-25) on stdio. Slow tools run in threads, so calls overlap and
can be cancelled. ``TOOLS`` of ``echo_tools.py`` is the list of what it can do. Switches make it misbehave in one point
each, while the rest stays correct::

    --slow-start SECONDS    sleep before reading anything
    --silent                never answer a method that it does not know (so: not the modern era's probe)
    --die-on-probe          exit with code 3 on ``server/discover``
    --no-capabilities       tell no capabilities in the handshake, but serve tools all the same
    --ignore-eof            stay when stdin ends
    --ignore-term           ignore SIGTERM
    --noise LINES           begin with that many lines on stdout that are not JSON-RPC
    --stderr BYTES          begin with that many bytes on stderr
    --grandchild            begin by starting a child that ignores TERM and EOF; tool ``grandchildren`` tells its pid
    --collide               send a ping with the id of the call before answering it
    --pages N               list the tools in pages of one, N of them
    --repeat-cursor         let every page of the listing have the same next cursor

No import of anything outside the standard library, and no import of this project. Tests start it thousands of times:
``echo_server.py`` is the script, so that this module is compiled once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time

from echo_tools import (  # type: ignore[import-not-found]
    EXTRA,
    SLOW,
    TOOLS,
    Call,
    tool_echo,
    tool_spawn,
    tool_stderr,
)
from json_rpc import Failure  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import subprocess
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Json: TypeAlias = dict[str, Any]

PROTOCOL_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


class Server:
    """State and wire of one session."""

    def __init__(self, options: argparse.Namespace | type[WITHOUT_SWITCHES]) -> None:
        self.options = options
        self.counter = 0
        self.cancelled_ids: list[Any] = []
        self.grandchildren: list[subprocess.Popen[bytes]] = []
        self.extra_tools: list[str] = []
        self.subscribed: set[str] = set()
        self.level = "warning"
        self.calls: dict[Any, Call] = {}
        self.answers: dict[Any, tuple[threading.Event, list[Json]]] = {}
        self.next_id = 1000
        self.lock = threading.Lock()

    def send(self, message: Json) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def write(self, data: bytes) -> None:
        with self.lock:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def notify(self, method: str, params: Json | None = None) -> None:
        self.send({"method": method, **({"params": params} if params is not None else {})})

    def ask(self, method: str, params: Json, request_id: Any = None) -> Json:
        """Send a request to the client and wait for its answer."""
        with self.lock:
            self.next_id += 1
            request_id = self.next_id if request_id is None else request_id
        answered, replies = self.answers[request_id] = (threading.Event(), [])
        self.send({"id": request_id, "method": method, "params": params})
        answered.wait(30)
        del self.answers[request_id]
        return {key: value for reply in replies for key, value in reply.items() if key in {"result", "error"}}

    def take(self, message: Json) -> None:
        method, request_id = message.get("method"), message.get("id")
        if method is None:
            if request_id in self.answers:
                answered, replies = self.answers[request_id]
                replies.append(message)
                answered.set()
        elif request_id is None:
            if method == "notifications/cancelled":
                cancelled = message["params"]["requestId"]
                self.cancelled_ids.append(cancelled)
                if cancelled in self.calls:
                    self.calls[cancelled].cancelled.set()
        else:
            self.answer(request_id, method, message.get("params") or {})

    def answer(self, request_id: Any, method: str, params: Json) -> None:
        if method == "tools/call" and params.get("name") in SLOW:
            call = self.calls[request_id] = Call(self, request_id, params)
            threading.Thread(target=self.run, args=(request_id, call, params), daemon=True).start()
        elif method == "tools/call":
            self.run(request_id, Call(self, request_id, params), params)
        else:
            self.reply(request_id, lambda: self.method(method, params))

    def run(self, request_id: Any, call: Call, params: Json) -> None:
        if self.options.collide:
            self.ask("ping", {}, request_id=request_id)
        self.reply(request_id, lambda: self.tool(call, params), call)
        self.calls.pop(request_id, None)

    def reply(self, request_id: Any, work: Callable[[], Json | None], call: Call | None = None) -> None:
        outcome: Json
        try:
            outcome = {"result": work()}
        except Failure as fault:
            data = {} if fault.data is None else {"data": fault.data}
            outcome = {"error": {"code": fault.code, "message": str(fault), **data}}
        if outcome.get("result", 0) is not None and not (call and call.cancelled.is_set()):
            self.send({"id": request_id, **outcome})

    def method(self, method: str, params: Json) -> Json | None:
        if method == "initialize":
            wanted = params.get("protocolVersion")
            return {
                "protocolVersion": wanted if wanted in PROTOCOL_VERSIONS else PROTOCOL_VERSIONS[-1],
                "capabilities": {}
                if self.options.no_capabilities
                else {
                    "tools": {"listChanged": True},
                    "resources": {"subscribe": True},
                    "prompts": {},
                    "logging": {},
                    "completions": {},
                },
                "serverInfo": {"name": "echo", "version": "1.0"},
            }
        if method == "ping":
            return {}
        if method == "tools/list":
            return self.list_tools(params.get("cursor"))
        if method == "resources/list":
            return {"resources": [{"uri": "note://one", "name": "one", "mimeType": "text/plain"}]}
        if method == "resources/templates/list":
            return {"resourceTemplates": [{"uriTemplate": "note://{name}", "name": "note"}]}
        if method == "resources/read":
            return {"contents": [{"uri": params["uri"], "mimeType": "text/plain", "text": f"text of {params['uri']}"}]}
        if method == "resources/subscribe":
            self.subscribed.add(params["uri"])
            return {}
        if method == "resources/unsubscribe":
            self.subscribed.discard(params["uri"])
            return {}
        if method == "logging/setLevel":
            self.level = params["level"]
            return {}
        if method == "completion/complete":
            value = params["argument"]["value"]
            return {"completion": {"values": [f"{value}-one", f"{value}-two"], "total": 2, "hasMore": False}}
        if method == "prompts/list":
            return {"prompts": [{"name": "greet", "arguments": [{"name": "who", "required": True}]}]}
        if method == "prompts/get":
            if params["name"] != "greet":
                raise Failure(-32602, f"Unknown prompt: {params['name']}")
            text = f"Hello {params['arguments']['who']}"
            return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
        if method == "server/discover" and self.options.die_on_probe:
            os._exit(3)
        if self.options.silent:
            return None
        raise Failure(-32601, f"Method not found: {method}")

    def list_tools(self, cursor: str | None) -> Json:
        listed: list[Json] = [
            {"name": name, "description": tool.__doc__, "inputSchema": {"type": "object"}, **EXTRA.get(name, {})}
            for name, tool in TOOLS.items()
        ]
        listed += [{"name": name, "inputSchema": {"type": "object"}} for name in self.extra_tools]
        if self.options.pages or self.options.repeat_cursor:
            at = int(cursor or 0)
            more = self.options.repeat_cursor or at + 1 < self.options.pages
            following = "0" if self.options.repeat_cursor else str(at + 1)
            one = listed[at] if at < len(listed) else {**listed[0], "name": f"tool{at}"}
            return {"tools": [one], **({"nextCursor": following} if more else {})}
        return {"tools": listed}

    def tool(self, call: Call, params: Json) -> Json | None:
        name = params.get("name")
        work = tool_echo if name in self.extra_tools else TOOLS.get(str(name))
        if work is None:
            raise Failure(-32602, f"Unknown tool: {name}")
        result = work(call, **(params.get("arguments") or {}))
        if isinstance(result, str):
            result = {"content": [{"type": "text", "text": result}]}
        elif result is not None and "content" not in result:
            result = {"content": [{"type": "text", "text": json.dumps(result)}], "structuredContent": result}
        return result


class WITHOUT_SWITCHES:  # noqa: N801 - it is used as a value
    """What :func:`switches` finds when there are none."""

    slow_start = 0.0
    silent = die_on_probe = no_capabilities = ignore_eof = ignore_term = grandchild = collide = repeat_cursor = False
    noise = stderr = pages = 0


def switches() -> argparse.Namespace:
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--slow-start", type=float, default=0)
    for name in ("silent", "die-on-probe", "no-capabilities", "ignore-eof", "ignore-term", "grandchild", "collide"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--repeat-cursor", action="store_true")
    for name in ("noise", "stderr", "pages"):
        parser.add_argument(f"--{name}", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Serve stdin until it ends."""
    options = switches() if len(sys.argv) > 1 else WITHOUT_SWITCHES
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server(options)
    if options.grandchild:
        tool_spawn(Call(server, None, {}), stubborn=True)
    if options.stderr:
        tool_stderr(Call(server, None, {}), options.stderr)
    if options.noise:
        server.write(b"Listening on stdio...\n" * options.noise)
    time.sleep(options.slow_start)
    for line in sys.stdin.buffer:
        with contextlib.suppress(ValueError):
            server.take(json.loads(line))
    while options.ignore_eof:
        time.sleep(1000)
    os._exit(0)  # daemon threads may be in the middle of a write


if __name__ == "__main__":
    main()
