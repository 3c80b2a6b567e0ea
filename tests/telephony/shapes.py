"""The samples, and short words for what a translation must come to."""

import json
from pathlib import Path
from typing import Any

from consumer.telephony import Ignored, Translated, Translation, Unrecognised, translate
from schemas.calls import CallEvent

SAMPLES = Path(__file__).parent.parent / "samples" / "call-events"

Body = dict[str, Any]


def manifest() -> list[Body]:
    return [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines() if line]


def rejects() -> list[Body]:
    return [json.loads(line) for line in (SAMPLES / "rejects.jsonl").read_text().splitlines() if line]


def sequences() -> list[Body]:
    found: list[Body] = json.loads((SAMPLES / "sequences.json").read_text())
    return found


def raw(file: str) -> bytes:
    return (SAMPLES / file).read_bytes()


def sample(file: str) -> Body:
    found: Body = json.loads(raw(file))
    return found


def outcome(body: object, **context: Any) -> Translation:
    found = translate(body if isinstance(body, bytes) else json.dumps(body).encode(), **context)
    assert not (isinstance(found, Unrecognised) and "translator failed" in found.problem), found
    return found


def event(body: object, **context: Any) -> CallEvent:
    found = outcome(body, **context)
    assert isinstance(found, Translated), found
    return found.event


def ignored(body: object) -> Ignored:
    found = outcome(body)
    assert isinstance(found, Ignored), found
    return found


def problem(body: object, **context: Any) -> str:
    found = outcome(body, **context)
    assert isinstance(found, Unrecognised), found
    return found.problem
