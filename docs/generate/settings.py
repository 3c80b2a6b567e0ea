"""The tables of the configuration, from the settings models; only the meanings are written here."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from consumer.calls.routes import Route
from consumer.processes.service import MCPService, Sandbox, Warm
from consumer.settings import AsteriskSettings, CallExchange, SessionSettings, WorkerSettings
from consumer.settings.broker_url import DEFAULT, VARIABLES
from consumer.settings.environment import NOT_SETTINGS, PREFIX, variables
from consumer.settings.gateway import GatewaySettings, RateLimits, StaticToken, WebhookSettings
from docs.generate.markdown import code, described, fields, literal, table

SESSION = {
    "default_timeout": "How long a session may stay unused before it expires. A tool call in flight counts as use.",
    "cleanup_interval": "The longest that a worker does not look for dead processes. Expiry does not wait for it.",
    "max_sessions_per_service": "Sessions of one service on one worker.",
    "max_total_sessions": "Sessions on one worker.",
    "max_metadata": "Bytes of a session's metadata, the call event included, as JSON. A session with more gets "
    "`INVALID_MESSAGE`.",
    "max_lifetime": "How long a session may live, however busy it is. `0`: for ever.",
    "sandbox_dir": "Where the private folders of the server processes are made; without it, the system's folder for "
    "temporary files.",
}

SERVICE = {
    "command": "The program and its arguments; it speaks MCP on stdin and stdout. Either this or `url`.",
    "url": "Address of a streamable HTTP server. Either this or `command`.",
    "description": "For people; `services.list` shows it.",
    "enabled": "With `false` no session is opened on it.",
    "env": "Variables for the process. It gets these and a minimal environment, never the worker's own.",
    "headers": "HTTP headers for a `url`.",
    "start_timeout": "How long starting and the handshake may take.",
    "call_timeout": "How long a tool call may take when its caller does not say.",
    "max_call_timeout": "The longest time that a caller may ask for, at least `call_timeout`.",
    "timeout": "Idle timeout of this service's sessions. Without it: `session.default_timeout`.",
    "restore": "Whether its sessions are opened again when their worker has gone.",
    "retry": "Whether a tool that says of itself that it may be repeated (`readOnlyHint`, `idempotentHint`) is called "
    "once more, on a fresh process, when the process died under the call.",
    "pending_after": "When a tool call takes longer, its caller gets one `tools.pending`. A request may say another "
    "time.",
    "question_timeout": "How long a question of the server to the caller (`input.required`, or returned) waits for its "
    "answer.",
    "offers": "What a server up to 2025-11-25 is told that it may ask for beside elicitation: `sampling`, `roots`. Its "
    "question goes to a requester that offers the same in `client_capabilities`, and is refused otherwise.",
    "bind": "Arguments that are set for every call of a tool that takes them; what the requester gives for them "
    "reaches no tool and no prompt. `{name}` stands for what the session's metadata has under that name, "
    "`{name|default}` has a default, and without one a missing value is an error. The fields of the call event "
    "(`from`, `to`, `direction` and so on) are read from the event alone. Resources are not bound.",
    "max_calls": "How many tool calls and other requests of one session may run at once.",
    "max_arguments": "The most bytes that a request's body may have.",
    "max_result": "The most bytes that a result may have.",
    "warm": "Processes that are started ahead of calls, as many as calls come in while one starts.",
    "fork_server": "What a Python server runs, as `module:function`; the function may be an attribute of something in "
    "the module: `weather.server:app.run`. A helper imports the module once and forks itself "
    "for each session, which saves the time of the import; the arguments of `command` are its `sys.argv`. What the "
    "module makes of environment and folder while it is imported, all sessions share. Where it cannot be done, "
    "`command` is started, with a warning. The helper rehearses the function once, in a throw-away fork, so a server "
    "that does something at its start does it one time more.",
    "sandbox": "How the process is kept apart.",
}

SANDBOX = {
    "kind": "`limits`: resource limits and no new privileges; `bubblewrap`: its own file system and namespaces as "
    "well; `none`: neither; `auto`: `bubblewrap` where it works, and `limits` where not or with `fork_server`. "
    "[Sandboxes](operations/sandbox.md) says what each holds.",
    "user": "Whom it runs as when the worker is root. `own`: a user of its own without rights; `worker`: root. Of kind "
    "`none` it is always the worker's user.",
    "memory": 'Bytes of data; `"512M"` is understood.',
    "cpu_seconds": "Seconds of processor time, over the whole life.",
    "processes": "How many processes and threads.",
    "file_size": 'The largest file in bytes; `"1G"` is understood.',
    "network": "Whether it has a network. `false` needs `bubblewrap`.",
    "working_dir": "Where the command starts. Without it: its private folder, and words of `command` that name a file "
    "below the worker's folder are made absolute.",
    "allowed_paths": "What it may read and write beside its own folder, with `bubblewrap`; under root, as far as "
    "everybody may.",
    "restricted_env": "Key of the gateway; changes nothing, the environment is always the minimal one.",
    "note": "For people.",
}

WARM = {
    "min": "At least so many wait for a call.",
    "max": "At most so many wait. `0`: none is started ahead.",
    "idle_ttl": "How old one may become while it waits; then another takes its place.",
}

ROUTE = {
    "match": "Conditions that all must fit: `direction`, `to`, `from`, `source`, `call_id`, `parent_call_id` or any "
    "attribute of the event, each with one shell pattern or a list of them. Empty: every call.",
    "services": "What such a call gets. The first one's session has the call's id as its own. Empty: nothing.",
    "start": "`ringing`: the sessions open with the first event of the call. `answered`: when it is answered; while it "
    "rings, their places and processes are held for it.",
    "timeout": "Idle timeout of these sessions, before the service's own.",
    "metadata": "Added to the sessions' metadata.",
}

WORKER = {
    "prefix": "The first word of every name on the broker.",
    "worker_id": "Must be unique: a worker whose id is alive in another process exits with 2. "
    "Without it each start makes its own.",
    "tombstone": "How long a start opens nothing for a call that has ended. "
    "One that was sent before the end does not for ten minutes.",
    "grace": "How long a worker that lost its connection may take to come back before its calls are placed elsewhere. "
    "The same on all workers of a prefix: it is part of a queue.",
    "admission_wait": "How long a start waits for room.",
    "ring_timeout": "How long a place and a process are held for a call that rings, on a route with "
    '`start = "answered"`.',
    "drain": "What a worker that leaves does with its calls: it hands them over to the others at once "
    '(`"hand_over"`), or keeps them until they end or `drain_timeout` is nearly over (`"wait"`).',
    "drain_timeout": "How long handing over or closing the calls may take when the worker leaves.",
    "heartbeat": "Seconds between AMQP heartbeats.",
    "connect_timeout": "How long a broker that cannot be reached is tried at the start.",
    "calls_prefetch": "Raw call events in work at once.",
    "max_message": 'Bytes of the body of an event or a request, also written `"1M"`; what is larger is parked unread. '
    "12 MiB at most: what is kept of a call must fit into a message of RabbitMQ.",
    "max_requests": "Requests that the worker holds at once, those that wait included. More get `CAPACITY`.",
    "max_kept": "Bytes that the worker keeps of each of these: the metadata of its sessions, answers under idempotency "
    "keys, and bodies of requests. A session or a request beyond that gets `CAPACITY`; of answers the oldest goes.",
    "max_dead": "Bytes that the parking lot `mcp.dead` holds, and 100,000 messages; the oldest make room for new ones. "
    "The same on all workers of a prefix. A queue that is there with another bound is used as it is, with a warning.",
    "call_exchanges": "Exchanges of telephony platforms that are bound to the queue of call events.",
    "http_port": "Where `/livez`, `/readyz` and `/metrics` are served, see "
    "[observability](operations/observability.md). Without it: nowhere. `0`: a port of the system's choice, which the "
    "log tells.",
    "http_host": "On which address. The default is for this machine only; `0.0.0.0` is every address.",
    "log_level": "Lowest level of the log.",
    "log_format": "`auto`: for people on a terminal, JSON otherwise.",
}

EXCHANGE = {
    "exchange": "Its name.",
    "type": "Its type; it is declared durable, as FreeSWITCH does.",
    "routing_key": "What to bind.",
    "arguments": "Arguments of the binding, for a headers exchange.",
    "platform": "Whose events come by it: a body of any other platform is parked. `asterisk` also takes ARI and AMI "
    "events that a module wraps into `{name, data}`. Without it the body decides.",
}


def _said(model: type[BaseModel]) -> dict[str, str]:
    """What a model itself says of its fields."""
    return {name: " ".join((field.description or "").split()) for name, field in model.model_fields.items()}


SECTIONS: dict[str, tuple[type[BaseModel], Mapping[str, str]]] = {
    "gateway": (GatewaySettings, _said(GatewaySettings)),
    "gateway-token": (StaticToken, _said(StaticToken)),
    "gateway-rate-limits": (RateLimits, _said(RateLimits)),
    "gateway-webhook": (WebhookSettings, _said(WebhookSettings)),
    "asterisk": (AsteriskSettings, _said(AsteriskSettings)),
    "session": (SessionSettings, SESSION),
    "worker": (WorkerSettings, WORKER),
    "service": (MCPService, SERVICE),
    "sandbox": (Sandbox, SANDBOX),
    "warm": (Warm, WARM),
    "route": (Route, ROUTE),
    "call-exchange": (CallExchange, EXCHANGE),
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
    return "list of [tables](#exchanges-of-telephony-platforms)" if "CallExchange" in kind else kind


def _rows(section: str) -> list[tuple[str, str, str, str]]:
    model, written = SECTIONS[section]
    known = [row for row in fields(model) if model is not MCPService or row[0] != "name"]
    meanings = described((name for name, _, _ in known), written, f"settings of [{section}]")
    return [(name, _type(kind), _shown(model, name, default), meanings[name]) for name, kind, default in known]


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
    found = {(section, row[0]): row for section in ("session", "worker") for row in _rows(section)}
    rows = [
        (code(f"{section}.{name}"), found[section, name][2], found[section, name][3]) for section, name in IMPORTANT
    ]
    return table(("setting", "default", "meaning"), rows)


def environment() -> str:
    """Every variable that is read."""
    config, _marker = NOT_SETTINGS
    rows = [(", then ".join(code(one) for one in VARIABLES), f"Where the broker is. Without any: `{DEFAULT}`.")]
    rows.append((code(config), "Path of the configuration. Without it: `mcp-sessions.toml` in the working directory."))
    others = {name: keys for name, keys in variables().items() if len(keys) == 1}
    rows += [(code(name), f"The whole of `{keys[0]}`, as JSON.") for name, keys in others.items()]
    rows.append((code(f"{PREFIX}<NAME>"), "Any single setting of `[session]` and `[worker]`; see the tables below."))
    rows.append((code(f"{PREFIX}GATEWAY_<NAME>"), "Any single setting of `[gateway]`."))
    rows.append((code(f"{PREFIX}ASTERISK_<NAME>"), "Any single setting of `[asterisk]`."))
    rows.append((code("PORT"), "`gateway.port`, where nothing else says one; Heroku and others set it."))
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
