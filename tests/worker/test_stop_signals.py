"""What signals ask for, by the clock."""

from signal import SIGINT, SIGTERM

import pytest

from consumer.worker.stop_signals import StopSignals


@pytest.mark.parametrize(
    ("told", "wishes"),
    [
        ([(SIGTERM, 0), (SIGTERM, 0), (SIGTERM, 2), (SIGTERM, 4.9)], ["LEAVE", "SAME", "SAME", "SAME"]),
        ([(SIGTERM, 0), (SIGTERM, 6), (SIGTERM, 7), (SIGTERM, 12)], ["LEAVE", "HURRY", "SAME", "HURRY"]),
        ([(SIGINT, 0), (SIGINT, 0.05), (SIGINT, 0.5), (SIGINT, 1)], ["LEAVE", "SAME", "HURRY", "HURRY"]),
        ([(SIGINT, 0), (SIGTERM, 0.1), (SIGTERM, 3)], ["LEAVE", "SAME", "SAME"]),
        ([(SIGTERM, 0), (SIGINT, 0.01)], ["LEAVE", "HURRY"]),
        ([(SIGTERM, 0), (SIGTERM, 1), (SIGINT, 1.5)], ["LEAVE", "SAME", "HURRY"]),
    ],
)
def test_a_wish_that_is_only_repeated_is_told_from_a_new_one(told: list[tuple[int, float]], wishes: list[str]) -> None:
    signals = StopSignals()
    assert [signals.received(number, 1000.0 + at).name for number, at in told] == wishes
