"""Reads everything, says something on stderr, never answers; ignores SIGTERM and the end of stdin."""

import signal
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("still loading the model ...", file=sys.stderr, flush=True)  # noqa: T201
while True:
    sys.stdin.readline()
    time.sleep(0.01)
