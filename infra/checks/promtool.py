"""Finds Prometheus's own checker on this machine, or takes it out of Debian's package without installing that."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.checks.common import ROOT, note

CACHE = ROOT / ".tools" / "promtool"
DOWNLOAD_TIMEOUT_S = 120


def find_promtool() -> Path | None:
    """Return the path of ``promtool``, or None after a note."""
    if found := shutil.which("promtool"):
        return Path(found)
    if not CACHE.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        _take_from_package(CACHE)
    if not CACHE.exists():
        note("promtool is missing, so the alerts were read but not run (Debian: apt-get install prometheus)")
        return None
    return CACHE


def _take_from_package(target: Path) -> None:
    """Extract promtool from Debian's package, which would install a service and its dependencies."""
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
