"""What becomes of a message of a call that nobody owns: each kind of message, in each of the circumstances."""

import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.broker.outcome import Done
from consumer.calls.context import Configured
from consumer.calls.messages.parsing import Addressed
from consumer.calls.placement.decisions import (
    MAX_DEATHS,
    Admit,
    Circumstances,
    ConfirmOwner,
    EndCall,
    SendAgain,
    ToOwner,
    decide,
    is_poison,
)
from consumer.processes.service import MCPService
from schemas.calls import CallEvent, CallKind
from schemas.errors import SessionNotFound
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, session_id_of
from schemas.internal import OwnerCheck, Recipe, SessionRecipe
from schemas.requests import REQUESTS, ClusterRequest, parse_request

CALL = CallId("c-1")
ECHO = ServiceName("echo")
W_1 = WorkerId("w-1")


@dataclass(frozen=True)
class Times:
    """Durations that no decision asks for."""

    tombstone: float = 30.0
    admission_wait: float = 2.0
    ring_timeout: float = 120.0


CONFIGURED = Configured({ECHO: MCPService(name="echo", command=["echo"])}, (), Times())
NO_SERVICE = Configured({}, (), Times())

BODIES: dict[str, dict[str, Any]] = {
    "session.create": {"service_name": "echo"},
    "tools.call": {"name": "t", "arguments": {}},
    "tools.cancel": {"idempotency_key": "k"},
    "input.answer": {"input_id": "i", "action": "decline"},
    "resources.read": {"uri": "u"},
    "resources.subscribe": {"uri": "u"},
    "resources.unsubscribe": {"uri": "u"},
    "prompts.get": {"name": "p"},
    "completion.complete": {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "v"}},
    "logging.level": {"level": "info"},
}


def event(kind: CallKind) -> Addressed:
    told = CallEvent(call_id=CALL, kind=kind, source="test")
    return read(told.message_type, told.model_dump(mode="json"))


def read(kind: str, body: dict[str, Any]) -> Addressed:
    message = parse_request(kind, json.dumps(body).encode())
    assert not isinstance(message, ClusterRequest)
    return message


def request(kind: str, **more: Any) -> Addressed:
    return read(kind, {"session_id": CALL} | BODIES.get(kind, {}) | more)


def recipe(restores: int = 0) -> Recipe:
    now = datetime.now(UTC)
    one = SessionRecipe(
        session_id=SessionId(CALL), service_name=ECHO, created_at=now, last_accessed=now, timeout=60.0, metadata={},
        life="l", restores=restores,
    )  # fmt: skip
    return Recipe(call_id=CALL, worker_id=W_1, revision=1, sessions=[one])


OPENING = {"service_name": "echo", "open": "beside"}
USES = sorted(set(REQUESTS) - {"session.create", "session.close", "call.started", "call.progress", "call.ended"})

MESSAGES: dict[str, Addressed] = {
    "call.started": event(CallKind.STARTED),
    "call.progress": event(CallKind.PROGRESS),
    "call.ended": event(CallKind.ENDED),
    "session.create": request("session.create"),
    "session.close": request("session.close"),
    "call.recipe": recipe(),
    "owner.check": OwnerCheck(call_id=CALL, worker_id=W_1, revision=1),
    "tools.call that opens": request("tools.call", **OPENING),
    "tools.cancel": request("tools.cancel"),
}
MESSAGES |= {
    kind: request(kind) for kind in USES if kind != "tools.cancel" and not issubclass(REQUESTS[kind], ClusterRequest)
}

A, D, S, N = "admit", "done", "send again", "no session"

TABLE = {
    # message: (nothing is known, resent, ended, ended and resent)
    "call.started": (A, A, D, D),
    "call.progress": (A, A, D, D),
    "call.ended": ("end", "end", "end", "end"),
    "session.create": (A, A, A, N),
    "session.close": (D, D, D, D),
    "call.recipe": (A, A, D, D),
    "owner.check": ("confirm", "confirm", D, D),
    "tools.call that opens": (S, A, S, N),
    "tools.cancel": (S, D, S, D),
}
OTHER_USES = (S, N, S, N)


def word(message: Addressed, given: Circumstances, configured: Configured = CONFIGURED) -> str:
    try:
        decision = decide(message, given, configured)
    except SessionNotFound:
        return N
    return {Done: D, ToOwner: "to its owner", SendAgain: S, Admit: A, EndCall: "end", ConfirmOwner: "confirm"}[
        type(decision)
    ]


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_in_each_of_the_circumstances(name: str):
    told = tuple(
        word(MESSAGES[name], Circumstances(ended=ended, resent=resent))
        for ended, resent in itertools.product((False, True), (False, True))
    )
    assert told == TABLE.get(name, OTHER_USES)


@pytest.mark.parametrize("name", MESSAGES)
def test_whatever_it_is_it_follows_a_call_that_was_placed_a_moment_ago(name: str):
    for ended, resent, orphaned in itertools.product((False, True), repeat=3):
        given = Circumstances(placed=True, ended=ended, resent=resent, orphaned=orphaned)
        assert word(MESSAGES[name], given) == "to its owner"


def test_every_message_of_a_call_is_in_the_table():
    kinds = {message.type for message in MESSAGES.values()}
    addressed = {kind for kind, model in REQUESTS.items() if not issubclass(model, ClusterRequest)}
    assert addressed | {Recipe.type, OwnerCheck.type} == kinds


def test_an_orphan_opens_no_call_that_has_ended():
    given = Circumstances(ended=True, orphaned=True)
    assert word(MESSAGES["session.create"], given) == N
    assert word(MESSAGES["call.recipe"], given) == D


def test_only_a_command_opens_what_has_ended_and_is_checked():
    command = decide(MESSAGES["session.create"], Circumstances(), CONFIGURED)
    use = decide(MESSAGES["tools.call that opens"], Circumstances(resent=True), CONFIGURED)
    start = decide(MESSAGES["call.started"], Circumstances(), CONFIGURED)
    assert isinstance(command, Admit)
    assert isinstance(use, Admit)
    assert isinstance(start, Admit)
    assert (command.commanded, use.commanded, start.commanded) == (True, False, False)
    assert (command.named, use.named, start.named) == (True, True, False)


def test_an_id_that_no_session_on_its_service_can_have_opens_nothing():
    for named in ("c-1", "c-1#echo"):
        assert word(request("tools.call", **OPENING, session_id=named), Circumstances(resent=True)) == A
    misspelt = request("tools.call", **OPENING, session_id="c-1#ecko")
    assert word(misspelt, Circumstances(resent=True)) == N


def test_what_has_no_service_to_open_is_not_placed():
    for name in ("call.started", "call.recipe"):
        assert word(MESSAGES[name], Circumstances(), NO_SERVICE) == D


def test_a_recipe_that_workers_died_with_one_after_the_other_is_given_up():
    last = recipe(MAX_DEATHS - 1)
    assert word(last, Circumstances(orphaned=True)) == D
    assert word(last, Circumstances()) == A, "it was handed over, and nobody died"
    assert word(recipe(MAX_DEATHS - 2), Circumstances(orphaned=True)) == A


def test_of_a_recipe_nothing_is_wanted_that_was_closed_since():
    assert word(recipe(), Circumstances(closed=frozenset({SessionId(CALL)}))) == D
    second = session_id_of(CALL, ECHO, first=False)
    both = recipe().model_copy(
        update={"sessions": [*recipe().sessions, recipe().sessions[0].model_copy(update={"session_id": second})]}
    )
    decision = decide(both, Circumstances(closed=frozenset({SessionId(CALL)})), CONFIGURED)
    assert isinstance(decision, Admit)
    assert [one.session_id for one in decision.wanted] == [second]


def test_what_changes_nothing_or_has_a_rule_of_its_own_is_no_poison():
    for name, message in MESSAGES.items():
        assert not is_poison(message, MAX_DEATHS - 1)
        assert is_poison(message, MAX_DEATHS) == (name not in ("call.ended", "owner.check", "call.recipe"))
