"""Reads a configuration file: TOML or JSON, with variables filled in, and with SignalWire's sections."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from consumer.settings.faults import ConfigurationError, Fault, KeyPath, dotted
from consumer.settings.gateway_settings import from_signalwire
from schemas.text import unknown_field

DEFAULT_FILE = "mcp-sessions.toml"
OURS = ("session", "services", "routes", "worker", "gateway", "asterisk")
SIGNALWIRES = ("server", "rate_limiting", "logging", "security")
"""Sections of SignalWire's ``config.json`` that have another name here."""
SIGNALWIRES_CERTIFICATE = Path("certs/server.pem")
"""Where SignalWire's gateway looks for a certificate with its key. If it is there, it serves HTTPS."""
_UNDERSTOOD = ("server", "rate_limiting", "logging")
"""Those sections whose settings have a meaning here."""

_VARIABLE = re.compile(r"\$\{([^}|]*)(?:\|([^}]*))?\}")
_NOT_OURS = {"security": "the gateway reads these from [gateway]: allowed_hosts, allowed_origins, tls_cert"}
"""Sections of SignalWire's gateway that have no meaning here, and why."""

Table = dict[str, Any]


def find_file(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """Return the file to read: the requested one, or the default one if it exists."""
    named = path or (Path(env["MCP_SESSIONS_CONFIG"]) if env.get("MCP_SESSIONS_CONFIG") else None)
    default = Path(DEFAULT_FILE)
    return named or (default if default.exists() else None)


def read_file(path: Path, env: Mapping[str, str]) -> Table:
    """Return the file's table.

    Raises:
        ConfigurationError: there is no such file, it cannot be read, or it is neither TOML nor JSON; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        named = "; MCP_SESSIONS_CONFIG names it" if env.get("MCP_SESSIONS_CONFIG") == str(path) else ""
        raise _useless(path, f"there is no such file{named}") from None
    except UnicodeError as error:
        raise _useless(path, "is not text in UTF-8: save it in this encoding") from error
    except OSError as error:
        raise _useless(path, f"cannot be read: {error.strerror or error}") from error
    is_json = path.suffix.lower() == ".json" or (path.suffix.lower() != ".toml" and text.lstrip().startswith("{"))
    try:
        table = json.loads(text) if is_json else tomllib.loads(text)
    except json.JSONDecodeError as error:
        raise _useless(path, f"is not JSON: {error.msg} (at line {error.lineno}, column {error.colno})") from error
    except tomllib.TOMLDecodeError as error:
        raise _useless(path, f"is not TOML: {error}") from error
    if not isinstance(table, dict):
        raise _useless(path, "must be a table of sections: {...}")
    return table


def _useless(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError([Fault(str(path), problem)])


def understood(
    table: Table, env: Mapping[str, str], fault: Callable[[Fault], None], file: Path
) -> tuple[Table, list[str], dict[KeyPath, str]]:
    """Return our part of a file's table, with ``${VARIABLE|default}`` filled in, and warnings about the rest.

    The format of SignalWire's gateway is ours with more sections. ``logging.level`` is our ``log_level``. A key without
    a meaning here is named in a warning and otherwise ignored, including variables in it. The last result has the key
    in the file of each setting that came from one of these sections.
    """
    warnings = [f"{key}: ignored; {why}" for key, why in _NOT_OURS.items() if key in table]
    for key in table:
        if key not in (*OURS, *SIGNALWIRES):
            fault(Fault(key, unknown_field(key, (*OURS, *_UNDERSTOOD))))
    ours = {key: _filled(table[key], env, (key,), fault) for key in OURS if key in table}
    written: dict[KeyPath, str] = {}
    if "logging" in table:
        warnings += _logging(_filled(table["logging"], env, ("logging",), fault), ours, written)
    if "server" in table or "rate_limiting" in table:
        theirs = {key: _filled(table.get(key), env, (key,), fault) for key in ("server", "rate_limiting")}
        warnings += _gateway(theirs["server"], theirs["rate_limiting"], ours, written, file)
    return ours, warnings, written


def _logging(section: Any, ours: Table, written: dict[KeyPath, str]) -> list[str]:
    """Copy the level into ``worker``, unless that has its own."""
    section = section if isinstance(section, dict) else {}
    worker = ours.setdefault("worker", {})
    if "level" in section and isinstance(worker, dict) and "log_level" not in worker:
        worker["log_level"] = section["level"]
        written["worker", "log_level"] = "logging.level"
    rest = [f"logging.{key}" for key in section if key != "level"]
    return [f"{', '.join(rest)}: ignored; logs go to standard error"] if rest else []


def _gateway(server: Any, rate_limiting: Any, ours: Table, written: dict[KeyPath, str], file: Path) -> list[str]:
    """Copy the settings of SignalWire's server into ``gateway``, unless that has its own."""
    taken, warnings, names = from_signalwire(server, rate_limiting)
    # It looks in its working directory, where its configuration is as well.
    places = (SIGNALWIRES_CERTIFICATE, file.parent / SIGNALWIRES_CERTIFICATE)
    if certificate := next((place for place in places if place.is_file()), None):
        taken["tls_cert"], names["tls_cert",] = str(certificate), str(SIGNALWIRES_CERTIFICATE)
    gateway = ours.setdefault("gateway", {})
    if isinstance(gateway, dict):
        written |= {("gateway", *path): name for path, name in names.items() if path[0] not in gateway}
        warnings += [
            f"{name}: ignored; gateway.{path[0]} counts"
            for path, name in names.items()
            if path[0] in gateway and _value(taken, path) != _value(gateway, path)
        ]
        ours["gateway"] = taken | gateway
    return warnings


def _value(table: Any, path: KeyPath) -> Any:
    for key in path:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _filled(value: Any, env: Mapping[str, str], keys: KeyPath, fault: Callable[[Fault], None]) -> Any:
    match value:
        case str():

            def fill(found: re.Match[str]) -> str:
                name, default = found[1].strip(), found[2]
                given = env.get(name, default)
                if given is None:
                    fault(
                        Fault(
                            dotted(keys),
                            f"${{{name}}} is not set in the environment; set it or write ${{{name}|default}}",
                        )
                    )
                return found[0] if given is None else given

            return _VARIABLE.sub(fill, value)
        case dict():
            return {key: _filled(item, env, (*keys, str(key)), fault) for key, item in value.items()}
        case list():
            return [_filled(item, env, (*keys, number), fault) for number, item in enumerate(value)]
    return value
