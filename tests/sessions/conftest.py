"""Nothing may be left behind by any test of this folder."""

from collections.abc import AsyncIterator, Iterator

import pytest

from consumer.sessions import SessionManager
from tests.leftovers import no_process_is_left

from .processes import Child, Events


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with no_process_is_left():
        yield


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def manager(events: Events) -> AsyncIterator[SessionManager[Child]]:
    async with SessionManager[Child](on_event=events) as manager:
        yield manager
    assert manager.count() == manager.opening == len(manager.sessions) == 0
