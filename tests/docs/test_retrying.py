"""What the references say of an error is what its class says: whether it was executed, and may be repeated."""

import re
from collections.abc import Iterator

import pytest

from consumer.asyncapi import document
from consumer.broker.topology import Names, cluster_topology
from consumer.calls.requests.idempotency import KEEP
from consumer.gateway.statuses import answer_of
from consumer.settings.models import WorkerSettings
from schemas.errors import ClientError, Disconnected, NotRouted, NotRoutedReason, SessionsError, by_code
from tests.docs.blocks import PAGES


def below(root: type[SessionsError]) -> Iterator[type[SessionsError]]:
    for child in root.__subclasses__():
        yield child
        yield from below(child)


NAMES = Names()
CLIENTS = {one.__name__: one for one in below(ClientError)}


def table(page: str, heading: str) -> Iterator[dict[str, str]]:
    """The rows of the first table below a heading."""
    lines = iter(PAGES[page].read_text().partition(f"\n## {heading}\n")[2].splitlines())
    names = next([cell.strip(" `") for cell in line.split("|")] for line in lines if line.startswith("|"))
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield dict(zip(names, (cell.strip(" `") for cell in line.split("|")), strict=False))


def test_the_wire_reference_says_of_each_code_what_its_class_says():
    rows = {row["error.code"]: (row["executed"], row["retryable"]) for row in table("docs/wire.md", "Error codes")}
    assert rows == {
        code.value: ("no" if one.executed is False else "unknown", "yes" if one.retryable else "no")
        for code, one in by_code().items()
    }


def test_the_clients_reference_says_of_each_error_what_its_class_says():
    rows = {row["class"]: row for row in table("docs/client.md", "Errors")}
    assert rows.keys() == CLIENTS.keys()
    for name, row in rows.items():
        if name != "Disconnected":
            assert row["executed"] == ("no" if CLIENTS[name].executed is False else "unknown")
            assert row["retryable"] == ("yes" if CLIENTS[name].retryable else "no")
    assert re.match("no, or unknown", rows["Disconnected"]["executed"])
    assert [Disconnected("", executed=sure).retryable for sure in (False, None)] == [True, False]


@pytest.mark.parametrize("page", ["README.md", "docs/guides/tools.md"])
def test_how_long_answers_are_kept_is_said_as_it_is(page: str):
    said = " ".join(PAGES[page].read_text().split())
    assert (KEEP, WorkerSettings().tombstone) == (600, 30)
    assert "The owner keeps answers for ten minutes" in said
    assert re.search(r"30 seconds [^.]*(`worker\.tombstone`)?[^.]* last session", said)


_KEY = re.compile(r"same `+(?:idempotency_key|Idempotency-Key)|without an `+(?:idempotency_key|Idempotency-Key)`+ if")
_BOUND = re.compile(r"owner|#at-most-once|answers for ten|ten\s+minutes")


@pytest.mark.parametrize("page", sorted(PAGES))
def test_whoever_advises_to_repeat_a_call_says_how_long_its_key_is_known(page: str):
    parts = re.split(r"\n\s*\n|\n(?=[|-] )", PAGES[page].read_text())
    assert [part for part in parts if _KEY.search(part) and not _BOUND.search(part)] == []


def test_only_what_was_certainly_not_executed_may_be_repeated():
    assert [one for one in below(SessionsError) if one.retryable and one.executed is not False] == []


def test_asyncapi_names_the_codes_that_may_be_repeated():
    codes = document(NAMES, cluster_topology(NAMES))["components"]["schemas"]["ErrorCode"]["x-retryable"]
    assert codes == [code.value for code, one in by_code().items() if one.retryable]


@pytest.mark.parametrize("kind", [*by_code().values(), *CLIENTS.values()], ids=lambda kind: kind.__name__)
def test_http_says_the_same(kind: type[SessionsError]):
    error = NotRouted("it failed", reason=NotRoutedReason.NO_WORKER) if kind is NotRouted else kind("it failed")
    status, answer = answer_of(error)
    assert answer.retryable == error.retryable
    assert status == 503 or not answer.retryable
