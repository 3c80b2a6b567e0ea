"""The wire reference: messages, replies, errors, events and topology, from ``schemas`` and the topology."""

from collections.abc import Callable, Iterator, Mapping
from inspect import getdoc
from typing import get_args

from pydantic import BaseModel

from consumer.asyncapi.header_schemas import DEAD_LETTER_HEADERS
from consumer.broker import dead_letter
from consumer.broker.topology import Names, Queue, cluster_topology, inbox, requests_queue, worker_queue
from consumer.telephony.registry import TRANSLATORS
from docs.generate.markdown import Undocumented, code, described, fields, literal, prose, table
from schemas import calls, errors, events, interim, internal, replies, requests, sessions
from schemas.ids import WorkerId

NAMES = Names()
QUEUES = f"`{NAMES.cluster}`, any key"

RESULTS: dict[str, str] = {
    "session.create": "[SessionInfo](#sessioninfo)",
    "session.get": "[SessionInfo](#sessioninfo)",
    "session.touch": "[SessionInfo](#sessioninfo)",
    "session.close": "[CloseResult](#closeresult)",
    "session.describe": "[ServerDescription](#serverdescription)",
    "tools.list": "[ToolsResult](#toolsresult)",
    "tools.call": "[ToolCallResult](#toolcallresult)",
    "tools.cancel": "`cancelled`: true or false",
    "input.answer": "`accepted`: true or false",
    "resources.list": "the MCP result, unchanged",
    "resources.read": "the MCP result, unchanged",
    "prompts.list": "the MCP result, unchanged",
    "prompts.get": "the MCP result, unchanged",
    "resources.subscribe": "`{}`",
    "resources.unsubscribe": "`{}`",
    "completion.complete": "the MCP result, unchanged",
    "logging.level": "`{}`",
    "sessions.list": "[SessionsPage](#sessionspage)",
    "services.list": "[ServicesResult](#servicesresult)",
    "services.tools": "[ServiceTools](#servicetools)",
    "services.describe": "[ServerDescription](#serverdescription)",
    "workers.list": "[WorkersResult](#workersresult)",
    "workers.figures": "[FiguresResult](#figuresresult)",
    "call.started": "`sessions`: the ids of the call's sessions",
    "call.progress": "`sessions`: the ids of the call's sessions",
    "call.ended": "[EndResult](#endresult)",
}

WHAT_HAPPENED = {
    "created": "The session is open. `data.restored` is true if it replaces one that was lost or handed over.",
    "closed": "The session was closed.",
    "expired": "The session reached one of its time limits.",
    "died": "The session's process ended by itself, or brought down its workers. `data` has `exit_code`, `signal` and "
    "the last lines of `stderr`.",
    "lost": "The session's worker died. Another worker publishes the event, with a reduced session info.",
    "rejected": "A session was not opened: its start failed, or a `session.create` [without a reply](#replies) was "
    "refused. `data` has `code`, `message` and `details`. It is not published while the session is open.",
    "resource_updated": "A resource that the session is subscribed to has changed. `data.uri` names it.",
    "list_changed": "The server's list of `tools`, `resources` or `prompts` has changed. `data.list` names it.",
    "started": "The worker takes calls.",
    "draining": "The worker is shutting down.",
    "stopped": "The worker has stopped. This is its last message.",
}

WHY = {
    "call_ended": "the call ended",
    "requested": "`session.close`",
    "replaced": "`session.create` over an open session",
    "worker_shutdown": "its worker shut down; another may have taken over the call",
    "superseded": "its worker was disconnected, and another one owns the call now",
    "idle": "it was not used for `timeout` seconds",
    "max_lifetime": "it lived for `session.max_lifetime` seconds",
    "process_exit": "the process ended",
    "crash_loop": "four workers died while they had it, so it is not opened again",
    "worker_gone": "the worker was killed or cannot be reached",
}

SHAPES: tuple[type[BaseModel], ...] = (
    sessions.SessionInfo,
    replies.ToolCallResult,
    replies.ToolsResult,
    replies.CloseResult,
    replies.EndResult,
    replies.SessionsPage,
    replies.ServicesResult,
    sessions.ServiceInfo,
    replies.ServiceTools,
    replies.ServerDescription,
    replies.WorkersResult,
    sessions.WorkerInfo,
    sessions.ServiceLoad,
    replies.FiguresResult,
    sessions.WorkerFigures,
    sessions.ToolFigures,
    sessions.FailedStart,
)


FEW = 3
"""Up to this many fields are listed in a sentence instead of a table."""


def _body(model: type[BaseModel], title: str) -> str:
    """A message that we receive, with its defaults."""
    rows = [(code(name), kind, default) for name, kind, default in fields(model)]
    told = [f"{name} ({', '.join(filter(None, (kind, default)))})" for name, kind, default in rows]
    body = table(("field", "type", "default"), rows) if len(rows) > FEW else f"Body: {', '.join(told) or '`{}`'}."
    return f"### {title}\n\n{prose(model)}\n\n{body}"


def _shape(model: type[BaseModel], title: str = "") -> str:
    """A message that we send, with the fields that may be missing."""
    rows = [(code(name), kind + ("" if default else ", may be missing")) for name, kind, default in fields(model)]
    told = [f"{name} ({kind})" for name, kind in rows]
    body = table(("field", "type"), rows) if len(rows) > FEW else f"Fields: {', '.join(told)}."
    return f"### {title or model.__name__}\n\n{prose(model)}\n\n{body}"


def _lane(message_type: str) -> str:
    model = requests.REQUESTS[message_type]
    if model in get_args(requests.ClusterRequest):
        return QUEUES
    if message_type in requests.MADE_OF_EVENTS:
        return f"workers only; publish the event to `{NAMES.calls}`"
    exchange = NAMES.sessions if model in get_args(requests.Lifecycle) else NAMES.requests
    return f"`{exchange}`, key: the call"


def overview() -> str:
    """Every request: where it goes, what comes back."""
    results = described(requests.REQUESTS, RESULTS, "results of requests")
    rows = [(f"[`{one}`](#{one.replace('.', '')})", _lane(one), results[one]) for one in requests.REQUESTS]
    return table(("`type`", "publish to", "`result` of the reply"), rows)


def bodies() -> str:
    """The body of every request; the call events share one."""
    found = [_body(model, code(kind)) for kind, model in requests.REQUESTS.items() if not kind.startswith("call.")]
    events_ = [code(kind) for kind in requests.REQUESTS if kind.startswith("call.")]
    anchors = "".join(f'<a id="{kind.replace(".", "")}"></a>' for kind in requests.REQUESTS if kind.startswith("call."))
    return "\n\n".join([*found, f"### {', '.join(events_)}\n\n{anchors}The body is a [CallEvent](#callevent)."])


def shapes() -> str:
    """The shapes of results."""
    return "\n\n".join(_shape(model) for model in SHAPES)


def meanwhile() -> str:
    """The messages that arrive at a reply address before the reply."""
    return "\n\n".join(_shape(model, code(kind)) for kind, model in interim.INTERIM.items())


def call_event() -> str:
    """The normalised call event."""
    return _body(calls.CallEvent, "CallEvent")


def sources() -> str:
    """The names of the translators."""
    return ", ".join(code(translator.SOURCE) for translator in TRANSLATORS)


def error_codes() -> str:
    """Every error code, its meaning, whether the request was executed, and whether the same one may succeed later."""
    classes = errors.by_code()
    if missing := [one.value for one in errors.ErrorCode if one not in classes]:
        raise Undocumented(f"no class of schemas.errors has the code {', '.join(missing)}")
    rows = [
        (
            code(one.value),
            prose(classes[one]).split("\n\n")[0],
            "no" if classes[one].executed is False else "unknown",
            "yes" if classes[one].retryable else "no",
        )
        for one in errors.ErrorCode
    ]
    return table(("`error.code`", "meaning", "executed", "retryable"), rows)


def event_types() -> str:
    """Every event and its reasons."""
    kinds = [*(one.value for one in events.SessionEventType), *get_args(events.WorkerEventType)]
    meaning = described(kinds, WHAT_HAPPENED, "events")
    why = described([one.value for one in events.EndReason], WHY, "reasons")
    reasons: dict[str, list[str]] = {}
    for reason in events.EndReason:
        reasons.setdefault(reason.event_type.value, []).append(f"`{reason.value}`: {why[reason.value]}")
    reasons[events.SessionEventType.REJECTED.value] = ["the [error code](#error-codes), as in `data.code`"]
    of_sessions = [
        (f"`mcp.session.{one}`", f"`session.{one}.<service_name>`", meaning[one], "; ".join(reasons.get(one, ())))
        for one in (kind.value for kind in events.SessionEventType)
    ]
    of_workers = [
        (f"`mcp.worker.{one}`", f"`worker.{one}`", meaning[one], "") for one in get_args(events.WorkerEventType)
    ]
    return table(("`type`", "routing key", "meaning", "`data.reason`"), [*of_sessions, *of_workers])


def exchanges() -> str:
    """Every exchange."""
    rows = [(code(one.name), one.type, one.why, _arguments(one.arguments)) for one in cluster_topology(NAMES).exchanges]
    return table(("exchange", "type", "messages", "arguments"), rows)


def queues() -> str:
    """Every queue."""
    anybody = WorkerId("<worker_id>")
    common = next(one for one in cluster_topology(NAMES).queues if one.name == NAMES.calls).arguments
    said = {name: value for name, value in common.items() if name in _COMMON}
    own = [inbox(NAMES, anybody), *(make(NAMES, anybody, "<connection>") for make in (requests_queue, worker_queue))]
    rows = [
        (code(one.name), one.kind, one.why, _arguments(_special(one, said)))
        for one in (*cluster_topology(NAMES).queues, *own)
    ]
    note = f"Where the table says nothing else, a quorum queue has {_arguments(said)}."
    return f"{table(('queue', 'kind', 'messages', 'arguments'), rows)}\n\n{note}"


_COMMON = frozenset({"x-queue-type", "x-delivery-limit", "x-overflow", "x-consumer-disconnected-timeout"})


def _special(queue: Queue, common: Mapping[str, object]) -> dict[str, object]:
    """The arguments of a queue that differ from the common ones."""
    return {name: value for name, value in queue.arguments.items() if common.get(name) != value}


def _arguments(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}`: {literal(value)}" for name, value in arguments.items())


def dead_letters() -> str:
    """The headers of a dead letter."""
    written = described(dead_letter.HEADERS, DEAD_LETTER_HEADERS, "headers of dead letters")
    return table(("header", "meaning"), [(code(name), meaning) for name, meaning in written.items()])


def between_workers() -> str:
    """The messages between workers."""
    return table(("`type`", "meaning"), [(code(kind), _first(model)) for kind, model in _internal()])


def _internal() -> Iterator[tuple[str, type[BaseModel]]]:
    for one in vars(internal).values():
        if isinstance(one, type) and issubclass(one, BaseModel) and isinstance(kind := getattr(one, "type", None), str):
            yield kind, one


def _first(thing: object) -> str:
    return prose(thing).split("\n\n")[0] if getdoc(thing) else ""


PARTS: dict[str, Callable[[], str]] = {
    "requests": overview,
    "bodies": bodies,
    "shapes": shapes,
    "meanwhile": meanwhile,
    "call-event": call_event,
    "sources": sources,
    "errors": error_codes,
    "events": event_types,
    "exchanges": exchanges,
    "queues": queues,
    "dead-letters": dead_letters,
    "between-workers": between_workers,
}
