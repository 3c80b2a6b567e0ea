"""Lengths of files, the lock, and the scripts."""

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra.checks.common import ROOT, Faults

MAX_LINES = 500
WRITTEN_BY_HAND = {".py", ".toml", ".yaml", ".yml", ".sh", ".cfg", ".service", ""}


def files_too_long(root: Path = ROOT) -> Faults:
    """Code that nobody wants to read any more; a reference is as long as what it refers to."""
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
    """Every dependency is pinned in the lock to a version that it allows, and the lock tells of no machine."""
    text = (root / "requirements.lock").read_text()
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"://|^\s*-|\s@\s|(^|\s)/", line.partition("#")[0]):
            yield f"requirements.lock:{number}: names a place to fetch from"
    pins = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"] + project["optional-dependencies"]["dev"]):
        pinned = pins.get(canonicalize_name(wanted.name))
        if pinned is None or not wanted.specifier.contains(pinned, prereleases=True):
            yield f"requirements.lock: has {pinned or 'no pin'} for {wanted}; its first lines say how it is made"


def scripts(root: Path = ROOT) -> Faults:
    """Every script can be run, and bash can read it."""
    found = [path for path in (root / "scripts").iterdir() if path.is_file() and not path.suffix]
    for path in [*found, root / ".ci" / "run", root / "infra" / "rabbitmq_of_debian"]:
        if not path.stat().st_mode & 0o100:
            yield f"{path.relative_to(root)}: is not executable"
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{path.relative_to(root)}: {done.stderr.strip()}"
