"""What the placer does with the deadline of a request that opens its session."""

import pytest

from schemas import headers
from schemas.base import Json
from tests.calls.placing import CALL, ECHO, placing
from tests.virtual_time import in_virtual_time, moment


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
async def test_the_earlier_of_a_requests_deadlines_goes_on_to_the_owner():
    async with placing() as scene:
        began = moment()
        ahead = {headers.DEADLINE: headers.milliseconds(began + 3)}
        await scene.call_tool(fields={"service_name": ECHO, "timeout": 7}, given=ahead)
        given = (await scene.arrived()).message.headers
        assert int(given[headers.DEADLINE]) / 1000 == pytest.approx(began + 3, abs=0.1)
