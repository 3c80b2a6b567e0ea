"""What no other tool looks at: lengths of files, and what operators and package managers read.

``python infra/checks.py`` prints what is wrong and exits with 1, or says what was checked. Tests call the same
functions. Docker Compose checks its own file where it is installed, AsyncAPI's own parser our document where npm is.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from consumer.settings.environment import PREFIX, variables
from infra import npm

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 500
WRITTEN_BY_HAND = {".py", ".toml", ".yaml", ".yml", ".sh", ".cfg", ""}

Faults = Iterator[str]


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


def heroku(root: Path = ROOT) -> Faults:
    """The worker is what the Procfile starts, with a broker and settings that exist."""
    procfile = (root / "Procfile").read_text()
    if procfile.strip() != "worker: python -m consumer":
        yield f"Procfile: says {procfile.strip()!r}"
    app = json.loads((root / "app.json").read_text())
    if not any(addon.get("plan", "").startswith("cloudamqp") for addon in app.get("addons", [])):
        yield "app.json: has no CloudAMQP add-on, so there is no broker"
    if app.get("formation", {}).get("worker", {}).get("quantity", 0) < 1:
        yield "app.json: its formation starts no worker"
    if not re.fullmatch(r"3\.\d+\n", (root / ".python-version").read_text()):
        yield ".python-version: must be a major and a minor version, so that patches come by themselves"
    if (root / "requirements.txt").read_text().splitlines()[-2:] != ["-c requirements.lock", "."]:
        yield "requirements.txt: must install this package at the versions of the lock"


def variables_that_exist(root: Path = ROOT) -> Faults:
    """Every ``MCP_SESSIONS_`` variable in a file of operators is a setting."""
    known = {*variables(), "MCP_SESSIONS_CONFIG"}
    for name in ("app.json", "infra/compose.yaml", "infra/Dockerfile"):
        for variable in sorted(set(re.findall(rf"{PREFIX}\w+", (root / name).read_text())) - known):
            yield f"{name}: there is no setting {variable}"


def dockerfile(root: Path = ROOT) -> Faults:
    """The image runs the worker, not as root, on the Python that the tests run on, with the pinned versions."""
    text = (root / "infra" / "Dockerfile").read_text()
    python = (root / ".python-version").read_text().strip()
    if set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) != {f"python:{python}-slim"}:
        yield f"infra/Dockerfile: must be FROM python:{python}-slim, as .python-version says"
    for needed in (r"^USER (?!root)", r"^CMD \[\"python\", \"-m\", \"consumer\"\]", r"-c requirements\.lock"):
        if not re.search(needed, text, re.MULTILINE):
            yield f"infra/Dockerfile: has nothing like {needed}"
    ignored = (root / "infra" / "Dockerfile.dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            if f"!{name}" not in ignored or not (root / name).exists():
                yield f"infra/Dockerfile: copies {name}, which is not there or is in Dockerfile.dockerignore"


def compose(root: Path = ROOT) -> Faults:
    """Compose takes its file; without Compose only what the broker helper and the worker rely on is looked at."""
    path = root / "infra" / "compose.yaml"
    if _works("docker", "compose", "version"):
        command = ["docker", "compose", "--file", str(path), "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"infra/compose.yaml: {done.stderr.strip()}"
    text = path.read_text()
    if "\t" in text:
        yield "infra/compose.yaml: has a tab"
    for needed in (r"^  rabbitmq:$", r"^  worker:$", r"\$\{MCP_BROKER_PORT:-5672\}:5672", r"^      AMQP_URL: "):
        if not re.search(needed, text, re.MULTILINE):
            yield f"infra/compose.yaml: has nothing like {needed}"


def _works(*command: str) -> bool:
    return bool(shutil.which(command[0])) and not subprocess.run(command, capture_output=True, check=False).returncode


def scripts(root: Path = ROOT) -> Faults:
    """Every script can be run, and bash can read it."""
    found = [path for path in (root / "scripts").iterdir() if path.is_file() and not path.suffix]
    for path in [*found, root / ".ci" / "run"]:
        if not path.stat().st_mode & 0o100:
            yield f"{path.relative_to(root)}: is not executable"
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{path.relative_to(root)}: {done.stderr.strip()}"


def asyncapi(root: Path = ROOT) -> Faults:
    """AsyncAPI's own parser takes our document; without npm it is told that nobody has asked it."""
    for name in ("package-lock.json", ".npmrc"):
        if re.search(r"resolved\"|registry=", (root / "infra" / "node" / name).read_text()):
            yield f"infra/node/{name}: names a place to fetch from"
    if not npm.available():
        print("docs/asyncapi.json: AsyncAPI's parser has not seen it, for want of npm", file=sys.stderr)
        return
    try:
        done = npm.run("asyncapi.mjs", str(root / "docs" / "asyncapi.json"))
    except npm.NpmFailed as error:
        yield f"infra/node: npm cannot install what package-lock.json says: {error}"
        return
    if done.returncode:
        yield from (f"docs/asyncapi.json: {line}" for line in (done.stdout or done.stderr).splitlines())


CHECKS: tuple[Callable[[], Faults], ...] = (
    files_too_long,
    lock,
    heroku,
    variables_that_exist,
    dockerfile,
    compose,
    scripts,
    asyncapi,
)


def main() -> int:
    """Run all checks."""
    faults = [fault for check in CHECKS for fault in check()]
    print("\n".join(faults) or f"{len(CHECKS)} checks of files: nothing to complain about")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
