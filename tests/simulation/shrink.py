"""Making a failing plan smaller: calls and faults are left out as long as the same thing goes wrong."""

from collections.abc import Callable

from tests.simulation.run import Outcome
from tests.simulation.world.plan import Plan


def shrunk(failing: Outcome, again: Callable[[Plan], Outcome], *, most: int = 200) -> Outcome:
    """The smallest failing plan that was found in ``most`` attempts."""
    best, attempts = failing, 0

    def fails(plan: Plan) -> bool:
        nonlocal best, attempts
        attempts += 1
        outcome = again(plan)
        if outcome.kind != failing.kind:
            return False
        best = outcome
        return True

    size = max(1, len(best.plan.calls) // 2)
    while size and attempts < most:
        names = list(best.plan.calls)
        for start in range(0, len(names), size):
            if attempts >= most:
                break
            fails(best.plan.without_calls(set(names[start : start + size])))
        size //= 2
    number = len(best.plan.faults) - 1
    while number >= 0 and attempts < most:
        fails(best.plan.without_faults({number}))
        number -= 1
    return best
