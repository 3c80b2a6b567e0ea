"""SignalWire's SDK, in an environment of its own: installed once, never a dependency of ours."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.benchmarks import peer

Verdict = Callable[[str, str, str, str], bool]

_VALIDATOR = """
import json, sys
from signalwire.core.security.webhook_validator import validate_webhook_signature
for line in sys.stdin:
    print(json.dumps(validate_webhook_signature(*json.loads(line))), flush=True)
"""


def sdk_python() -> Path:
    """The Python that has the SDK; the test is left out where PyPI does not give it."""
    try:
        return peer.install()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        pytest.skip(f"signalwire-sdk could not be installed from PyPI: {error}")


@contextmanager
def validator(python: Path) -> Iterator[Verdict]:
    """The SDK's own verdict about a signature."""
    with subprocess.Popen(
        [python, "-c", _VALIDATOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def verdict(*case: str) -> bool:
            stdin.write(json.dumps(case) + "\n")
            stdin.flush()
            said: bool = json.loads(stdout.readline())
            return said

        try:
            yield verdict
        finally:
            stdin.close()
            process.wait(10)
