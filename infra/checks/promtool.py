"""Prometheus's own checker: found on this machine, or taken out of Debian's package without installing that."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.checks.common import ROOT, note

CACHE = ROOT / ".tools" / "promtool"
DOWNLOAD_TIMEOUT_S = 120


def find_promtool() -> Path | None:
    """``promtool``, or None after a word about that."""
    if found := shutil.which("promtool"):
        return Path(found)
    if not CACHE.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        _take_from_package(CACHE)
    if not CACHE.exists():
        note("promtool is not here, so the alerts were read and not tried (Debian: apt-get install prometheus)")
        return None
    return CACHE


def _take_from_package(target: Path) -> None:
    """The package is 19 MB, and would bring a service and what it depends on; one file of it is all that is needed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["apt-get", "-qq", "download", "prometheus"]
        try:
            fetched = subprocess.run(command, cwd=folder, capture_output=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
            if fetched.returncode:  # no package lists yet, or old ones
                subprocess.run(
                    ["apt-get", "-qq", "update"], capture_output=True, timeout=DOWNLOAD_TIMEOUT_S, check=True
                )
                subprocess.run(command, cwd=folder, capture_output=True, timeout=DOWNLOAD_TIMEOUT_S, check=True)
            (package,) = folder.glob("prometheus_*.deb")
            subprocess.run(["dpkg-deb", "--extract", package, folder / "out"], capture_output=True, check=True)
            target.parent.mkdir(exist_ok=True)
            arriving = target.with_name(f"promtool-{os.getpid()}")  # another check may be doing the same
            shutil.copy(folder / "out" / "usr" / "bin" / "promtool", arriving)
            arriving.replace(target)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            note(f"taking promtool out of Debian's package failed: {error}")
