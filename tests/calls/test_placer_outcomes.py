"""The outcome that the placer's log line says of a message for which no worker has room."""

from structlog.testing import capture_logs

from tests.calls.placing import CALL, placing
from tests.virtual_time import in_virtual_time, passes

LONGER_THAN_IT_WAITS = 10.0


@in_virtual_time
async def test_a_start_is_not_opened_a_recipe_not_restored_and_a_command_has_failed():
    async with placing() as scene:
        scene.workers.report(sessions=5)
        with capture_logs() as logs:
            for sent in (
                scene.start(),
                scene.recipe(),
                scene.send("session.create", {"session_id": CALL, "service_name": "echo"}),
            ):
                await sent
                await passes(LONGER_THAN_IT_WAITS)
    told = [(one["type"], one["outcome"], one["code"]) for one in logs if one["event"] == "delivery"]
    assert told == [
        ("call.started", "not_opened", "SERVICE_SESSION_LIMIT"),
        ("call.recipe", "not_restored", "SERVICE_SESSION_LIMIT"),
        ("session.create", "failed", "SERVICE_SESSION_LIMIT"),
    ]
