"""The command line: ``mcp-sessions``.

``command`` contains what all commands share, ``screen`` the output for people, and ``failures`` the error messages.
Every other module is a command or a group of commands.
"""

import io
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (default: that of the process) and exit with its code."""
    from consumer.cli.app import app  # noqa: PLC0415 - importing this package costs nothing

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the locale lacks is no reason to fail
    app(args=None if arguments is None else list(arguments), prog_name="mcp-sessions")
