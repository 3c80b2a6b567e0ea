"""``python -m docs.generate [--check]``: exit code 1 when ``--check`` finds a file that is outdated."""

import sys

from docs.generate import ROOT, outdated, renew


def main(arguments: list[str]) -> int:
    """Write the files anew, or with ``--check`` only look."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    found = [path for path, _ in outdated()] if check else renew()
    for path in found:
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is outdated' if check else 'renewed'}\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
