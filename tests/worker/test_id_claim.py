"""Of two processes with one id exactly one goes, whoever hears whom first."""

import asyncio
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from consumer.worker.id_claim import IdClaim
from schemas.ids import WorkerId
from schemas.sessions import WorkerInfo

NOW = datetime(2025, 3, 12, tzinfo=UTC)


def info(seconds: int) -> WorkerInfo:
    """A worker that was started so many seconds after the first one."""
    started_at = NOW + timedelta(seconds=seconds)
    return WorkerInfo(
        worker_id=WorkerId("w-1"), host="h", pid=1, version="1", state="ready", started_at=started_at, sessions=0,
        capacity=1, services={},
    )  # fmt: skip


@given(
    starts=st.lists(st.integers(0, 9), min_size=2, max_size=2, unique=True),
    heard=st.lists(st.sampled_from([0, 1]), min_size=4, max_size=8),
)
def test_of_two_that_came_at_the_same_time_the_younger_one_goes(starts: list[int], heard: list[int]):
    async def gone() -> list[bool]:
        claims = [IdClaim(info(one).started_at) for one in starts]
        for who in (*heard, 0, 1):
            claims[who].hear(info(starts[1 - who]))
        return [claim.rival.done() for claim in claims]

    younger = starts.index(max(starts))
    assert asyncio.run(gone()) == [who == younger for who in (0, 1)]


async def test_who_joins_goes_even_if_it_is_older():
    claim = IdClaim(info(0).started_at)
    claim.hear(info(5))
    assert not claim.rival.done()
    with claim.joining():
        claim.hear(info(5))
    assert claim.rival.result() == info(5)
    claim.hear(info(-1))
    assert claim.rival.result() == info(5), "the first one counts"


async def test_once_it_has_joined_it_stays():
    claim = IdClaim(info(0).started_at)
    with claim.joining():
        pass
    claim.hear(info(5))
    assert not claim.rival.done()


async def test_our_own_report_is_no_rival():
    claim = IdClaim(info(0).started_at)
    assert claim.is_ours(info(0))
    assert not claim.is_ours(info(1))
