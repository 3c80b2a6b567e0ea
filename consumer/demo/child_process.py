"""Starts a worker or a gateway as a child process, for the demo and the benchmarks."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from consumer.settings.environment import PREFIX


async def start_program(
    folder: Path,
    name: str,
    configuration: Mapping[str, object],
    *command: str,
    settings: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    guard: Sequence[str] = (),
    own_session: bool = False,
) -> asyncio.subprocess.Process:
    """Start ``mcp-sessions <command>`` in ``folder``: ``<name>.json`` there configures it, ``<name>.log`` is its log.

    ``settings`` are environment variables with settings, added to ``environment`` or that of this process. ``guard`` is
    put before the command. With ``own_session``, a Ctrl-C does not reach the program.
    """
    path = folder / f"{name}.json"
    path.write_text(json.dumps(configuration, indent=2))
    given = {"CONFIG": str(path), "WORKER_ID": name, "LOG_FORMAT": "json", **settings}
    variables = {f"{PREFIX}{key}": value for key, value in given.items()}
    with log_of(folder, name).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(*guard, sys.executable, "-c", "from consumer.cli import main; main()", *command),
            env={**(os.environ if environment is None else environment), **variables},
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=own_session,
        )


def log_of(folder: Path, name: str) -> Path:
    """Return the path of the log of a program that was started this way."""
    return folder / f"{name}.log"
