"""Checks the files for Heroku, the image, Compose and systemd."""

import configparser
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from infra.checks.common import ROOT, Faults, complaints, note, read_yaml, tool, works

UNIT = "mcp-sessions@.service"
GATEWAY_UNIT = "mcp-sessions-gateway.service"
BRIDGE_UNIT = "mcp-sessions-bridge.service"
PROCFILE = ["worker: python -m consumer", "web: mcp-sessions ${WEB_PROCESS:-worker --gateway}"]
"""The expected Procfile. A web dyno alone runs worker and gateway; beside worker dynos it is the gateway."""


def heroku(root: Path = ROOT) -> Faults:
    """Check that Heroku runs a worker, with a broker and with existing settings."""
    procfile = (root / "Procfile").read_text()
    if procfile.splitlines() != PROCFILE:
        yield f"Procfile: says {procfile.strip()!r}"
    app = json.loads((root / "app.json").read_text())
    if not any(addon.get("plan", "").startswith("cloudamqp") for addon in app.get("addons", [])):
        yield "app.json: has no CloudAMQP add-on, so there is no broker"
    if app.get("formation", {}).get("web", {}).get("quantity", 0) < 1:
        yield "app.json: its formation starts no worker"
    if not re.fullmatch(r"3\.\d+\n", (root / ".python-version").read_text()):
        yield ".python-version: must be a major and a minor version, so that patches come by themselves"
    if (root / "requirements.txt").read_text().splitlines()[-1:] != ["-r requirements-run.lock"]:
        yield "requirements.txt: must install the versions of the lock"
    if "--no-deps --no-build-isolation ." not in (root / "bin" / "post_compile").read_text():
        yield "bin/post_compile: must install this package"


def dockerfile(root: Path = ROOT) -> Faults:
    """Check that the image runs the worker, not as root, on the tested Python, with the pinned versions."""
    path = root / "infra" / "Dockerfile"
    if hadolint := tool("hadolint"):
        yield from complaints("infra/Dockerfile", hadolint, "--no-color", path)
    else:
        note("hadolint is missing, so the Dockerfile was not linted")
    text = path.read_text()
    python = (root / ".python-version").read_text().strip()
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    if bases != {"${PYTHON}"} or not re.search(rf"^ARG PYTHON=python:{python}-slim(@|$)", text, re.MULTILINE):
        yield f"infra/Dockerfile: must be FROM python:{python}-slim, as .python-version says"
    wanted = (
        r"^USER (?!root|0$)",
        r"^CMD \[\"python\", \"-m\", \"consumer\"\]",
        r"--require-hashes -r requirements-run\.lock",
        r"cyclonedx-py environment",
        "^HEALTHCHECK",
    )
    for needed in wanted:
        if not re.search(needed, text, re.MULTILINE):
            yield f"infra/Dockerfile: must contain {needed}"
    ignored = (root / "infra" / "Dockerfile.dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            if f"!{name}" not in ignored or not (root / name).exists():
                yield f"infra/Dockerfile: copies {name}, which is not there or is in Dockerfile.dockerignore"


def compose(root: Path = ROOT) -> Faults:
    """Check that the Compose file is valid, and has what the broker helper and the worker need."""
    name = "infra/compose.yaml"
    path = root / name
    schema = ("check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    yield from complaints(name, sys.executable, "-m", *schema, path)
    if works("docker", "compose", "version"):
        yield from complaints(name, "docker", "compose", "--file", path, "config", "--quiet")
    services = read_yaml(path)["services"]
    if "${MCP_BROKER_PORT:-5672}:5672" not in " ".join(services["rabbitmq"]["ports"]):
        yield f"{name}: the broker helper cannot choose the port of rabbitmq"
    if "AMQP_URL" not in services["worker"]["environment"]:
        yield f"{name}: the worker gets no AMQP_URL"
    if (
        services["gateway"]["command"] != ["mcp-sessions", "gateway"]
        or "AMQP_URL" not in services["gateway"]["environment"]
    ):
        yield f"{name}: the service gateway runs no gateway, or has no broker"
    if not all(port.startswith("127.0.0.1:") for port in services["gateway"]["ports"]):
        yield f"{name}: the gateway has a published password, and can be reached from other machines"
    if services["worker"]["deploy"]["replicas"] < 2:
        yield f"{name}: there is only one worker, which cannot hand its calls over"
    for service, told in services.items():
        for volume in told.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith(".") and not (path.parent / source).exists():
                yield f"{name}: {service} mounts {source}, which is not there"


def unit(root: Path = ROOT, name: str = UNIT) -> configparser.SectionProxy:
    """Return the section ``[Service]`` of a unit. Of a repeated option, the last one counts."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(root / "infra" / "systemd" / name)
    return parser["Service"]


def systemd(root: Path = ROOT) -> Faults:
    """Check that systemd can read the units, and that a stop signals the worker first."""
    name = f"infra/systemd/{UNIT}"
    service = unit(root)
    program, _, arguments = service["ExecStart"].partition(" ")
    if arguments != "-m consumer":
        yield f"{name}: starts no worker, but {service['ExecStart']!r}"
    if service["KillMode"] != "mixed":
        yield f"{name}: SIGTERM must reach the worker alone, which ends its MCP servers itself"
    others = {}
    for file, wanted in ((GATEWAY_UNIT, "gateway"), (BRIDGE_UNIT, "bridge asterisk")):
        others[file], _, command = unit(root, file)["ExecStart"].partition(" ")
        if command != wanted:
            yield f"infra/systemd/{file}: starts no {wanted.partition(' ')[0]}, but {others[file]} {command}"
    if not shutil.which("systemd-analyze"):
        note("systemd-analyze is missing, so the units were not verified")
        return
    for file, starts in ((UNIT, program), *others.items()):
        yield from _analysed(root, file, starts)


def _analysed(root: Path, file: str, program: str) -> Faults:
    name = f"infra/systemd/{file}"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file  # with a program that is here
        copy.write_text((root / name).read_text().replace(f"ExecStart={program}", f"ExecStart={sys.executable}"))
        yield from complaints(name, "systemd-analyze", "verify", "--man=no", copy)
        yield from complaints(
            name, "systemd-analyze", "security", "--offline=yes", "--threshold=50", "--no-pager", copy
        )
