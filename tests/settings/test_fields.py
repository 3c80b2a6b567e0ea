"""A setting is said once: its meaning stands below its field, and whether a running worker takes it on at its type."""

import pytest

from consumer.settings import SessionSettings, WorkerSettings
from consumer.settings.fields import (
    Reloadable,
    first_sentence,
    meaning_of,
    needing_restart,
    reloadable_fields,
    reloaded,
)
from docs.generate.markdown import Undocumented
from docs.generate.settings import PARTS, SECTIONS
from schemas.base import Section


class Example(Section):
    kept: int = 1
    """What the names are made of. It is part of a queue."""
    taken_on: Reloadable[int] = 2
    """How long
    to wait."""
    bare: int = 3


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_says_what_it_means(section: str) -> None:
    model = SECTIONS[section]
    assert [name for name in model.model_fields if not meaning_of(model, name)] == []


def test_a_setting_that_says_nothing_stops_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SECTIONS, "route", Example)
    with pytest.raises(Undocumented, match="nothing is written about bare"):
        PARTS["route-settings"]()


def test_a_meaning_is_one_line_and_its_first_sentence_is_enough_for_a_fault() -> None:
    assert meaning_of(Example, "taken_on") == "How long to wait."
    assert first_sentence(meaning_of(Example, "kept")) == "What the names are made of."
    assert first_sentence(meaning_of(Example, "bare")) == ""


def test_a_running_worker_takes_on_what_is_marked_and_names_the_rest() -> None:
    running, given = Example(), Example(kept=7, taken_on=8, bare=3)
    assert reloadable_fields(Example) == ("taken_on",)
    assert reloaded(running, given) == Example(kept=1, taken_on=8)
    assert list(needing_restart(running, given)) == ["kept"]


def test_the_timings_of_a_call_can_change_and_the_names_on_the_broker_cannot() -> None:
    assert {"admission_wait", "ring_timeout", "drain", "log_level"} <= set(reloadable_fields(WorkerSettings))
    assert not {"prefix", "grace", "tombstone"} & set(reloadable_fields(WorkerSettings))
    assert set(SessionSettings.model_fields) - set(reloadable_fields(SessionSettings)) == {
        "max_metadata",
        "sandbox_dir",
    }
