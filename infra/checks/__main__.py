"""``python -m infra.checks``: run all checks."""

import sys

from infra.checks import CHECKS


def main() -> int:
    """Print all faults. Return 1 if there are any."""
    faults = [fault for check in CHECKS for fault in check()]
    print("\n".join(faults) or f"{len(CHECKS)} checks of files: nothing to complain about")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
