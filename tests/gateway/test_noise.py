"""Random bytes, paths, headers and sizes at a gateway; with ``NOISE=10000`` in the environment, so many requests."""

import asyncio
import contextlib
import json
import os
import random
import re
import string
from base64 import b64encode
from urllib.parse import quote

import psutil
import pytest

from tests.gateway.conftest import PASSWORD, TOKEN, USER
from tests.gateway.test_life import client_of, started
from tests.harness import Cluster, WorkerProcess

REQUESTS = int(os.environ.get("NOISE", "1200"))
AT_ONCE = 24
MEMORY = 24 << 20
"""How much (bytes) a gateway may grow after its first quarter of the requests: what the allocator keeps."""

METHODS = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "BREW", "PROPFIND"]
ROUTES = [
    "/health", "/livez", "/readyz", "/metrics", "/services", "/services/{}/tools", "/services/{}/call", "/sessions",
    "/sessions/{}", "/signalwire/events", "/events", "/events/{}", "/events/twilio",
    "/signalwire/swaig", "/signalwire/swaig/{}", "/calls/{}/token", "/{}",
    "/{}/mcp", "/calls/{}/mcp", "/calls/{}/{}/mcp", "/calls/c-7/echo/mcp",
]  # fmt: skip
HEADERS = [
    "Host", "Origin", "Authorization", "Content-Type", "Content-Length", "Transfer-Encoding", "X-Forwarded-For",
    "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "traceparent", "Idempotency-Key", "X-SignalWire-Signature",
    "X-SignalWire-Sha256-Signature", "X-Twilio-Signature", "Expect", "Upgrade", "Connection", "Accept", "Cookie",
    "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "X-Call-Id", "Last-Event-ID",
]  # fmt: skip
GOOD = {
    "Host": ["127.0.0.1", "localhost:1", "[::1]", "[::", "http://[", "a b", "[v1.x]", "x" * 300, "127.0.0.1:99999999"],
    "Origin": ["null", "http://localhost", "http://[", "https://evil.example", "//", "http://[::1]:x"],
    "Authorization": ["Basic", "Bearer a.b.c", "Basic ====", "Bearer é", f"Bearer {TOKEN}", "Basic Og=="],
    "Content-Type": ["application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data"],
    "Content-Length": ["0", "-1", "5", "99999999999", "9" * 30, "1e3", "0x10"],
    "Transfer-Encoding": ["chunked", "gzip", "chunked, chunked"],
    "X-Forwarded-For": ["1.2.3.4", "::", "unknown", ", ,"],
    "X-Forwarded-Proto": ["https", "javascript", "ht[tp"],
    "traceparent": ["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-0-0-0", "é"],
    "Accept": ["application/json", "text/event-stream", "application/json, text/event-stream", "image/png", "*/*;q=0"],
    "MCP-Protocol-Version": ["2025-11-25", "2026-07-28", "2024-11-05", "1"],
    "X-Call-Id": ["c-1", "c-7", "#", "a" * 5000],
    "Expect": ["100-continue", "200"],
    "Upgrade": ["websocket", "h2c"],
    "Connection": ["close", "keep-alive", "upgrade", "x"],
}
CALL: dict[str, object] = {
    "tool": "echo",
    "session_id": "c-1",
    "arguments": {"text": "x"},
    "timeout": 60,
    "metadata": {},
}
SWAIG: dict[str, object] = {
    "function": "echo",
    "call_id": "c-2",
    "argument": {"parsed": [{"text": "x"}], "raw": '{"text": "x"}'},
}
EVENT: dict[str, object] = {
    "event_type": "calling.call.state",
    "params": {"call_id": "c-3", "call_state": "created", "device": {}},
}
OWN: dict[str, object] = {"call_id": "c-4", "kind": "progress", "at": 1.0, "metadata": {"a": 1}}
SIGNATURES: dict[str, object] = {"action": "get_signature", "functions": ["echo", 7]}
RPC: dict[str, object] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"text": "x"}, "_meta": {"progressToken": 1}},
}
HELLO: dict[str, object] = {
    "jsonrpc": "2.0",
    "id": "a",
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "noise", "version": "1"}},
}
GOOD_BODIES = [CALL, SWAIG, EVENT, OWN, SIGNATURES, RPC, HELLO]
FORM = b"CallSid=c-5&CallStatus=ringing&From=%2B1555&To=%FF&SequenceNumber=0&Timestamp=x"
SIZES = (0, 1, 30, 3000, 70_000)


class Dice:
    """Draws requests; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def text(self) -> str:
        letters = self._random.choice((string.ascii_letters, string.printable, "é🙂\x00#*.%/:@[]?&=;"))
        return "".join(self._random.choices(letters, k=self._random.choice((0, 1, 8, 60, 200))))

    def target(self) -> bytes:
        if self.chance(0.05):
            return self._random.randbytes(self._random.choice((1, 10, 300)))
        id_ = self._random.choice(["echo", "c-1", "%", "%ff", "..", "%2e%2e", "a" * 300, quote(self.text(), safe="")])
        path = self._random.choice(ROUTES).replace("{}", id_)
        if self.chance(0.2):
            path += "?" + self._random.choice(
                ["CallSid=c-6&CallStatus=completed", "a=%ff", "x" * 3000, quote(self.text())]
            )
        if self.chance(0.05):
            path = self._random.choice(["http://h" + path, "//h" + path, "*", path + "/", path.upper(), path + "é"])
        return path.encode()

    def value(self, depth: int = 0) -> object:
        kinds = [self.text(), self._random.randint(-(2**70), 2**70), self._random.random(), None, True, 0, -1, 10**400]
        if depth < 3:
            kinds += [[self.value(depth + 1)], {self.text(): self.value(depth + 1)}]
        return self._random.choice(kinds)

    def body(self) -> bytes:
        if self.chance(0.25):
            return self._random.randbytes(self._random.choice(SIZES))
        if self.chance(0.2):
            return self._changed(FORM)
        if self.chance(0.05):
            return b"[" * 20_000
        good: dict[str, object] = dict(self._random.choice(GOOD_BODIES))
        for name in list(good):
            if self.chance(0.15):
                good[name] = self.value()
        if self.chance(0.1):
            good[self.text()] = self.value()
        body = json.dumps(good, ensure_ascii=self.chance(0.5)).encode("utf-8", "surrogatepass")
        return self._changed(body) if self.chance(0.3) else body

    def _changed(self, body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(self._random.randint(0, 4)):
            changed[self._random.randrange(len(changed))] = self._random.randrange(256)
        return bytes(changed)

    def request(self) -> bytes:
        """The bytes of a request, or of what is none."""
        if self.chance(0.05):
            return self._random.randbytes(self._random.choice(SIZES[1:]))
        body = self.body() if self.chance(0.8) else b""
        method = self._random.choice(METHODS) if self.chance(0.5) else "POST"
        lines = [
            f"{method} ".encode()
            + self.target()
            + self._random.choice([b" HTTP/1.1"] * 20 + [b" HTTP/1.0", b" HTTP/9", b""])
        ]
        if self.chance(0.9):
            lines.append(b"Host: 127.0.0.1")
        if self.chance(0.8):
            lines.append(b"Authorization: Basic " + b64encode(f"{USER}:{PASSWORD}".encode()))
        if self.chance(0.7):
            lines.append(
                b"Content-Type: " + self._random.choice([b"application/json", b"application/x-www-form-urlencoded"])
            )
        for _ in range(self._random.choice((0, 0, 1, 3))):
            name = self._random.choice(HEADERS)
            value = self._random.choice(GOOD.get(name, [])) if name in GOOD and self.chance(0.7) else self.text()
            lines.append(f"{name}: {value}".encode())
        if self.chance(0.02):
            lines += [b"X-%d: y" % number for number in range(self._random.choice((200, 20_000)))]
        if self.chance(0.1):
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif self.chance(0.95):
            lines.append(b"Content-Length: %d" % len(body))
        whole = b"\r\n".join(lines) + b"\r\n\r\n" + body
        return whole[: self._random.randrange(1, len(whole))] if self.chance(0.05) else whole


async def ask(port: int, dice: Dice) -> list[int]:
    """Send one request, in one of many ways, and return the statuses of what is answered."""
    sent = dice.request() * (3 if dice.chance(0.03) else 1)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return []
    answered = b""
    try:
        with contextlib.suppress(OSError):
            if dice.chance(0.1):
                half = len(sent) // 2
                writer.write(sent[:half])
                await asyncio.sleep(0.005)
                writer.write(sent[half:])
            else:
                writer.write(sent)
            if dice.chance(0.05):
                return []  # hangs up without a look at the answer
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3 if dice.chance(0.2) else 2):
                    while not (answered := answered + (read := await reader.read(1 << 16))).count(b"\r\n\r\n") and read:
                        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answered)]


async def storm(port: int, requests: int, seed: int) -> list[int]:
    """Ask so often, from several clients at once."""

    async def client(number: int) -> list[int]:
        dice = Dice(seed * 1000 + number)
        return [status for _ in range(requests // AT_ONCE) for status in await ask(port, dice)]

    return [status for found in await asyncio.gather(*map(client, range(AT_ONCE))) for status in found]


def defects(process: WorkerProcess) -> str:
    """What a process logged that it should not: errors, and lines that are no records of ours.

    The document that is configured is not there, which is said as an error by who is asked for it.
    """
    quiet = ("info", "warning", "debug")
    told = (one for one in process.records if one.get("level") not in quiet and one["event"] != "document.unreadable")
    return "\n".join(f"{record['event']} {str(record.get('exception'))[-400:]}" for record in told)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("parser", ["h11", "httptools"])
async def test_random_requests_meet_no_defect_and_leave_nothing_behind(mcp: Cluster, parser: str) -> None:
    await mcp.start()
    process = await started(mcp, "gateway", parser=parser, document="/nowhere/document.xml")
    running = psutil.Process(process.process.pid)
    async with await client_of(process) as http:
        port = int(http.base_url.port or 0)
        assert (await http.get("/services/echo/tools")).status_code == 200
        before = running.num_fds()
        statuses = await storm(port, REQUESTS // 4, seed=1)
        memory = running.memory_info().rss
        statuses += await storm(port, REQUESTS - REQUESTS // 4, seed=2)
        grown = running.memory_info().rss - memory
        print(f"{parser}: {len(statuses)} answers, {grown >> 10} KiB more")  # noqa: T201 - for who runs many
        assert {status for status in statuses if status >= 500} <= {503}
        assert len({status for status in statuses if 400 <= status < 500}) > 5
        assert {200, 204} <= set(statuses)
        assert defects(process) == ""
        assert grown < MEMORY
        async with asyncio.timeout(45):  # the last bodies that never came
            while running.num_fds() > before:
                await asyncio.sleep(0.1)
        assert (await http.get("/readyz")).status_code == 200
    assert await process.terminate() == 0  # nothing was under way any more
