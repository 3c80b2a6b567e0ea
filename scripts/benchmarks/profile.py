"""What a worker spends its time on, from a sampling profile of ``py-spy`` (the extra ``bench``)."""

import asyncio
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.benchmarks.report import Share

RATE = 400
LEAST = 0.01
"""Parts with less than this are told together."""

PARTS: tuple[tuple[str, str], ...] = (
    # The first that fits the innermost frames decides, so system calls come before who makes them.
    (r"(processes/pipes\.py|processes/transport\.py)", "pipes of MCP servers"),
    (r"(forkserver\.py|spawn\.py|launcher\.py|sandbox\.py|subprocess\.py)", "starting and reaping processes"),
    (r"(shutil\.py|tempfile\.py|processes/environment\.py)", "folders of sessions"),
    (r"(structlog/|observability/|logging/)", "log lines"),
    (r"(pamqp/)", "AMQP frames, packing and unpacking"),
    (r"(aiormq/|aio_pika/)", "AMQP client"),
    (r"(pydantic|schemas/)", "messages, reading and writing"),
    (r"(/mcp/|mcp_types/|jsonschema|anyio/)", "SDK of MCP"),
    (r"(consumer/processes/)", "clients of MCP servers"),
    (r"(consumer/broker/)", "broker room"),
    (r"(consumer/calls/)", "placing and owning"),
    (r"(consumer/sessions/)", "session core"),
    (r"asyncio/streams\.py", "writing to the broker's socket"),
    (r"(concurrent/futures/|asyncio/threads\.py|threading\.py)", "threads: handing over, and waiting for the GIL"),
    (r"(asyncio/|uvloop|run_until_complete|selectors)", "event loop"),
)


def available() -> str | None:
    """Where ``py-spy`` is."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


@asynccontextmanager
async def of(pid: int, *, keep: Path | None) -> AsyncIterator[list[Share]]:
    """Profile a process meanwhile; the list is filled on exit. The stacks are kept in ``keep``."""
    shares: list[Share] = []
    program = available()
    assert program is not None, "asked for before"
    with tempfile.TemporaryDirectory(prefix="mcp-sessions-profile-") as folder:
        path = Path(folder, "stacks")
        process = await asyncio.create_subprocess_exec(
            *(program, "record", "--pid", str(pid), "--rate", str(RATE), "--format", "raw", "--output", str(path)),
            *("--full-filenames", "--nonblocking", "--duration", "600"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield shares
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)  # it writes what it has
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        shares += await asyncio.to_thread(_read_file, path, keep)


def _read_file(path: Path, keep: Path | None) -> list[Share]:
    """Nothing when there is no file: the process was not to be looked at, or had ended."""
    stacks = path.read_text() if path.exists() else ""
    if keep is not None:
        keep.write_text(stacks)
    return read(stacks)


def read(stacks: str) -> list[Share]:
    """The shares of the parts, the largest first; ``stacks`` are lines of frames from outside to inside and a count."""
    counted: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        if count.isdigit():
            counted[_part(frames.split(";"))] += int(count)
    total = counted.total()
    shares = [Share(part=part, share=round(count / total, 4)) for part, count in counted.most_common()]
    small = [one for one in shares if one.share < LEAST]
    told = [one for one in shares if one.share >= LEAST]
    return [*told, Share(part="the rest", share=round(sum(one.share for one in small), 4))] if small else told


def _part(frames: list[str]) -> str:
    """What the innermost frame that anybody knows belongs to."""
    for frame in reversed(frames):
        for pattern, part in PARTS:
            if re.search(pattern, frame):
                return part
    return "the rest"
