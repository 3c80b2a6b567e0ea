"""Operations: the requests that a worker receives and answers, and the messages that it sends."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from consumer.asyncapi.channels import BINDING, REPLIES, SESSION_EVENTS, WORKER_EVENTS, DocumentChannel
from consumer.asyncapi.messages import tag_of
from consumer.asyncapi.payloads import CALL_EVENT, DEAD_LETTER, PLATFORM_EVENT, UNKNOWN_REPLY
from schemas.interim import INTERIM
from schemas.internal import (
    ANSWERS,
    ClosedSessions,
    EndedCalls,
    FiguresScatter,
    OwnerCheck,
    PresenceReport,
    PresenceRequest,
    Probe,
    Recipe,
    SessionsScatter,
)
from schemas.replies import REPLY_SUFFIX
from schemas.requests import MADE_OF_EVENTS, REQUESTS, ClusterRequest, Lifecycle, ToolsCall

Action = Literal["send", "receive"]
Operation = dict[str, Any]

_SENT_BETWEEN_WORKERS = {
    Recipe.type: "queue.inbox",
    Probe.type: "queue.inbox",
    OwnerCheck.type: "exchange.sessions",
    PresenceReport.type: "exchange.workers",
    PresenceRequest.type: "exchange.workers",
    EndedCalls.type: "exchange.workers",
    ClosedSessions.type: "exchange.workers",
    SessionsScatter.type: "exchange.workers",
    FiguresScatter.type: "exchange.workers",
}
_ANSWERED = {OwnerCheck.type, SessionsScatter.type, FiguresScatter.type}


def operations(channels: tuple[DocumentChannel, ...]) -> dict[str, Operation]:
    """Return every operation by its name. The name of a request is its type."""
    found = dict(_requests())
    found["calls"] = _operation("receive", "exchange.calls", (CALL_EVENT, PLATFORM_EVENT), "Receive call events.")
    for channel in channels:
        if (
            PLATFORM_EVENT in channel.messages
            and channel.name.startswith("exchange.")
            and channel.name != "exchange.calls"
        ):
            name = f"calls.{channel.name.removeprefix('exchange.')}"
            found[name] = _operation(
                "receive", channel.name, (PLATFORM_EVENT,), "Receive events from a platform's own exchange."
            )
        if channel.name in {SESSION_EVENTS, WORKER_EVENTS}:
            found[channel.name] = _operation("send", channel.name, channel.messages, channel.description)
    meanwhile = f"Send interim messages of a `{ToolsCall.type}` before its reply."
    found[f"{ToolsCall.type}.interim"] = _operation("send", REPLIES, tuple(INTERIM), meanwhile, durable=False)
    found["refuse"] = _operation(
        "send", REPLIES, (UNKNOWN_REPLY,), "Refuse a message that is not a request.", durable=False
    )
    found["dead_letter"] = _operation(
        "send", "exchange.dead", (DEAD_LETTER,), "Keep a message that cannot be handled, with the reason."
    )
    return found | dict(_between_workers())


def _requests() -> Iterator[tuple[str, Operation]]:
    for kind, model in REQUESTS.items():
        durable = model in get_args(Lifecycle)
        channel = "exchange.sessions" if durable else "exchange.requests"
        if model in get_args(ClusterRequest):
            channel = "exchange.cluster"
        told = f"Serve `{kind}`." if kind not in MADE_OF_EVENTS else f"Serve `{kind}`, which only workers send."
        answer = _reply(REPLIES, f"{kind}{REPLY_SUFFIX}")
        operation = _operation("receive", channel, (kind,), told, durable=durable) | {"reply": answer}
        yield kind, operation | ({"x-internal": True} if kind in MADE_OF_EVENTS else {})


def _between_workers() -> Iterator[tuple[str, Operation]]:
    for kind, channel in _SENT_BETWEEN_WORKERS.items():
        durable = kind in {Recipe.type, OwnerCheck.type}
        answer = {"reply": _reply("queue.worker", _answer(kind))} if kind in _ANSWERED else {}
        for action in get_args(Action):
            told = f"Workers {action} `{kind}`."
            yield f"{kind}.{action}", _operation(action, channel, (kind,), told, durable=durable) | answer


def _answer(kind: str) -> str:
    return next(one.type for one in ANSWERS if one.type == f"{kind}{REPLY_SUFFIX}")


def _operation(
    action: Action, channel: str, kinds: tuple[str, ...], summary: str, *, durable: bool = True
) -> Operation:
    tag = tag_of(kinds[0])
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "tags": [{"name": tag}],
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind}"} for kind in kinds],
        "bindings": {"amqp": {"deliveryMode": 2 if durable else 1, "timestamp": True, "bindingVersion": BINDING}},
        **({"x-internal": True} if tag == "internal" else {}),
    }


def _reply(channel: str, kind: str) -> dict[str, Any]:
    return {
        "address": {"location": "$message.header#/reply_to", "description": "The AMQP property of the request."},
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind}"}],
    }
