"""What is told has no secrets and a bounded size."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.observability.masking import _IN_TEXT, MAX_TEXT, is_secret_key, mask_text, masked


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "auth_token",
        "X-Api-Key",
        "apikey",
        "clientSecret",
        "accessToken",
        "Authorization",
        "set-cookie",
        "db.password",
        "pwd",
    ],
)
def test_keys_that_are_named_like_secrets_are_secret(key: str) -> None:
    assert is_secret_key(key)
    assert masked({"a": [{key: "hunter2"}]}) == {"a": [{key: "***"}]}


@pytest.mark.parametrize(
    "key", ["call_id", "idempotency_key", "tokens", "token_count", "max_tokens", "key", "routing_key", "author"]
)
def test_other_keys_are_not(key: str) -> None:
    assert masked({key: "v"}) == {key: "v"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("amqps://user:hunter2@host:5671/v", "amqps://user:***@host:5671/v"),
        ("amqp://user:p@ss:w@host/", "amqp://user:***@host/"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("no password: amqp://host:5672/ a@b", "no password: amqp://host:5672/ a@b"),
        ("sip:alice@example.com", "sip:alice@example.com"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer ***"),
        ("GET /x?token=hunter2&y=1", "GET /x?token=***&y=1"),
        ('{"api_key": "hunter2", "b": 1}', '{"api_key": "***", "b": 1}'),
        ("Unexpected token: hello", "Unexpected token: hello"),
    ],
)
def test_secrets_in_a_text_are_masked_and_the_rest_is_kept(text: str, told: str) -> None:
    assert mask_text(text) == told


def test_a_long_text_loses_its_middle() -> None:
    told = mask_text("a" * 10_000 + "z" * 10_000)
    assert len(told) < MAX_TEXT + 50
    assert told.startswith("aaa")
    assert told.endswith("zzz")


def test_a_password_that_is_cut_is_masked_all_the_same() -> None:
    for shift in range(0, 60, 3):
        url = "x" * (MAX_TEXT // 2 - 40 + shift) + "://user:" + "hunter2" * 5 + "@host/" + "y" * MAX_TEXT
        assert "hunter2" not in mask_text(url)


def test_a_huge_value_stays_small() -> None:
    deep: Any = "bottom"
    for _ in range(2_000):
        deep = [deep]
    wide = {f"k{number}": [list(range(100))] * 100 for number in range(1_000)}
    assert len(json.dumps(masked(deep))) < 200
    assert len(json.dumps(masked(wide))) < 20_000
    assert masked({"body": b"x" * 1_000_000}) == {"body": "<1000000 bytes>"}


def test_objects_become_their_masked_repr_and_a_failing_repr_fails_nothing() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "hunter2" not in masked({"error": ConnectionError("amqp://u:hunter2@h failed")})["error"]
    assert masked(Bad()) == "<Bad: RuntimeError in its repr>"
    assert masked(float("nan")) == "nan"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(anything)
def test_whatever_is_logged_can_be_written_as_json(value: Any) -> None:
    json.dumps(masked(value), allow_nan=False)


PIECES = [
    "://",
    "user",
    ":",
    "@",
    "…(+",
    ")…",
    "bearer ",
    "Basic\u00a0",
    "password",
    "api_key",
    "=",
    '"',
    "'",
    ": ",
    "x" * 9,
    "/",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_a_text_that_is_not_looked_at_closely_has_nothing_to_hide(pieces: list[str]) -> None:
    text = masked_closely = "".join(pieces)
    for pattern, replacement in _IN_TEXT:
        masked_closely = pattern.sub(replacement, masked_closely)
    assert mask_text(text) == masked_closely
