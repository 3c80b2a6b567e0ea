"""What of a message comes over the border, and by whom it was published; pure."""

import time
from typing import Any

import pytest

from consumer.broker.message import CALL_HEADER, Delivery, Message
from consumer.broker.topology import Names
from consumer.calls.messages.border import FURTHEST, admitted
from consumer.calls.messages.origin import MOST_USERS, Origins
from consumer.calls.messages.parsing import read_addressed
from schemas import headers
from schemas.errors import InvalidMessage
from schemas.ids import WorkerId

NAMES = Names()
INBOX = NAMES.inbox(WorkerId("w-1"))


def delivery(
    kind: str = "session.get",
    *,
    exchange: str = "mcp.sessions",
    queue: str = INBOX,
    key: str = "c-1",
    user: str | None = None,
    by_worker: bool = False,
    body: bytes = b'{"session_id": "c-1"}',
    **given: Any,
) -> Delivery:
    message = Message(body, type=kind, headers=given.pop("given", {}), **given)
    return Delivery(message, queue, exchange, key, False, 0.0, None, user=user, by_worker=by_worker)


def test_a_worker_brings_every_header_and_others_only_their_deadline():
    deadline = str(round(time.time() * 1000) + 5000)
    given = {headers.RETURNS: 1, headers.DEADLINE: deadline, CALL_HEADER: "c-1", "x-mcp-other": 1, "traceparent": "t"}
    assert admitted(delivery(given=given, by_worker=True), NAMES).message.headers == given
    assert admitted(delivery(given=given), NAMES).message.headers == {headers.DEADLINE: deadline, "traceparent": "t"}


def test_further_routing_keys_are_for_the_first_publication_alone():
    given = {"CC": ["payroll"], "BCC": 1, "cc": "kept"}
    assert Message(b"", headers=given).again().headers == {"cc": "kept"}
    assert admitted(delivery(given=given), NAMES).message.headers == {"cc": "kept"}


@pytest.mark.parametrize("kind", ["session.close", "sessions.list", "workers.list", "", "session.create"])
def test_a_deadline_that_does_not_apply_is_not_read(kind: str):
    """In a call event it is never read, whatever its type is: an end must not be lost."""
    given = {headers.DEADLINE: "soon"}
    assert admitted(delivery(kind, queue=NAMES.calls, given=given), NAMES).message.headers == {}
    if kind != "session.create":
        assert admitted(delivery(kind, given=given), NAMES).message.headers == {}


@pytest.mark.parametrize("kind", ["session.create", "session.touch", "tools.call", "resources.list"])
def test_a_wrong_deadline_is_refused_where_it_applies(kind: str):
    with pytest.raises(InvalidMessage, match="x-mcp-deadline"):
        admitted(delivery(kind, given={headers.DEADLINE: "soon"}), NAMES)


@pytest.mark.parametrize("by_worker", [True, False])
def test_deaths_are_believed_only_where_the_broker_brings_dead_letters(by_worker: bool):
    given = {"x-death": [{"queue": INBOX}], "x-first-death-queue": INBOX}
    fresh = delivery(given=given, queue=NAMES.unowned, by_worker=by_worker)
    assert admitted(fresh, NAMES).message.headers == {}
    dead = delivery(given=given, queue=NAMES.unowned, exchange=NAMES.unowned, by_worker=by_worker)
    assert admitted(dead, NAMES).message.headers == given


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (headers.PLACEMENT, "no number"),
        (headers.PLACEMENT, "/1"),
        (headers.PLACEMENT, "p/" + "1" * 19),
        (headers.PLACEMENT, "p" * 4000 + "/1"),
        (headers.BELIEVED, 7),
        (headers.RETURNS, "1"),
        (headers.RETURNS, -1),
        (headers.DEATHS, True),
        (headers.DEATHS, 1.5),
        (headers.RETURNED, ""),
        (headers.RETURNED, "w" * 4000),
        (headers.REFUSED, ["w"]),
        (headers.RESENT, "yes"),
        (headers.ORPHAN_OF, None),
        (headers.LOST, "yes"),
        (headers.STARTED, "soon"),
        (headers.COMMANDED, "soon"),
        (headers.RESTORED, 1),
        (headers.RESTORED, "12"),
        (headers.ADMISSION, "soon"),
        (headers.ADMISSION, "nan"),
        (headers.DEADLINE, {"a": 1}),
        (CALL_HEADER, 1),
    ],
)
def test_a_header_that_is_not_as_it_must_be_is_named(name: str, value: Any):
    with pytest.raises(InvalidMessage, match=name):
        admitted(delivery(given={name: value}, by_worker=True), NAMES)


@pytest.mark.parametrize("value", ["1e300", "inf", str(10**25), "-inf", 10**25])
def test_no_moment_is_far_away(value: Any):
    kept = admitted(delivery(given={headers.DEADLINE: value}), NAMES).message.headers[headers.DEADLINE]
    assert abs(float(kept) / 1000 - time.time()) < FURTHEST + 1


def test_seconds_are_not_taken_for_a_moment_of_long_ago():
    with pytest.raises(InvalidMessage, match="must be in milliseconds since the epoch, not in seconds"):
        admitted(delivery(given={headers.DEADLINE: str(time.time() + 5)}), NAMES)


def test_counts_have_a_bound():
    assert admitted(delivery(given={headers.DEATHS: 2**62}, by_worker=True), NAMES).message.headers == {
        headers.DEATHS: 1000
    }


def test_it_is_said_what_a_client_should_do_instead():
    for wrong, instead in (
        (delivery("call.started"), "publish the call event to the exchange 'mcp.calls' instead"),
        (delivery("call.recipe"), "only workers may send call.recipe"),
        (delivery(exchange="", key=INBOX), "publish it to 'mcp.sessions' or 'mcp.requests'"),
        (delivery(reply_to=INBOX), "use your own queue"),
    ):
        with pytest.raises(InvalidMessage, match=instead):
            admitted(wrong, NAMES)
    admitted(delivery("sessions.list", exchange="", queue=NAMES.queries, key=NAMES.queries, body=b"{}"), NAMES)
    admitted(delivery("call.started", exchange="", queue=NAMES.calls, key=NAMES.calls), NAMES)


def test_a_key_is_compared_with_the_call_that_the_body_names():
    assert read_addressed(delivery(), NAMES)[0] == "c-1"
    assert (
        read_addressed(delivery(exchange="", key=INBOX, given={CALL_HEADER: "c-1"}, by_worker=True), NAMES)[0] == "c-1"
    )
    for wrong in (delivery(key="c-2"), delivery(key=""), delivery(exchange="", key=INBOX, given={CALL_HEADER: "c-2"})):
        with pytest.raises(InvalidMessage, match="'c-1'"):
            read_addressed(wrong, NAMES)


# Who is a worker.


def test_workers_are_known_by_our_user_and_by_what_they_sign_for_all():
    origins = Origins(NAMES, lambda: "worker")
    assert origins.by_worker(delivery(user="worker"))
    assert not origins.by_worker(delivery(user="client"))
    assert not origins.by_worker(delivery())
    assert not origins.heard(delivery("worker.presence", exchange="", user="other")), "straight into the queue"
    assert not origins.by_worker(delivery(user="other"))
    assert origins.heard(delivery("worker.presence", exchange=NAMES.workers, user="other"))
    assert origins.by_worker(delivery(user="other"))


def test_what_bears_no_name_is_nobodys():
    origins = Origins(NAMES, lambda: "worker")
    for kind in ("worker.presence", "worker.report", "worker.endings", "worker.closings", "call.recipe", ""):
        assert not origins.heard(delivery(kind, exchange=NAMES.workers))
    assert not origins.by_worker(delivery())
    assert not Origins(NAMES, lambda: None).by_worker(delivery()), "without a link as well"


def test_as_many_users_of_workers_are_known_as_there_may_be():
    origins = Origins(NAMES, lambda: "worker")
    for number in range(MOST_USERS + 1):
        origins.heard(delivery(exchange=NAMES.workers, user=f"u-{number}"))
    assert not origins.by_worker(delivery(user="u-0"))
    assert origins.by_worker(delivery(user=f"u-{MOST_USERS}"))
