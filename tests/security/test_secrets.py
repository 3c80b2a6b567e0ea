"""What a service's configuration holds for its server reaches nobody else: not callers, not listeners, not the log."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from consumer.client import SessionClient
from consumer.processes.secrets import origin, secrets_of
from consumer.processes.service import MCPService
from schemas.errors import McpError, OutcomeUnknown, SessionsError, StartFailed
from tests.harness import ECHO, Cluster, config

SECRETS = ["service-user", "pass/word-1", "pass%2Fword-1", "query-token-1", "0123456789abcdefKEY", "header-token-1",
           "env-token-1", "option-token-1", "db-password-1"]  # fmt: skip

URL = "http://service-user:pass%2Fword-1@127.0.0.1:{port}/s/0123456789abcdefKEY/mcp?token=query-token-1&v=1"

TELLS = """
import os, sys
sys.stderr.write(f"cannot log in: {os.environ['MY_KEY']} {sys.argv[1:]} {os.environ['DATABASE']}\\n")
sys.exit(3)
"""


def services(port: int) -> dict:
    return {
        "away": {"url": URL.format(port=port), "start_timeout": 1},
        "tells": {
            "command": [sys.executable, "-c", TELLS, "--api-key", "option-token-1"],
            "env": {"MY_KEY": "env-token-1", "DATABASE": "postgres://db:db-password-1@localhost/x"},
        },
        "echo": {"command": ECHO, "env": {"MY_KEY": "env-token-1"}},
    }


def told_nothing(*told: object) -> None:
    text = repr(told)
    assert [secret for secret in SECRETS if secret in text] == []


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
async def refusing() -> AsyncIterator[int]:
    """A server that answers everything with 403 and repeats what it was asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(head) + head)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def error_of(client: SessionClient, service: str) -> SessionsError:
    with pytest.raises(SessionsError) as caught:
        await client.create("c", service)
    return caught.value


async def test_no_error_no_event_and_no_line_of_the_log_tells_a_secret(mcp: Cluster, closed_port: int, refusing: int):
    all_services = services(closed_port)
    all_services["refused"] = {
        "url": URL.format(port=refusing), "start_timeout": 5, "headers": {"Authorization": "Bearer header-token-1"},
    }  # fmt: skip
    worker = await mcp.start(config(services=all_services, worker={"log_level": "debug"}))
    for service in ("away", "refused", "tells"):
        error = await error_of(mcp.client, service)
        told_nothing(error.message, error.details)
        rejected = await mcp.event("rejected", service_name=service)
        assert rejected.data["message"] == error.message
        told_nothing(rejected)
    assert isinstance(error, StartFailed)
    assert "cannot log in: ***" in error.message

    await mcp.client.create("e", "echo")
    with pytest.raises(McpError) as refused:
        await mcp.client.call_tool("e", "error", {"message": "no: env-token-1", "data": {"url": "x?k=env-token-1"}})
    assert refused.value.message == "the MCP server answered tools/call error: no: ***"
    assert (refused.value.details["message"], refused.value.details["data"]) == ("no: ***", {"url": "x?k=***"})
    failed = await mcp.client.call_tool("e", "fail", {"message": "no: env-token-1"})
    assert failed.text == "no: ***"
    with pytest.raises(OutcomeUnknown) as died:
        await mcp.client.call_tool("e", "die", {"code": 1, "stderr": "last: env-token-1"})
    assert died.value.details["stderr"] == "last: ***"
    told_nothing(await mcp.event("died", session_id="e"), mcp.events, worker.records)


def test_what_is_secret_of_a_service_and_what_is_not():
    service = MCPService(
        url="https://u:p@example.com:8443/mcp/abcdefghijklm0123456/streamable-http?key=secret-1",
        headers={"Authorization": "Bearer secret-2", "Accept-Language": "de-CH", "X-Odd": "0123456789abcdef-42"},
        env={"LANGUAGE": "english-uk", "STRIPE_KEY": "secret-3", "DB": "postgres://me:secret-4@db/x"},
    )
    found = secrets_of(service)
    secrets = {f"secret-{number}" for number in (1, 2, 3, 4)} | {"abcdefghijklm0123456", "0123456789abcdef-42", "u:p@"}
    assert secrets <= found
    assert not found & {"de-CH", "english-uk", "streamable-http", "example.com"}
    assert origin(service) == "https://example.com:8443"
    assert json.dumps(service.public()) == '{"description": "", "enabled": true, "transport": "http"}'
