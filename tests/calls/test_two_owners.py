"""Which of two workers gives a call up that both own."""

import pytest

from schemas.ids import WorkerId
from schemas.internal import OwnerCheck
from tests.calls.owner_parts import CALL
from tests.calls.owning import owning
from tests.virtual_time import in_virtual_time


@in_virtual_time
@pytest.mark.parametrize(
    ("owner", "told", "kept"),
    [("w-0", False, False), ("w-0", True, True), ("w-2", False, False), ("w-2", True, False)],
)
async def test_of_two_owners_that_told_each_other_only_one_gives_the_call_up(owner: str, told: bool, kept: bool):
    async with owning() as scene:
        await scene.opened()
        if told:
            await scene.parts.carry_out(OwnerCheck(call_id=CALL, worker_id=WorkerId(owner), revision=1))
        scene.parts.closing.yield_to(CALL, WorkerId(owner))
        await scene.told()
        assert scene.parts.owned_calls.is_ours(scene.parts.call) == kept


@in_virtual_time
async def test_what_was_told_over_a_lost_link_counts_no_more():
    async with owning() as scene:
        await scene.opened()
        await scene.parts.carry_out(OwnerCheck(call_id=CALL, worker_id=WorkerId("w-0"), revision=1))
        await scene.lose_link()
        await scene.new_link()
        scene.parts.closing.yield_to(CALL, WorkerId("w-0"))
        await scene.told()
        assert not scene.parts.owned_calls.is_ours(scene.parts.call)
