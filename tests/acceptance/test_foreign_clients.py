"""A client that is not ours, in plain AMQP terms: pika, direct reply-to and named reply queues."""

import asyncio
import json
import time
import uuid

import pika
import pytest

from schemas import headers
from tests.harness import ECHO, Cluster


class Plain:
    """What a telephony backend in any language does."""

    def __init__(self, url: str, prefix: str, *, direct: bool) -> None:
        self.prefix = prefix
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.answers: list[tuple[pika.BasicProperties, dict]] = []
        if direct:
            self.reply_to = "amq.rabbitmq.reply-to"
        else:
            self.reply_to = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.basic_consume(self.reply_to, self._answer, auto_ack=True)

    def _answer(self, channel, method, properties, body):
        self.answers.append((properties, json.loads(body)))

    def ask(self, exchange: str, key: str, kind: str, body, timeout: float = 45.0, **more):
        correlation_id = uuid.uuid4().hex
        self.channel.basic_publish(
            exchange,
            key,
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            pika.BasicProperties(
                type=kind,
                reply_to=self.reply_to,
                correlation_id=correlation_id,
                content_type="application/json",
                message_id=uuid.uuid4().hex,
                **more,
            ),
        )
        self.answers.clear()
        self.connection.process_data_events(time_limit=0)
        while not self.answers:
            self.connection.process_data_events(time_limit=timeout)
            assert self.answers, f"no answer to {kind} within {timeout} s"
        properties, answer = self.answers.pop()
        assert properties.correlation_id == correlation_id
        assert properties.type == f"{kind}.reply"
        return answer

    def call(self, kind: str, session_id: str, *, exchange: str = "sessions", **body):
        return self.ask(
            f"{self.prefix}.{exchange}", session_id.partition("#")[0], kind, {"session_id": session_id, **body}
        )


def whole_life(url: str, prefix: str, direct: bool) -> None:
    client = Plain(url, prefix, direct=direct)
    try:
        created = client.call("session.create", "c-1", service_name="echo", timeout=60, metadata={"tenant": "acme"})
        assert created["ok"], created
        info = created["result"]
        assert (info["session_id"], info["call_id"], info["service_name"]) == ("c-1", "c-1", "echo")
        assert info["timeout"] == 60
        assert info["metadata"] == {"tenant": "acme"}
        assert info["is_alive"]
        assert not info["is_expired"]

        got = client.call("session.get", "c-1", exchange="requests")["result"]
        assert got["created_at"] == info["created_at"]
        assert got["last_accessed"] > info["last_accessed"]
        touched = client.call("session.touch", "c-1", exchange="requests")["result"]
        assert touched["last_accessed"] > got["last_accessed"]

        second = client.call("session.create", "c-1#calc", service_name="echo")["result"]
        assert second["call_id"] == "c-1"
        listed = client.ask(f"{prefix}.cluster", "", "sessions.list", {})["result"]
        assert set(listed["sessions"]) == {"c-1", "c-1#calc"}
        assert listed["complete"]
        assert listed["missing_workers"] == []
        as_before = client.ask("", f"{prefix}.queries", "sessions.list", {})["result"]
        assert set(as_before["sessions"]) == set(listed["sessions"])

        called = client.call("tools.call", "c-1", exchange="requests", name="echo", arguments={"text": "hello"})[
            "result"
        ]
        assert (called["text"], called["session_id"]) == ("hello", "c-1")

        assert client.call("session.close", "c-1#calc")["result"] == {"closed": True, "sessions": ["c-1#calc"]}
        assert client.call("session.close", "c-1")["result"] == {"closed": True, "sessions": ["c-1"]}
        assert client.call("session.close", "c-1")["result"] == {"closed": False, "sessions": []}
        gone = client.call("session.get", "c-1", exchange="requests")
        assert gone["error"]["code"] == "SESSION_NOT_FOUND"
    finally:
        client.connection.close()


@pytest.mark.parametrize("direct", [True, False], ids=["direct_reply_to", "named_reply_queue"])
async def test_a_session_lives_its_life_for_a_client_that_is_not_ours(mcp: Cluster, direct):
    await mcp.start()
    await asyncio.to_thread(whole_life, mcp.url, mcp.prefix, direct)
    await mcp.until(lambda: len(mcp.of("closed")) == 2)


def too_late(url: str, prefix: str) -> None:
    client = Plain(url, prefix, direct=True)
    over = {headers.DEADLINE: headers.milliseconds(time.time() - 60)}
    uses = {
        "tools.call": {"name": "echo", "service_name": "echo"},
        "resources.list": {"service_name": "echo", "open": "beside"},
    }
    try:
        for kind, fields in uses.items():
            for call in ("unowned", "owned"):
                body = {"session_id": call, **fields, "service_name": "echo" if call == "unowned" else "second"}
                answer = client.ask(f"{prefix}.requests", call, kind, body, headers=over)
                assert answer["error"]["code"] == "DEADLINE_EXCEEDED", answer
                assert "was not executed" in answer["error"]["message"]
    finally:
        client.connection.close()


async def test_a_request_whose_deadline_has_passed_opens_no_session(mcp: Cluster):
    await mcp.start({"services": {name: {"command": ECHO} for name in ("echo", "second")}})
    await mcp.client.create("owned", "echo")
    await asyncio.to_thread(too_late, mcp.url, mcp.prefix)
    assert set((await mcp.client.list_sessions()).sessions) == {"owned"}
    await mcp.client.close("owned")
    await mcp.event("closed", session_id="owned")  # what was told before it has come by now
    assert [event.subject for event in mcp.of("created")] == ["owned"]


def wrong_input(url: str, prefix: str) -> None:
    client = Plain(url, prefix, direct=True)
    sessions, requests, queries = f"{prefix}.sessions", f"{prefix}.requests", f"{prefix}.queries"

    def fails(code: str, says: str, exchange: str, key: str, kind: str, body) -> None:
        answer = client.ask(exchange, key, kind, body)
        assert not answer["ok"]
        assert answer["error"]["code"] == code, answer
        assert says in answer["error"]["message"], answer

    try:
        fails("INVALID_MESSAGE", "service_name", sessions, "c", "session.create", {"session_id": "c"})
        fails("INVALID_MESSAGE", "colour", requests, "c", "session.get", {"session_id": "c", "colour": "red"})
        fails("INVALID_MESSAGE", "argument: is unknown; did you mean arguments?", requests, "c", "tools.call",
              {"session_id": "c", "name": "echo", "argument": {}})  # fmt: skip
        fails("SESSION_NOT_FOUND", "with a service_name the request opens one", requests, "c", "tools.call",
              {"session_id": "c", "name": "echo"})  # fmt: skip
        fails("INVALID_MESSAGE", "session_id", requests, "c", "session.get", {"session_id": ""})
        fails("INVALID_MESSAGE", "session_id", requests, "c", "session.get", {"session_id": "x" * 256})
        fails("INVALID_MESSAGE", "timeout", sessions, "c", "session.create",
              {"session_id": "c", "service_name": "echo", "timeout": "long"})  # fmt: skip
        fails("INVALID_MESSAGE", "JSON", requests, "c", "tools.call", b"{nonsense")
        fails("INVALID_MESSAGE", f"exchange '{prefix}.cluster'", requests, "c", "sessions.list", {})
        fails("INVALID_MESSAGE", "cursor", "", queries, "sessions.list", {"cursor": "?"})
        fails("INVALID_MESSAGE", "addressed to a call", "", queries, "session.get", {"session_id": "c"})
        fails("UNKNOWN_TYPE", "session.create", sessions, "c", "session.open", {"session_id": "c"})
        fails("SERVICE_NOT_FOUND", "echo", sessions, "c", "session.create", {"session_id": "c", "service_name": "no"})
        fails("SERVICE_NOT_FOUND", "did you mean 'echo'", sessions, "c", "session.create",
              {"session_id": "c", "service_name": "Ehco"})  # fmt: skip
        fails("SERVICE_DISABLED", "off", sessions, "c", "session.create", {"session_id": "c", "service_name": "off"})
        fails("SESSION_NOT_FOUND", "c", requests, "c", "tools.call", {"session_id": "c", "name": "echo"})
        assert client.call("session.create", "alive", service_name="echo")["ok"]
        fails("SESSION_EXISTS", "if_exists: reject", sessions, "alive", "session.create",
              {"session_id": "alive", "service_name": "echo", "if_exists": "reject"})  # fmt: skip
        again = client.call("session.create", "alive", service_name="echo", if_exists="reject")
        assert again["error"]["code"] == "SESSION_EXISTS"
        unknown = client.call("tools.call", "alive", exchange="requests", name="no_such_tool")
        assert unknown["error"]["code"] == "TOOL_NOT_FOUND"
    finally:
        client.connection.close()


async def test_wrong_input_is_answered_and_named_and_the_worker_lives_on(mcp: Cluster):
    from tests.harness import ECHO

    await mcp.start({"services": {"echo": {"command": ECHO}, "off": {"command": ECHO, "enabled": False}}})
    await asyncio.to_thread(wrong_input, mcp.url, mcp.prefix)
