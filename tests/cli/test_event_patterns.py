"""A pattern of ``mcp-sessions events`` fits some event, or is refused with what may have been meant."""

import pytest
import typer

from consumer.cli.events import topic


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("#", "#"),
        ("*", None),
        ("rejected", "*.rejected.#"),
        ("draining", "*.draining.#"),
        ("session.#", "session.#"),
        ("session.rejected", None),
        ("session.rejected.any-service", "session.rejected.any-service"),
        ("session.*.todo", "session.*.todo"),
        ("#.todo", "#.todo"),
        ("worker.*", "worker.*"),
        ("worker.started.#", "worker.started.#"),
        ("worker.closed", None),
        ("session.closed.todo.more", None),
    ],
)
def test_a_pattern_fits_a_type_of_event_or_is_refused(pattern: str, expected: str | None):
    if expected is None:
        with pytest.raises(typer.BadParameter, match=r"no event fits .*WHAT"):
            topic(pattern)
    else:
        assert topic(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("rejectd", "rejected"),
        ("sesion.#", "session.#"),
        ("session.closd.todo", "session.closed.todo"),
        ("workers.draining", "worker.draining"),
    ],
)
def test_a_misspelt_pattern_is_refused_with_what_was_meant(pattern: str, meant: str):
    with pytest.raises(typer.BadParameter, match=f"no event fits '{pattern}'; did you mean '{meant}'"):
        topic(pattern)
