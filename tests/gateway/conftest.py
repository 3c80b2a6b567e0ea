"""A gateway that listens on a port of its own and asks the workers of the test's prefix."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from consumer.gateway.gateway import Gateway
from consumer.settings import Settings
from tests.gateway.sdk import Verdict, sdk_python, validator
from tests.harness import Cluster

USER, PASSWORD, TOKEN = "admin", "s3cret", "operator-token"
TOKEN_KEY = "0123456789abcdef0123456789abcdef"
CREDENTIALS: dict[str, Any] = {"auth_user": USER, "auth_password": PASSWORD, "auth_token": TOKEN}

NOBODY: Any = None
"""Instead of the credentials that a client has."""

OPEN_TO_THIS_MACHINE: dict[str, Any] = {"auth_user": NOBODY, "auth_password": NOBODY, "auth_token": NOBODY}
"""Settings of a gateway that asks for no credentials, for clients that send none."""

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


@asynccontextmanager
async def served(mcp: Cluster, **settings: Any) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    """A gateway with these settings, and a client with the operator's credentials."""
    given = Settings(amqp_url=mcp.url, worker={"prefix": mcp.prefix}, gateway={"port": 0, **CREDENTIALS, **settings})
    gateway = Gateway(given)
    await gateway.listen()
    try:
        await gateway.connect()
        auth = (USER, PASSWORD) if given.gateway.auth_password else None
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", auth=auth, timeout=30) as http:
            yield gateway, http
    finally:
        await gateway.close()


@pytest.fixture
async def serve(mcp: Cluster) -> AsyncIterator[Serve]:
    """Makes gateways; they go with the test."""
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> httpx2.AsyncClient:
            _, http = await stack.enter_async_context(served(mcp, **settings))
            return http

        yield make


async def call(http: httpx2.AsyncClient, service: str, tool: str, session_id: str, **more: Any) -> httpx2.Response:
    """Call a tool through SignalWire's gateway API."""
    body = {"tool": tool, "session_id": session_id, **more}
    return await http.post(f"/services/{service}/call", json=body)


async def soon(condition: Callable[[], Awaitable[Any]], within: float = 45.0) -> Any:
    """Ask until the answer is true; returns it."""
    async with asyncio.timeout(within):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
        return found


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The Python of an environment that has SignalWire's SDK."""
    return sdk_python()


@pytest.fixture
def sdk_verdict(sdk: Path) -> Iterator[Verdict]:
    with validator(sdk) as verdict:
        yield verdict
