"""``MCP_SESSIONS_<NAME>``: any setting of ``[session]`` and ``[worker]``, which overrides the file.

Those of ``[gateway]`` are ``MCP_SESSIONS_GATEWAY_<NAME>``, those of ``[asterisk]`` ``MCP_SESSIONS_ASTERISK_<NAME>``.
``PORT``, which platforms set, is the gateway's port if no other setting names one.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from consumer.settings.asterisk_settings import AsteriskSettings
from consumer.settings.faults import Fault, KeyPath
from consumer.settings.files import Table
from consumer.settings.gateway_settings import GatewaySettings
from consumer.settings.models import SessionSettings, WorkerSettings
from schemas.text import unknown_field

PREFIX = "MCP_SESSIONS_"
NOT_SETTINGS = ("MCP_SESSIONS_CONFIG", "MCP_SESSIONS_WORKER")
"""Variables with our prefix that are no settings: the path of the file, and the mark of started processes."""

_AS_JSON = ("call_exchanges", "services", "routes", "tokens", "rate_limits", "webhooks")


def variables() -> dict[str, KeyPath]:
    """Return every variable with the setting that it sets."""
    sections: dict[str, type[BaseModel]] = {"session": SessionSettings, "worker": WorkerSettings}
    paths: list[KeyPath] = [(section, name) for section, model in sections.items() for name in model.model_fields]
    ours = {f"{PREFIX}{str(keys[-1]).upper()}": keys for keys in [*paths, ("services",), ("routes",)]}
    named: dict[str, type[BaseModel]] = {"gateway": GatewaySettings, "asterisk": AsteriskSettings}
    return ours | {
        f"{PREFIX}{section.upper()}_{name.upper()}": (section, name)
        for section, model in named.items()
        for name in model.model_fields
    }


def apply_environment(table: Table, env: Mapping[str, str], fault: Callable[[Fault], None]) -> dict[KeyPath, str]:
    """Write the settings in the environment into ``table``. Return the variable of each setting.

    A variable that is empty counts as not set. A list or table replaces that of the file as a whole.
    """
    known = variables()
    written: dict[KeyPath, str] = {}
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or not env[name]:
            continue
        keys = known.get(name)
        if keys is None:
            fault(Fault(name, unknown_field(name, [*known, NOT_SETTINGS[0]], PREFIX)))
            continue
        value: Any = env[name]
        if keys[-1] in _AS_JSON:
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                fault(Fault(name, f"is not JSON: {error.msg} (at column {error.pos + 1})"))
                continue
        if len(keys) == 1:
            table[str(keys[0])] = value
        else:
            section = table.setdefault(str(keys[0]), {})
            if not isinstance(section, dict):
                continue  # a fault of the file, found when its table is checked
            section[str(keys[1])] = value
        written[keys] = name
    gateway = table.setdefault("gateway", {}) if env.get("PORT") else None
    if isinstance(gateway, dict) and "port" not in gateway:
        gateway["port"] = env["PORT"]
        written["gateway", "port"] = "PORT"
    return written
