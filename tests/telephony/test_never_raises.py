"""Whatever comes: one of three outcomes, and an event that can be sent on."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer.telephony import Ignored, Translated, Unrecognised, registry, translate
from consumer.telephony.platforms import openai
from consumer.telephony.registry import TRANSLATORS
from schemas.calls import CallEvent
from tests.telephony.shapes import Body, manifest, outcome, raw, sample

MODERATE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# surrogates, NaN and numbers of any size are valid input to a JSON parser
TEXTS = st.one_of(st.text(max_size=20), st.text(st.characters(), max_size=8), st.just("\ud800"), st.just("x" * 300))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just(10**400))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
ODD: list[Any] = [None, "", [], {}, -1, 1.5, "\ud800", [[]], {"call_id": {}}]
FILES = [line["file"] for line in manifest()]
KNOWN_KEYS = sorted({key for file in FILES for key in sample(file)} | {"kind", "call_info", "call", "message", "Event"})


def check(body: bytes) -> None:
    found = outcome(body)
    assert isinstance(found, Translated | Ignored | Unrecognised)
    if isinstance(found, Translated):
        again = CallEvent.model_validate_json(found.event.model_dump_json())
        assert again == found.event or found.event.source == "custom"  # NaN is null on the wire
        assert len(found.event.attributes) <= 64 or found.event.source == "custom"
    elif isinstance(found, Ignored):
        assert found.what
        assert len(found.what) <= 200
    else:
        assert found.problem
        assert "\n" not in found.problem


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, child in inner for found in [(*path, key), *places(child, (*path, key))]]


@given(st.binary(max_size=200))
@MODERATE
def test_any_bytes(body: bytes) -> None:
    check(body)


@given(st.text(max_size=200), st.sampled_from([None, "application/json", "application/x-www-form-urlencoded"]))
@MODERATE
def test_any_text_under_any_content_type(body: str, content_type: str | None) -> None:
    found = translate(body.encode(errors="surrogatepass"), content_type=content_type)
    assert isinstance(found, Translated | Ignored | Unrecognised)


@given(VALUES)
@MODERATE
def test_any_json(value: object) -> None:
    check(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from(KNOWN_KEYS), VALUES, max_size=8))
@MODERATE
def test_any_object_of_known_fields(body: Body) -> None:
    check(json.dumps(body).encode())


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_samples_with_fields_lost_and_retyped(data: st.DataObject) -> None:
    body = sample(data.draw(st.sampled_from(FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        found = places(body)
        if not found:
            break
        *path, last = data.draw(st.sampled_from(found))
        target: Any = body
        for key in path:
            target = target[key]
        if isinstance(target, dict) and data.draw(st.booleans()):
            del target[last]
        else:
            target[last] = data.draw(VALUES)
    check(json.dumps(body).encode())


@given(st.sampled_from(FILES), st.data())
@MODERATE
def test_samples_cut_short_or_with_a_byte_changed(file: str, data: st.DataObject) -> None:
    body = raw(file)
    at = data.draw(st.integers(0, len(body) - 1))
    check(body[:at])
    check(body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + 1 :])


@pytest.mark.parametrize("file", FILES)
def test_every_sample_with_each_single_field_lost_or_odd(file: str) -> None:
    for *path, last in places(sample(file)):
        for odd in ODD:
            body = sample(file)
            target: Any = body
            for key in path:
                target = target[key]
            target[last] = odd
            check(json.dumps(body).encode())


def test_a_defect_of_a_shape_makes_one_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> bool:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(registry, "fits", broken)
    assert translate(b'{"CallSid": "c-1"}') == Unrecognised("the shapes failed with ZeroDivisionError: oops")


def test_a_defect_of_a_translator_makes_one_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(payload: object) -> bool:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(openai, "translate", broken)
    assert translate(raw("openai/realtime_incoming.json")) == Unrecognised(
        "openai: the translator failed with ZeroDivisionError: oops"
    )


def test_sources_are_unique() -> None:
    assert len({translator.SOURCE for translator in TRANSLATORS}) == len(TRANSLATORS)
