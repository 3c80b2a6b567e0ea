"""Checks the lengths of files, the lock, and the scripts."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.checks.common import ROOT, Faults, note

MAX_LINES = 500
WRITTEN_BY_HAND = {".py", ".toml", ".yaml", ".yml", ".sh", ".cfg", ".service", ""}


def files_too_long(root: Path = ROOT) -> Faults:
    """Check the length of code files. A reference page may be as long as necessary."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = root / name
        if path.suffix in WRITTEN_BY_HAND and path.is_file():
            length = path.read_bytes().count(b"\n")
            if length > MAX_LINES:
                yield f"{name}: {length} lines; {MAX_LINES} are the most"


def lock(root: Path = ROOT) -> Faults:
    """Check that every dependency is pinned with hashes to an allowed version, and that no lock names a machine."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    yield from _locked(root / "requirements.lock", project["dependencies"] + extras["dev"])
    yield from _locked(root / "requirements-run.lock", project["dependencies"] + extras["build"] + extras["fast"])
    yield from _locked(root / "requirements-sbom.lock", ["cyclonedx-bom"])


def _locked(path: Path, wanted: list[str]) -> Faults:
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"://|^\s*-(?!-hash=sha256:)|\s@\s|(^|\s)/", line.partition("#")[0]):
            yield f"{path.name}:{number}: contains a download address"
    pins: dict[str, str] = {}
    for name, version, rest in re.findall(r"^([\w.-]+)==([^\s;]+)(.*(?:\n .*)*)", text, re.MULTILINE):
        pins[canonicalize_name(name)] = version
        if "--hash=sha256:" not in rest:
            yield f"{path.name}: {name} has no hash"
    for one in map(Requirement, wanted):
        pinned = pins.get(canonicalize_name(one.name))
        if pinned is None or not one.specifier.contains(pinned, prereleases=True):
            yield f"{path.name}: has {pinned or 'no pin'} for {one}; scripts/lock makes it"


ADVISORIES = 60
"""How long (s) asking for known vulnerabilities may take."""


def vulnerabilities(root: Path = ROOT) -> Faults:
    """Check that no installed runtime package has a known vulnerability, if the advisory service can be reached."""
    audit = Path(sys.executable).with_name("pip-audit")
    command: list[str | Path] = [
        audit,
        "--disable-pip",
        "--progress-spinner=off",
        "--timeout=10",
        "-r",
        root / "requirements-run.lock",
    ]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ADVISORIES)
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        note(f"known vulnerabilities were not checked: {type(error).__name__}")
        return
    unknown = "could not be audited" in asked.stdout + asked.stderr
    if asked.returncode and asked.stdout.strip() and not unknown:
        yield f"requirements-run.lock: pip-audit found\n{asked.stdout.strip()}"
    elif asked.returncode or unknown:
        note("known vulnerabilities were not checked: the advisory service of pip-audit cannot be reached")


def scripts(root: Path = ROOT) -> Faults:
    """Check that every script is executable, and that bash can parse it."""
    found = [path for path in (root / "scripts").iterdir() if path.is_file() and not path.suffix]
    others = (".ci/run", "infra/rabbitmq_of_debian", "infra/asterisk_of_debian")
    for path in [*found, *(root / other for other in others)]:
        if not path.stat().st_mode & 0o100:
            yield f"{path.relative_to(root)}: is not executable"
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{path.relative_to(root)}: {done.stderr.strip()}"
