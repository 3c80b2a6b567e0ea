"""A proxy before the broker, to cut connections."""

from collections.abc import AsyncIterator

import pytest
from aiomisc.pytest import TCPProxy

from tests.proxy import proxy_to


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[TCPProxy]:
    async with proxy_to(amqp_url) as made:
        yield made
