"""``python -m infra.client_wheel [FOLDER]``: builds the wheel for users of the client, from the same source.

An application has packages of its own, perhaps ``schemas``, perhaps ``consumer``. So the wheel has one package,
``mcp_sessions``: what ``consumer.client`` needs of this repository, moved below it and importing itself from there. The
same source gives the same bytes. It needs some of the workers' dependencies; see ``REQUIREMENTS``.
"""

import ast
import base64
import hashlib
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
ENTRY: Final = "consumer.client"
"""The package whose ``__all__`` is what users import from ``mcp_sessions``."""

MOVED: Final = {"consumer": "mcp_sessions._consumer", "schemas": "mcp_sessions.schemas"}
REQUIREMENTS: Final = {
    "aio-pika": {"aio_pika", "aiormq", "pamqp", "yarl"},
    "opentelemetry-api": {"opentelemetry"},
    "pydantic": {"pydantic", "pydantic_core"},
    "pyjwt": {"jwt", "cryptography"},
    "structlog": {"structlog"},
    "tenacity": {"tenacity"},
}
"""The dependencies of the client, with the packages that each of them provides."""

_IMPORT = re.compile(rf"^(\s*(?:from|import) )({'|'.join(MOVED)})(?=[ .])", re.MULTILINE)
_WHEEL = b"""\
Wheel-Version: 1.0
Generator: infra.client_wheel
Root-Is-Purelib: true
Tag: py3-none-any
"""
_THEN = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the wheel: the earliest that a zip file allows."""


def main(arguments: list[str]) -> int:
    """Build the wheel into a folder (default: ``build``), and print its path."""
    if len(arguments) > 1 or any(one.startswith("-") for one in arguments):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    print(build(Path(*arguments) if arguments else ROOT / "build"))
    return 0


def build(folder: Path) -> Path:
    """Write the wheel into ``folder``, which is created if necessary. Return its path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = f"{project['name']}-client", project["version"]
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    wanted = [one for one in project["dependencies"] if re.split(r"[<>=~;\[ ]", one)[0] in REQUIREMENTS]
    metadata = [
        "Metadata-Version: 2.4",
        f"Name: {name}",
        f"Version: {version}",
        "Summary: The client of mcp-sessions, for asyncio and for synchronous code",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {one}" for one in wanted),
    ]
    files = {
        **{path: text.encode() for path, text in sources().items()},
        f"{info}/METADATA": "\n".join([*metadata, ""]).encode(),
        f"{info}/WHEEL": _WHEEL,
        f"{info}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    record = [f"{path},sha256={_digest(body)},{len(body)}" for path, body in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in files.items():
            archive.writestr(_entry(path), body)
    return wheel


def unpack(folder: Path) -> None:
    """Write the package into ``folder``, so that it can be imported without being installed."""
    for path, text in sources().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def sources() -> Mapping[str, str]:
    """Return the files of the package, by their paths in it.

    Raises:
        LookupError: the client imports a package that is not in ``REQUIREMENTS``.
    """
    files = {"mcp_sessions/__init__.py": _public(), "mcp_sessions/py.typed": ""}
    foreign: set[str] = set()
    for module in sorted(_needed()):
        path = _path(module)
        text = path.read_text(encoding="utf-8")
        foreign |= {one.partition(".")[0] for one in _imports(text)} - set(MOVED) - sys.stdlib_module_names
        room, _, rest = path.relative_to(ROOT).as_posix().partition("/")
        files[f"{MOVED[room].replace('.', '/')}/{rest}"] = _IMPORT.sub(lambda found: found[1] + MOVED[found[2]], text)
    if missing := foreign - set().union(*REQUIREMENTS.values()):
        raise LookupError(f"the client imports {', '.join(sorted(missing))}, which its wheel does not require")
    return files


def _public() -> str:
    """Return the text of ``mcp_sessions/__init__.py``: the public names, and the version."""
    tree = ast.parse(_path(ENTRY).read_text(encoding="utf-8"))
    (listed,) = (one.value for one in tree.body if isinstance(one, ast.Assign) and _is_all(one))
    names = sorted(ast.literal_eval(listed))
    return "\n".join(
        [
            '"""The client of mcp-sessions: ``SessionClient`` for asyncio, and ``SyncSessionClient``."""',
            "",
            "from mcp_sessions._consumer import __version__",
            f"from {MOVED['consumer']}.client import (",
            *(f"    {name}," for name in names),
            ")",
            "",
            "__all__ = [",
            *(f'    "{name}",' for name in ["__version__", *names]),
            "]",
            "",
        ]
    )


def _is_all(assigned: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in assigned.targets)


def _needed() -> set[str]:
    """Return the modules of this repository that the entry imports, directly or not, and their packages."""
    needed: set[str] = set()
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        if module in needed or not _path(module).exists():
            continue
        needed.add(module)
        imported = _imports(_path(module).read_text(encoding="utf-8"))
        waiting += [one for one in imported if one.partition(".")[0] in MOVED]
        waiting += [module.rpartition(".")[0]] if "." in module else []
    return needed


def _imports(text: str) -> Iterator[str]:
    """Return what a module imports: modules, and names that may be modules themselves."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _entry(path: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, _THEN)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _digest(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
