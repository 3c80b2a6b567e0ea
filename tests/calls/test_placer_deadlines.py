"""What the placer does with the deadline of a request that opens its session, and how long a start waits."""

import pytest

from schemas import headers
from schemas.base import Json
from schemas.ids import CallId
from schemas.requests import CallStarted
from tests.calls.placing import CALL, ECHO, LONG, OTHER, OWNER, placing
from tests.virtual_time import in_virtual_time, moment, passes


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("tools.call", {"name": "t", "service_name": ECHO}), ("resources.list", {"service_name": ECHO, "open": "beside"})],
    ids=["tools.call", "resources.list"],
)
@in_virtual_time
async def test_a_request_that_nobody_waits_for_gets_no_worker(kind: str, fields: Json):
    async with placing() as scene:
        over = {headers.DEADLINE: headers.milliseconds(moment() - 1)}
        await scene.send(kind, {"session_id": CALL, **fields}, given=over)
        reply = await scene.reply()
        assert reply.error is not None
        assert (reply.error.code, "was not executed" in reply.error.message) == ("DEADLINE_EXCEEDED", True)
        await scene.nothing_more()
        assert scene.bound() == []


@in_virtual_time
async def test_of_a_tool_call_that_was_sent_again_nobody_knows_whether_it_was_executed():
    async with placing() as scene:
        over = {headers.DEADLINE: headers.milliseconds(moment() - 1), headers.RESENT: True}
        await scene.call_tool(fields={"service_name": ECHO}, given=over)
        assert await scene.refused() == "OUTCOME_UNKNOWN", "an owner that is gone may have had its first copy"
        await scene.nothing_more()
        assert scene.bound() == []


@in_virtual_time
async def test_the_earlier_of_a_requests_deadlines_goes_on_to_the_owner():
    async with placing() as scene:
        began = moment()
        ahead = {headers.DEADLINE: headers.milliseconds(began + 3)}
        await scene.call_tool(fields={"service_name": ECHO, "timeout": 7}, given=ahead)
        given = (await scene.arrived()).message.headers
        assert int(given[headers.DEADLINE]) / 1000 == pytest.approx(began + 3, abs=0.1)


@in_virtual_time
async def test_where_all_workers_leave_a_start_waits_for_another_and_a_use_is_refused_in_time():
    async with placing() as scene:
        scene.workers.report(OWNER, state="draining")
        await scene.start()
        other = CallId("c-2")
        await scene.call_tool(call=other, fields={"session_id": other, "service_name": ECHO})
        assert await scene.refused() == "CAPACITY", "it may be executed once at most, so no other placer may get it"
        await passes(LONG)
        assert scene.told() == [(other, "rejected")], "nobody can say that there is no room"
        scene.workers.report(OTHER)
        scene.placer.look_for_room()
        assert (await scene.arrived(OTHER)).type == CallStarted.type
        await scene.nothing_more()
