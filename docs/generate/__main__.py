"""``python -m docs.generate [--check]``: exit code 1 when ``--check`` finds a page that is outdated."""

import sys

from docs.generate import ROOT, outdated


def main(arguments: list[str]) -> int:
    """Write the pages anew, or with ``--check`` only look."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    found = list(outdated())
    for page, text in found:
        if not check:
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)} {'is outdated' if check else 'renewed'}\n")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
