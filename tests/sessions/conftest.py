"""Nothing may be left behind by any test of this folder."""

import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest

from consumer.sessions import SessionManager

from .processes import Child, Events


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    before = set(psutil.Process().children())  # a broker of this test run, perhaps, which has children of its own
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, "tasks are left"
    assert set(psutil.Process().children()) <= before, "processes are left"


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def manager(events: Events) -> AsyncIterator[SessionManager[Child]]:
    async with SessionManager[Child](on_event=events) as manager:
        yield manager
    assert manager.count() == manager.opening == len(manager.sessions) == 0
