"""Orders of events that are written down, not drawn: what leads to what cannot be guaranteed, by name.

They show what ``docs/concepts.md`` says of it, whatever a change does to the order that a seed leads to.
"""

from tests.simulation.world.plan import Conditions, Plan

_ALONE = Conditions(workers=1, late=0.0)

ORDERS = {
    "closed by command": Plan(
        seed=1,
        conditions=_ALONE,
        # Its recipe expires a second after the link has gone, and is two more on its way to the placer.
        calls={"c0": ((2.0, "start", {"to": "1"}), (7.5, "close", {}))},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 1.8}),
            (7.7, "kill", {"which": 0, "again": 0.5}),
        ),
    ),
}
