"""The tables of the configuration, from the settings models and what they say of their fields."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from consumer.calls.routes import Route
from consumer.processes.service import MCPService, Sandbox, Warm
from consumer.settings import AsteriskSettings, CallExchangeSettings, SessionSettings, WorkerSettings
from consumer.settings.broker_url import DEFAULT, VARIABLES
from consumer.settings.environment import NOT_SETTINGS, PREFIX, variables
from consumer.settings.fields import meaning_of, reloadable_fields
from consumer.settings.gateway_settings import GatewaySettings, RateLimits, StaticToken, WebhookSettings
from docs.generate.markdown import code, described, fields, literal, table
from schemas.base import Section

SECTIONS: dict[str, type[Section]] = {
    "gateway": GatewaySettings,
    "gateway-token": StaticToken,
    "gateway-rate-limits": RateLimits,
    "gateway-webhook": WebhookSettings,
    "asterisk": AsteriskSettings,
    "session": SessionSettings,
    "worker": WorkerSettings,
    "service": MCPService,
    "sandbox": Sandbox,
    "warm": Warm,
    "route": Route,
    "call-exchange": CallExchangeSettings,
}

IMPORTANT = (
    ("session", "default_timeout"),
    ("session", "max_lifetime"),
    ("session", "max_sessions_per_service"),
    ("session", "max_total_sessions"),
    ("worker", "prefix"),
    ("worker", "grace"),
    ("worker", "tombstone"),
    ("worker", "admission_wait"),
    ("worker", "drain_timeout"),
    ("worker", "heartbeat"),
)
"""What the README shows; the rest is in the reference."""

_LINKS = {
    "[Sandbox](#sandbox)": "[table](#sandbox)",
    "[Warm](#warm)": "[table](#warm-processes)",
    "[RateLimits](#ratelimits)": "[table](#rate-limits)",
    "object of [WebhookSettings](#webhooksettings)": "[tables](#webhooks-of-platforms)",
    "list of [StaticToken](#statictoken)": "list of [tables](#static-tokens)",
}


def _type(kind: str) -> str:
    kind = _LINKS.get(kind, kind)
    return "list of [tables](#exchanges-of-telephony-platforms)" if "CallExchangeSettings" in kind else kind


def _rows(section: str, *, marked: bool = True) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each setting, ``marked`` where a running worker takes it on."""
    model = SECTIONS[section]
    known = [row for row in fields(model) if model is not MCPService or row[0] != "name"]
    written = {name: meaning for name, _, _ in known if (meaning := meaning_of(model, name))}
    meanings = described((name for name, _, _ in known), written, f"settings of [{section}]")
    marks = dict.fromkeys(reloadable_fields(model) if marked else (), " *Reloadable.*")
    return [
        (name, _type(kind), _shown(model, name, default), meanings[name] + marks.get(name, ""))
        for name, kind, default in known
    ]


def _shown(model: type[BaseModel], name: str, default: str) -> str:
    value: Any = model.model_fields[name].default
    if isinstance(value, float) and value.is_integer():
        return literal(int(value))
    return "" if default in ('`""`', "`[]`", "`{}`") or isinstance(value, BaseModel) else default


def _with_variables(section: str, prefix: str = PREFIX) -> Callable[[], str]:
    def part() -> str:
        rows = [
            (f"{code(name)}<br>{code(prefix + name.upper())}", kind, default, meaning)
            for name, kind, default, meaning in _rows(section)
        ]
        return table(("key, variable", "type", "default", "meaning"), rows)

    return part


def _without(section: str) -> Callable[[], str]:
    def part() -> str:
        rows = [(code(name), kind, default, meaning) for name, kind, default, meaning in _rows(section)]
        return table(("key", "type", "default", "meaning"), rows)

    return part


def short() -> str:
    """What most people set."""
    found = {(section, row[0]): row for section in ("session", "worker") for row in _rows(section, marked=False)}
    rows = [
        (code(f"{section}.{name}"), found[section, name][2], found[section, name][3]) for section, name in IMPORTANT
    ]
    return table(("setting", "default", "meaning"), rows)


def environment() -> str:
    """Every variable that is read."""
    config, _marker = NOT_SETTINGS
    rows = [(", then ".join(code(one) for one in VARIABLES), f"The broker's URL. Default: `{DEFAULT}`.")]
    rows.append(
        (code(config), "The path of the configuration file. Default: `mcp-sessions.toml` in the working directory.")
    )
    others = {name: keys for name, keys in variables().items() if len(keys) == 1}
    rows += [(code(name), f"The whole of `{keys[0]}`, as JSON.") for name, keys in others.items()]
    rows.append((code(f"{PREFIX}<NAME>"), "Any single setting of `[session]` and `[worker]`; see the tables below."))
    rows.append((code(f"{PREFIX}GATEWAY_<NAME>"), "Any single setting of `[gateway]`."))
    rows.append((code(f"{PREFIX}ASTERISK_<NAME>"), "Any single setting of `[asterisk]`."))
    rows.append(
        (code("PORT"), "The port of the gateway if `gateway.port` is not set. Heroku and other platforms set it.")
    )
    return table(("variable", "meaning"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "environment": environment,
    "settings": short,
    "session-settings": _with_variables("session"),
    "worker-settings": _with_variables("worker"),
    "gateway-settings": _with_variables("gateway", f"{PREFIX}GATEWAY_"),
    "gateway-token-settings": _without("gateway-token"),
    "gateway-rate-limit-settings": _without("gateway-rate-limits"),
    "gateway-webhook-settings": _without("gateway-webhook"),
    "asterisk-settings": _with_variables("asterisk", f"{PREFIX}ASTERISK_"),
    "service-settings": _without("service"),
    "sandbox-settings": _without("sandbox"),
    "warm-settings": _without("warm"),
    "route-settings": _without("route"),
    "call-exchange-settings": _without("call-exchange"),
}
