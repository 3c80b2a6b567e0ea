"""Who gave a message up, and who says that a call is not its own. Pure."""

from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.broker.message import Delivery, Message
from consumer.broker.topology import Names
from consumer.calls.cluster.ended_calls import OpenedBy
from consumer.calls.messages.recipes import is_untold, opened_by, which_restored
from consumer.calls.placement.orphans import disowned_by, given_up_by
from consumer.calls.placement.placements import Placement
from consumer.calls.routes import CALL_KEY
from schemas import headers
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.internal import Recipe, SessionRecipe

NAMES = Names()
W_1, W_2 = WorkerId("w-1"), WorkerId("w-2")
MARK = "placer/7"
SENT, OPENED = datetime(2026, 1, 1, 3, 0, tzinfo=UTC), datetime(2026, 1, 1, 3, 3, tzinfo=UTC)
MILLISECONDS = headers.milliseconds(SENT.timestamp())


def delivery(given: dict[str, Any]) -> Delivery:
    return Delivery(Message(b"", headers=given), NAMES.unowned, NAMES.unowned, "c-1", False, 0.0, None)


@pytest.mark.parametrize(
    ("given", "worker"),
    [
        ({}, None),
        ({"x-death": [{"queue": NAMES.inbox(W_1)}]}, W_1),
        ({"x-death": [{"queue": NAMES.calls}, {"queue": NAMES.inbox(W_1)}]}, W_1),
        ({"x-death": [{"queue": NAMES.inbox(W_1)}, {"queue": NAMES.inbox(W_2)}]}, W_1),
        ({"x-death": [{"queue": NAMES.inbox(W_1)}], headers.ORPHAN_OF: W_2}, W_1),
        ({headers.ORPHAN_OF: W_2}, W_2),
        ({"x-death": "nonsense"}, None),
        ({"x-death": ["nonsense", {}, {"queue": 1}]}, None),
    ],
)
def test_the_worker_whose_inbox_gave_a_message_up(given: dict[str, Any], worker: WorkerId | None):
    assert given_up_by(delivery(given), NAMES) == worker


@pytest.mark.parametrize(
    ("why", "given", "owner", "worker"),
    [
        ("nobody says so", {}, W_1, None),
        ("another owner is remembered", {headers.RETURNED: W_1}, W_2, W_1),
        ("a former placer may have placed it there", {headers.RETURNED: W_1, headers.RETURNS: 1}, None, None),
        ("nothing is remembered, and it came back twice", {headers.RETURNED: W_1, headers.RETURNS: 2}, None, W_1),
        ("it came through the binding before", {headers.RETURNED: W_1, headers.RETURNS: 1}, W_1, None),
        ("it came back twice", {headers.RETURNED: W_1, headers.RETURNS: headers.FOR_GOOD}, W_1, W_1),
        ("it has no room", {headers.REFUSED: W_1, headers.RETURNS: 1, headers.DISOWNED: MARK}, W_1, W_1),
        ("it was placed there again", {headers.REFUSED: W_1, headers.DISOWNED: "placer/6"}, W_1, None),
        (
            "it came back twice from before",
            {headers.RETURNED: W_1, headers.RETURNS: 2, headers.DISOWNED: ""},
            W_1,
            None,
        ),
        ("no placement is named", {headers.REFUSED: W_1, headers.DISOWNED: ""}, W_1, W_1),
    ],
)
def test_the_worker_that_is_believed_not_to_own_the_call(why: str, given: dict[str, Any], owner: Any, worker: Any):
    placement = None if owner is None else Placement(owner, 7)
    assert disowned_by(given, placement, MARK if placement else "") == worker, why


@pytest.mark.parametrize(
    ("why", "given", "inbox_of", "untold"),
    [
        ("its inbox has just given it up, and its worker may be back", {}, W_1, False),
        ("its worker counted as dead", {headers.ORPHAN_OF: W_1}, None, True),
        ("who should have told of it is dead", {headers.ORPHAN_OF: W_1}, W_2, True),
        ("it has come back to its worker, and that one is gone again", {headers.ORPHAN_OF: W_1}, W_1, False),
        ("it was told before it was sent on", {headers.ORPHAN_OF: W_1, headers.LOST: True}, None, False),
        ("it was on its way to another worker", {headers.ORPHAN_OF: W_2}, None, False),
        ("its worker has handed it over", {headers.RETURNED: W_1}, None, False),
        ("who returned it has told of them", {headers.ORPHAN_OF: W_1, headers.RETURNS: 1}, None, False),
    ],
)
def test_whether_the_sessions_of_a_recipe_are_still_to_be_told_of(
    why: str, given: dict[str, Any], inbox_of: WorkerId | None, untold: bool
):
    recipe = Recipe(call_id=CallId("c-1"), worker_id=W_1, revision=1, sessions=[])
    assert is_untold(recipe, given, inbox_of) is untold, why


@pytest.mark.parametrize(
    ("why", "by_a_start", "given", "opened"),
    [
        ("a late start is older than what it opened", True, {headers.STARTED: MILLISECONDS}, OpenedBy(SENT)),
        ("an explicit request", True, {headers.COMMANDED: MILLISECONDS}, OpenedBy(SENT, commanded=True)),
        ("an older worker does not write it", True, {}, OpenedBy(OPENED)),
        ("nor of a request", False, {}, OpenedBy(None)),
    ],
)
def test_what_the_sessions_of_a_recipe_go_back_to(why: str, by_a_start: bool, given: Any, opened: OpenedBy):
    session = SessionRecipe(
        session_id=SessionId("c-1"), service_name=ServiceName("echo"), created_at=OPENED, last_accessed=OPENED,
        timeout=60.0, metadata={CALL_KEY: {}} if by_a_start else {}, life="l-1",
    )  # fmt: skip
    recipe = Recipe(call_id=CallId("c-1"), worker_id=W_1, revision=1, sessions=[session])
    assert opened_by(recipe, given) == opened, why


@pytest.mark.parametrize(
    ("why", "deaths", "given", "restored"),
    [
        ("one was opened since the call was restored", 1, {headers.RESTORED: "10"}, [True, False]),
        ("nobody died with what was handed over", 0, {headers.RESTORED: "01"}, [False, True]),
        ("an older worker does not write it", 0, {}, [False, False]),
        ("nor if a worker has died with the call", 1, {}, [True, True]),
        ("it is another recipe's", 1, {headers.RESTORED: "0"}, [True, True]),
    ],
)
def test_which_sessions_of_a_recipe_are_restored(why: str, deaths: int, given: Any, restored: list[bool]):
    sessions = [
        SessionRecipe(
            session_id=SessionId(name), service_name=ServiceName("echo"), created_at=OPENED, last_accessed=OPENED,
            timeout=60.0, metadata={}, life=name, restores=deaths,
        )
        for name in ("c-1", "c-1#echo")
    ]  # fmt: skip
    recipe = Recipe(call_id=CallId("c-1"), worker_id=W_1, revision=1, sessions=sessions)
    assert which_restored(recipe, given) == restored, why
