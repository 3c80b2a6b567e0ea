"""One line a minute for each key, and what is kept back is counted."""

import pytest

from consumer.observability.log_limiter import LOGGED_EVERY, MOST_KEYS, LogLimiter
from tests.virtual_time import in_virtual_time, passes


@in_virtual_time
async def test_lines_that_are_not_logged_are_counted():
    limiter = LogLimiter()
    assert [limiter.due("a") for _ in range(3)] == [0, None, None]
    assert limiter.due("b") == 0
    await passes(LOGGED_EVERY)
    assert [limiter.due("a"), limiter.due("a"), limiter.due("b")] == [2, None, 0]


@pytest.mark.parametrize(("others", "again"), [(MOST_KEYS - 1, None), (MOST_KEYS, 0)])
@in_virtual_time
async def test_no_more_keys_are_remembered_than_there_may_be(others: int, again: int | None):
    limiter = LogLimiter()
    assert limiter.due("first") == 0
    for number in range(others):
        await passes(0.001)
        assert limiter.due(f"other {number}") == 0
    assert limiter.due("first") == again
