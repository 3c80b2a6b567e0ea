"""Exit codes of commands.

::

    0    done
    1    the answer is an error, or nothing has the id: its code and message are on stderr (with --json they are
         JSON on stdout)
    2    wrong usage or configuration
    3    the broker cannot be reached, or refuses the connection
    130  Ctrl-C
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command. ``worker`` has further ones."""

    OK = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130
