"""What the checks share."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]

Faults = Iterator[str]
"""Sentences about what is wrong, each beginning with the file."""


def note(sentence: str) -> None:
    """Print that something could not be checked here, which is no fault."""
    print(f"checks: {sentence}", file=sys.stderr)


def complaints(name: str, *command: str | Path) -> Faults:
    """Yield the output of a tool about a file that it rejects. ``name`` is our name for the file."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"{name}: {(done.stderr.strip() + chr(10) + done.stdout.strip()).strip()}"


def works(*command: str) -> bool:
    """Return whether a tool exists and runs."""
    return bool(shutil.which(command[0])) and not subprocess.run(command, capture_output=True, check=False).returncode


def tool(name: str) -> str | None:
    """Return a program, from the environment of this Python or the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def read_yaml(path: Path) -> Any:
    """Return the single document of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def seconds(duration: str | int) -> float:
    """Parse a duration of Compose or systemd: ``30s``, ``2m``, or a bare number of seconds."""
    text = str(duration).strip()
    units = {"s": 1, "m": 60, "h": 3600}
    return float(text[:-1]) * units[text[-1]] if text[-1] in units else float(text)
