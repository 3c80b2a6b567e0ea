"""An MCP server that answers as carelessly as it is told to, over stdio or over HTTP.

    --http              serve at a URL; its port is the first line on stdout
    --modern            speak 2026-07-28 (``server/discover``), not the handshake
    --start KIND        answer the start carelessly, see ``START``
    --listen            over HTTP: offer a stream to listen to, which ends when sessions are forgotten
    --answer-all        answer notifications, too: their method is not found, and the id is null
    --status STATUS     over HTTP: answer everything with this status, and ``--body``

Its tools: ``say`` writes ``raw`` (a text of bytes, ``$ID`` stands for the id of the request) in the place of an answer,
over HTTP with ``status`` and ``type``, and with ``then`` a good answer after it; ``result`` answers with this result;
``close`` closes stdin or stdout; ``forget`` forgets all sessions, and from then on says so with ``status`` and ``raw``;
over HTTP ``drop`` closes the connection and answers nothing, and ``flood`` streams notifications that nobody knows;
``ok`` is a tool like others. No import of anything outside the standard library, and no import of this project.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}}
    for name in ("ok", "say", "result", "close", "forget", "drop", "flood")
]
OK = {"content": [{"type": "text", "text": "ok"}]}
START: dict[str, Json] = {
    "php": {"capabilities": {"tools": []}, "_meta": []},
    "php_empty": {"capabilities": []},
    "true": {"capabilities": {"tools": True, "logging": False}},
    "nameless": {"serverInfo": None},
    "futuristic": {"protocolVersion": "2999-01-01"},
    "wrong": {"capabilities": {"tools": {"listChanged": "perhaps"}}},
}


class Server:
    """What both transports share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sessions: set[str] = set()
        self.forgetting: Json = {}
        self.listening = threading.Event()
        self.forgot = threading.Event()

    def answer(self, message: Json) -> bytes | None:
        """What is written for a request; ``None`` for a notification."""
        if "method" in message and "id" not in message and self.options.answer_all:
            return written({"jsonrpc": "2.0", "id": None, "error": {"code": -32601, "message": "Method not found"}})
        if "id" not in message or "method" not in message:
            return None
        head = {"jsonrpc": "2.0", "id": message["id"]}
        method, params = message["method"], message.get("params") or {}
        if method == "tools/call":
            return self.call(head, params["name"], params.get("arguments") or {})
        if method == "tools/list":
            tools: list[Json] = [*TOOLS]
            if self.options.start == "php":
                tools[0] = {"name": "ok", "inputSchema": {"type": "object", "properties": []}, "annotations": []}
            return written({**head, "result": {"tools": tools}})
        about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "careless", "version": "1"}}
        if method == "initialize" and not self.options.modern:
            result = {"protocolVersion": params["protocolVersion"], **about, **START.get(self.options.start, {})}
            answer = written({**head, "result": result})
            return b"[" + answer + b"]" if self.options.start == "array" else answer
        if method == "server/discover" and self.options.modern:
            supported = {
                "supportedVersions": ["2026-07-28"],
                "resultType": "complete",
                "ttlMs": 0,
                "cacheScope": "private",
            }
            return written({**head, "result": {**supported, **about, **START.get(self.options.start, {})}})
        return written({**head, "error": {"code": -32601, "message": "no such method"}})

    def call(self, head: Json, name: str, given: Json) -> bytes:
        """What is written for a tool call."""
        good = written({**head, "result": OK})
        match name:
            case "say":
                said: bytes = given["raw"].encode("latin-1").replace(b"$ID", str(head["id"]).encode())
                return said + b"\n" + good if given.get("then") else said
            case "result":
                return b'{"jsonrpc": "2.0", "id": %d, "result": %s}' % (head["id"], given["json"].encode())
            case "close":
                os.close(0 if given["pipe"] == "stdin" else 1)
                time.sleep(600)
            case "forget":
                if self.options.listen:
                    self.listening.wait(10)
                self.sessions.clear()
                self.forgetting = given
                self.forgot.set()
        return good


def written(message: Json) -> bytes:
    """A message as JSON."""
    return json.dumps(message).encode()


def serve_stdio(server: Server) -> None:
    """One line, one message."""
    if server.options.start == "banner":
        sys.stdout.write("Listening on http://0.0.0.0:3000\n")
        sys.stdout.flush()
        time.sleep(600)
    for line in sys.stdin:
        if (answer := server.answer(json.loads(line))) is not None:
            os.write(1, answer + b"\n")


class Handler(BaseHTTPRequestHandler):
    """One POST, one message."""

    server_class: Server
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet: the second of two would wait for an acknowledgement

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Offer a stream that says nothing, or none."""
        server = self.server_class
        if not server.options.listen:
            self.reply(405, b"")
        elif self.headers.get("mcp-session-id") not in server.sessions:
            self.reply(404, b"")
        else:
            self.close_connection = True
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"retry: 10\n\n")
            self.wfile.flush()
            server.listening.set()
            server.forgot.wait(60)

    def do_DELETE(self) -> None:
        """Keep the session."""
        self.reply(405, b"")

    def do_POST(self) -> None:
        """Answer one message."""
        server, options = self.server_class, self.server_class.options
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        session = self.headers.get("mcp-session-id")
        if options.status:
            self.reply(options.status, options.body.encode(), kind="text/plain")
        elif session is not None and session not in server.sessions:
            said = server.forgetting.get("raw", "Not Found").encode()
            self.reply(server.forgetting.get("status", 404), said, kind=server.forgetting.get("type", "text/plain"))
        elif (answer := server.answer(message)) is None:
            self.reply(202, b"")
        else:
            given = (message.get("params") or {}).get("arguments") or {} if message["method"] == "tools/call" else {}
            name = (message.get("params") or {}).get("name")
            if name == "drop":
                self.close_connection = True
                return
            if name == "flood":
                self.flood()
                return
            says = (message.get("params") or {}).get("name") == "say"
            fresh = str(uuid.uuid4()) if message["method"] == "initialize" else ""
            if fresh:
                server.sessions.add(fresh)
            status, kind = (given.get("status", 200), given.get("type")) if says else (200, None)
            self.reply(status, answer, kind=kind or "application/json", session=fresh)

    def flood(self) -> None:
        """Stream without end, as long as anybody reads."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        said = b"data: " + written({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}) + b"\n\n"
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(said * 100)

    def reply(self, status: int, body: bytes, *, kind: str = "application/json", session: str = "") -> None:
        """Send a response."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if session:
            self.send_header("mcp-session-id", session)
        self.end_headers()
        self.wfile.write(body)


def serve_http(server: Server) -> None:
    """Serve at a port of the system's choice."""
    Handler.server_class = server
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{web.server_port}\n")
    sys.stdout.flush()
    web.serve_forever()


def main() -> None:
    """Read the switches and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--modern", action="store_true")
    parser.add_argument("--start", default="")
    parser.add_argument("--answer-all", action="store_true")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--body", default="")
    server = Server(parser.parse_args())
    if server.options.http:
        serve_http(server)
    else:
        serve_stdio(server)


if __name__ == "__main__":
    main()
