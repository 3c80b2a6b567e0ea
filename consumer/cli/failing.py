"""Services whose latest start for a session failed, as the workers know them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from consumer.cli.screen import age, say

if TYPE_CHECKING:
    from consumer.client import SessionClient
    from schemas.ids import WorkerId
    from schemas.replies import ServicesResult
    from schemas.sessions import FailedStart, WorkerInfo

Failing: TypeAlias = "Mapping[str, tuple[WorkerId, FailedStart]]"
"""The latest failed start of each service that is failing somewhere, and on which worker."""


async def failing_on(client: "SessionClient", worker_id: str | None = None) -> Failing:
    """Return the services that are failing on a worker, or on any. Workers of an old version report none."""
    from schemas.errors import UnknownType  # noqa: PLC0415 - commands import what is heavy when they run

    try:
        figures = (await client.worker_figures()).workers
    except UnknownType:
        return {}
    found = [
        (failed.at, name, one.worker_id, failed)
        for one in figures
        if worker_id in (None, one.worker_id)
        for name, failed in one.failing.items()
    ]
    return {name: (worker, failed) for _, name, worker, failed in sorted(found, key=lambda one: one[0])}


def tell_failing(failing: Failing) -> None:
    """Print what is known about each failing service, and what to do."""
    for name, (worker, failed) in sorted(failing.items()):
        say(f"{name}: the latest start failed {age(failed.at)} ago with {failed.code}, on {worker}.", style="yellow")
    if failing:
        say("'mcp-sessions services check' tries the services on this machine.", style="dim")


def with_failing(listed: "ServicesResult | WorkerInfo", failing: Failing) -> dict[str, Any]:
    """Return the JSON of a list of services, with the last failed start of each failing one."""
    told: dict[str, Any] = listed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for name, service in told["services"].items():
        if name in failing:
            worker, failed = failing[name]
            service["failing"] = {**failed.model_dump(mode="json"), "worker_id": worker}
    return told
