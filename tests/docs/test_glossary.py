"""The glossary has each word once, in the order of the alphabet, and one meaning for it everywhere on its page."""

import re
from typing import get_args

from schemas.events import EndReason
from schemas.sessions import WorkerState
from tests.docs.blocks import PAGES


def meanings(heading: str) -> list[tuple[str, str]]:
    """The rows of the table below a heading of concepts."""
    section = PAGES["docs/concepts.md"].read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| ")]
    return [(word, meaning) for word, meaning in rows if word not in ("word", "---")]


def test_each_word_stands_once_and_in_order():
    words = [word for word, _ in meanings("Glossary")]
    assert words == sorted(set(words))


def test_the_words_at_the_beginning_are_in_the_glossary():
    first = {word.partition(",")[0] for word, _ in meanings("Words")}
    assert first <= {word for word, _ in meanings("Glossary")}


def test_what_the_log_the_events_and_the_states_call_a_worker_that_goes_is_in_the_glossary():
    told = dict(meanings("Glossary"))
    events = set(re.findall(r"^\| `([a-z_.]+)` \|", PAGES["docs/operations/log-events.md"].read_text(), re.MULTILINE))
    assert {"worker.draining", "gateway.draining", "placer.owner_gone"} <= events
    assert "draining" in get_args(WorkerState)
    assert "draining" in told["drain"]
    assert {EndReason.WORKER_GONE.value, "placer.owner_gone"} <= set(re.findall("`([^`]+)`", told["gone"]))
