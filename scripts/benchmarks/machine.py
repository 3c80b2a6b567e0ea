"""What it is measured on."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import aiormq
import psutil

from scripts.benchmarks import peer
from scripts.benchmarks.options import Options
from scripts.benchmarks.report import Machine

PACKAGES = ("aio-pika", "mcp", "pydantic", "uvloop")


async def this_machine(options: Options) -> Machine:
    """This machine, with the broker and what is compared."""
    connection = await aiormq.connect(os.environ["AMQP_URL"])
    told = connection.server_properties.get("version", "?")
    await connection.close()
    versions = {name: version(name) for name in PACKAGES}
    if options.peer is not None:
        versions["signalwire-sdk"] = peer.version(options.peer)
    return Machine(
        cores=os.cpu_count() or 1,
        processor=_processor(),
        memory_gb=round(psutil.virtual_memory().total / (1 << 30)),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        rabbitmq=told.decode() if isinstance(told, bytes) else str(told),
        load_before=round(os.getloadavg()[0], 2),
        versions=versions,
    )


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
