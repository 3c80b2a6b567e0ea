"""Finds a RabbitMQ if no URL is given: on this machine, with its package manager, or with Docker Compose."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from infra.loopback import LOOPBACK, BrokerFailed, free_port, speaks_amqp

COMPOSE_FILE = Path(__file__).with_name("compose.yaml")
PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/home/linuxbrew/.linuxbrew/sbin")
OLDEST = (3, 10)
"""The oldest supported version: the first whose quorum queues dead-letter at least once."""

INSTALL_TIMEOUT_S = 900

# The packages of Debian and Ubuntu start a system service; the policy keeps them from it. A policy that is there stays.
APT = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\\nexit 101\\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install -y --no-install-recommends rabbitmq-server
if [ -d /run/systemd/system ]; then systemctl --quiet disable rabbitmq-server || true; fi
"""


def say(sentence: str) -> None:
    """Print a sentence on standard error, because standard output belongs to the command."""
    print(f"broker: {sentence}", file=sys.stderr, flush=True)


def version_of(server: Path) -> tuple[int, ...] | None:
    """Return the version of an installation, from the folder of its core plugin; None if the layout is unknown."""
    for plugin in server.resolve().parents[1].glob("plugins/rabbit-[0-9]*"):
        found = re.match(r"rabbit-(\d+)\.(\d+)\.(\d+)", plugin.name)
        if found:
            return tuple(int(part) for part in found.groups())
    return None


def find_server() -> Path | None:
    """Return the start script of an installed RabbitMQ that is new enough.

    ``RABBITMQ_SERVER`` names one that is not on the PATH, to test against another version. The script of that name in
    ``/usr/sbin`` is the packages' wrapper, which only root and rabbitmq can use. The script that it wraps works for all
    users.
    """
    named = os.environ.get("RABBITMQ_SERVER")
    path = os.pathsep.join((os.environ.get("PATH", ""), *PLACES))
    found = named or shutil.which("rabbitmq-server", path=path)
    if not found:
        return None
    server = Path(found)
    wrapped = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if not named and server.parent in (Path("/usr/sbin"), Path("/sbin")) and wrapped.exists():
        server = wrapped
    version = version_of(server)
    if version and version < OLDEST:
        say(f"{found} is RabbitMQ {'.'.join(map(str, version))}, at least 3.10 is needed, so it is not used")
        return None
    return server


def install_server() -> Path | None:
    """Install RabbitMQ with the system's package manager, without starting it; None if that is not possible."""
    for command in _installers():
        say(f"installing RabbitMQ: {command[-1] if command[-1] != APT else 'apt-get install rabbitmq-server'}")
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=INSTALL_TIMEOUT_S, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            say(f"that failed: {error}")
        else:
            return find_server()
    return None


def _installers() -> Iterator[list[str]]:
    if shutil.which("apt-get"):
        as_root: list[str] | None = [] if os.geteuid() == 0 else _sudo()
        if as_root is not None and _apt_has_it(as_root):
            yield [*as_root, "/bin/sh", "-c", APT]
    if shutil.which("brew"):
        yield ["brew", "install", "rabbitmq"]


def _sudo() -> list[str] | None:
    works = (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    )
    return ["sudo", "-n"] if works else None


def _apt_has_it(as_root: list[str]) -> bool:
    subprocess.run([*as_root, "apt-get", "-qq", "update"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    asked = subprocess.run(["apt-cache", "policy", "rabbitmq-server"], capture_output=True, text=True, check=False)
    found = re.search(r"Candidate: (?:\d+:)?(\d+)\.(\d+)", asked.stdout)
    return bool(found and (int(found[1]), int(found[2])) >= OLDEST)


@contextlib.contextmanager
def compose_broker(start_timeout: float = 180.0) -> Iterator[str | None]:
    """Return the URL of a broker in a container, which is removed on exit; None without Docker Compose."""
    port = free_port()
    ports = {"MCP_BROKER_PORT": str(port), "MCP_MANAGEMENT_PORT": str(free_port())}
    compose = ["docker", "compose", "-p", f"mcp-sessions-{secrets.token_hex(4)}", "-f", str(COMPOSE_FILE)]
    environment = {**os.environ, **ports}
    if not shutil.which("docker") or any(
        subprocess.run(probe, capture_output=True, check=False).returncode
        for probe in (["docker", "info"], ["docker", "compose", "version"])
    ):
        yield None
        return
    say(f"starting RabbitMQ with Docker Compose from {COMPOSE_FILE.relative_to(COMPOSE_FILE.parents[1])}")
    try:
        subprocess.run([*compose, "up", "--detach", "rabbitmq"], env=environment, stdout=sys.stderr, check=True)
        deadline = time.monotonic() + start_timeout
        while not speaks_amqp(port):
            if time.monotonic() > deadline:
                raise BrokerFailed(f"the container did not answer within {start_timeout:g} s")
            time.sleep(0.2)
        yield f"amqp://guest:guest@{LOOPBACK}:{port}/"
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=environment, stdout=sys.stderr, check=False)
