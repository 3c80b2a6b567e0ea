"""Which of two workers gives a call up that both own."""

import pytest

from schemas.ids import WorkerId
from schemas.internal import OwnerCheck
from tests.calls.owner_parts import CALL
from tests.calls.owning import Owning, owning
from tests.virtual_time import in_virtual_time

THERE = "their.present.link"
BEFORE = "their.lost.link"


async def told(scene: Owning, worker: str, link: str) -> None:
    """The owner answers another worker's check, which was sent over that link."""
    check = OwnerCheck(call_id=CALL, worker_id=WorkerId(worker), revision=1)
    await scene.parts.carry_out(check, reply_to=link)


async def keeps(scene: Owning, other: str) -> bool:
    """Whether the owner keeps the call when another worker answers that the call is its own."""
    scene.parts.closing.yield_to(CALL, WorkerId(other), THERE)
    await scene.told()
    return scene.parts.owned_calls.is_ours(scene.parts.call)


@in_virtual_time
@pytest.mark.parametrize(
    ("other", "link", "kept"),
    [("w-0", None, False), ("w-0", THERE, True), ("w-2", None, False), ("w-2", THERE, False)],
)
async def test_of_two_owners_that_told_each_other_only_one_gives_the_call_up(other: str, link: str | None, kept: bool):
    async with owning() as scene:
        await scene.opened()
        if link is not None:
            await told(scene, other, link)
        assert await keeps(scene, other) == kept


@in_virtual_time
async def test_what_was_told_over_a_lost_link_counts_no_more():
    async with owning() as scene:
        await scene.opened()
        await told(scene, "w-0", THERE)
        await scene.lose_link()
        await scene.new_link()
        assert not await keeps(scene, "w-0")


@in_virtual_time
async def test_what_the_other_was_told_over_a_link_that_it_lost_counts_no_more():
    async with owning() as scene:
        await scene.opened()
        await told(scene, "w-0", BEFORE)
        assert not await keeps(scene, "w-0")
