"""``python -m docs.generate [--check]``: exit code 1 when ``--check`` finds a file that is outdated."""

import sys
from pathlib import Path

from docs.generate import ROOT, outdated


def main(arguments: list[str]) -> int:
    """Write the files anew, or with ``--check`` only look."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    found = list(outdated())
    for path, text in found:
        if not check:
            _write(path, text)
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is outdated' if check else 'renewed'}\n")
    return 1 if check and found else 0


def _write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
