"""One letter in another encoding costs that letter: of a call event, and of a request."""

import asyncio

from tests.acceptance.test_foreign_clients import Plain
from tests.harness import Cluster

EVENT = (
    b'{"Event-Name": "CHANNEL_CREATE", "Unique-ID": "lat-1", "Call-Direction": "inbound", '
    b'"Caller-Caller-ID-Name": "Jos\xe9", "Caller-Caller-ID-Number": "+15550100"}'
)


async def test_a_call_event_opens_its_call(mcp: Cluster):
    await mcp.start()
    await mcp.client.publish_call_event(EVENT)
    created = await mcp.event("created", session_id="lat-1")
    assert created.data["metadata"]["call"]["attributes"]["caller_name"] == "Jos\ufffd"


def requests(url: str, prefix: str) -> None:
    client = Plain(url, prefix, direct=True)
    try:
        opened = client.ask(
            f"{prefix}.sessions",
            "c-1",
            "session.create",
            b'{"session_id": "c-1", "service_name": "echo", "metadata": {"caller": "Jos\xe9", "half": "\\ud83d"}}',
        )
        assert opened["result"]["metadata"] == {"caller": "Jos\ufffd", "half": "\ufffd"}
        said = client.ask(
            f"{prefix}.requests",
            "c-1",
            "tools.call",
            b'{"session_id": "c-1", "name": "echo", "arguments": {"text": "Jos\xe9"}}',
        )
        assert said["result"]["text"] == "Jos\ufffd"
        for field in (b'"session_id": "c-\xe9"', b'"session_id": "c-1", "idempotency_key": "k-\xe9"'):
            refused = client.ask(f"{prefix}.requests", "c-1", "tools.call", b'{"name": "echo", ' + field + b"}")
            assert refused["error"]["code"] == "INVALID_MESSAGE"
            assert "is not valid Unicode" in refused["error"]["message"]
        listed = client.ask("", f"{prefix}.queries", "sessions.list", b'{"worker_id": "w-\xe9"}')
        assert listed["result"]["sessions"] == {}
    finally:
        client.connection.close()


async def test_a_request_is_executed(mcp: Cluster):
    await mcp.start()
    await asyncio.to_thread(requests, mcp.url, mcp.prefix)
