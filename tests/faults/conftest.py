"""A stage on a broker that may be broken."""

from collections.abc import AsyncIterator

import pytest

from infra.broker import PrivateBroker
from tests.faults.stage import Stage, stage


@pytest.fixture
async def scene(own_broker: PrivateBroker) -> AsyncIterator[Stage]:
    async with stage(own_broker) as made:
        yield made
