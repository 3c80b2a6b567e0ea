"""A process that imports the simulation once and forks a process of it for each run. Importing takes a second.

Each line that it hears is a JSON array: the options of a run. It answers with a line when the run has ended, a JSON
array of its exit code and of what it has printed.
"""

import json
import os
import sys
import tempfile

from tests.simulation.__main__ import leave, main


def serve() -> None:
    """Run what each line of standard input says, one after the other, until it ends. Returns in no fork."""
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            if (pid := os.fork()) == 0:
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                sys.argv[1:] = json.loads(line)
                leave(main())
            _, status = os.waitpid(pid, 0)
            printed.seek(0)
            print(json.dumps([os.waitstatus_to_exitcode(status), printed.read()]), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
