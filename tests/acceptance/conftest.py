"""A way to the broker beside the workers' own, for tests that speak as one of them."""

from collections.abc import AsyncIterator

import pytest

from consumer.broker.link import Link
from tests.harness import Cluster


@pytest.fixture
async def link(mcp: Cluster) -> AsyncIterator[Link]:
    opened = Link(mcp.url, "test")
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()
