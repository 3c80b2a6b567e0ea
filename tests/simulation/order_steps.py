"""What orders of events are written with: steps at a moment of the protocol, and conditions that many have."""

from typing import Any

from tests.simulation.world.plan import Conditions, Step

ALONE = Conditions(workers=1, late=0.0)
SIX_CALLS: dict[str, tuple[Step, ...]] = {
    f"c{number}": ((1.0 + 0.05 * number, "start", {"to": "1"}),) for number in range(6)
}


def aim(moment: str, do: str, **more: Any) -> Step:
    """Return the step that does something at a moment; see ``world.aims``."""
    given = {"skip": 0, "delay": 0.0, "before": False, "whose": "its", "again": None} | more
    return 0.0, "aim", {"moment": moment, "do": do, **given}
