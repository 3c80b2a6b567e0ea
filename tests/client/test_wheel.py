"""The client's wheel, in an environment as its users have: SignalWire's SDK, and packages of their own."""

import asyncio
import os
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from consumer.client import SessionClient
from infra import client_wheel
from tests.docs.blocks import blocks
from tests.docs.test_running import SERVICES, adapted
from tests.harness import WAIT, Cluster
from tests.programs import output_of
from tests.realservers.install import TIMEOUT, Unreachable, _run

GUIDE = "docs/guides/python.md"
SNIPPETS = [one for one in blocks(GUIDE) if one.language == "python"]
BESIDE = "signalwire-sdk==3.7.5"
TRIES = "httpx2>=2,<3"
"""What FastAPI's ``TestClient`` stands on, in the snippet of a web application."""
OWN = "the application's own"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel beside SignalWire's SDK."""
    folder = tmp_path_factory.mktemp("application")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    wheel = client_wheel.build(folder)
    command = [sys.executable, "-m", "pip", "--python", str(folder / "env" / "bin" / "python"), "install"]
    try:
        _run(
            "pip", [*command, "--quiet", "--no-compile", "--retries", "2", "--timeout", "20", str(wheel), BESIDE, TRIES]
        )
    except Unreachable as problem:
        pytest.skip(f"the wheel was tried in no environment of its own: {problem}")
    return folder / "env" / "bin" / "python"


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """An application that has packages with the names of this repository's."""
    for name in ("schemas", "consumer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"WHOSE = {OWN!r}\n")
    return tmp_path


async def says(python: Path, application: Path, program: str, **env: str) -> str:
    (application / "main.py").write_text(program)
    process = await asyncio.create_subprocess_exec(
        *(str(python), "main.py"),
        cwd=application,
        env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error", **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await output_of(process, 2 * WAIT)
    assert process.returncode == 0, told.decode()
    return told.decode()


@pytest.mark.timeout(TIMEOUT + 60)
async def test_the_snippets_of_the_guide_run_beside_packages_of_the_same_names(
    python: Path, application: Path, mcp: Cluster
):
    assert {"asyncio", "SyncSessionClient"} <= {word for one in SNIPPETS for word in one.text.replace("(", " ").split()}
    await mcp.start({"services": SERVICES})
    for snippet in SNIPPETS:
        own = "import consumer, schemas\n" + adapted(snippet.text, mcp) + "print(schemas.WHOSE, consumer.WHOSE)\n"
        told = await says(python, application, own)
        for words in (*snippet.says["prints"].split(", "), f"{OWN} {OWN}"):
            assert words in told, f"{snippet.where} does not print {words!r} but:\n{told}"


@pytest.mark.timeout(TIMEOUT + 60)
async def test_it_installs_one_package_and_little_else(python: Path, application: Path):
    program = """
import importlib.metadata as metadata
import importlib.util
import signalwire
import mcp_sessions

print(mcp_sessions.__version__, metadata.version("mcp-sessions-client"))
print(sorted({str(path.parts[0]) for path in metadata.files("mcp-sessions-client")} - {"mcp_sessions"}))
print([name for name in ("starlette", "mcp", "typer") for line in metadata.requires("mcp-sessions-client")
       if line.startswith(name)])
"""
    version, packages, unwanted = (await says(python, application, program)).splitlines()
    assert version.split()[0] == version.split()[1]
    assert packages == f"['mcp_sessions_client-{version.split()[0]}.dist-info']"
    assert unwanted == "[]"


def test_the_same_source_gives_the_same_bytes(tmp_path: Path):
    one, other = client_wheel.build(tmp_path / "one"), client_wheel.build(tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {
            "mcp_sessions",
            one.name.removesuffix("-py3-none-any.whl") + ".dist-info",
        }
        assert "mcp_sessions/py.typed" in archive.namelist()


def test_what_users_need_is_there_under_one_name():
    listed = client_wheel.sources()["mcp_sessions/__init__.py"]
    for name in (SessionClient.__name__, "SyncSessionClient", "SessionsError", "ClientError", "ToolNotFound"):
        assert f'    "{name}",' in listed
