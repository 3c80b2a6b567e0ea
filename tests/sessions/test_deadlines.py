"""The ordered set of deadlines, against a dictionary that is searched from end to end."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumer.sessions.ordered_deadlines import Deadlines

KEYS = st.integers(0, 9)
MOMENTS = st.integers(1, 50)


class DeadlinesMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.true: dict[int, float] = {}
        self.deadlines = Deadlines[int](self.true.__getitem__)

    @rule(key=KEYS, ahead=MOMENTS)
    def add_or_bring_nearer_or_move_away(self, key: int, ahead: float) -> None:
        self.true[key] = self.now + ahead
        self.deadlines.add(key)

    @rule(key=KEYS, further=MOMENTS)
    def move_away_without_a_word(self, key: int, further: float) -> None:
        if key in self.true:
            self.true[key] += further

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        self.deadlines.discard(key)
        self.true.pop(key, None)

    @rule(passed=MOMENTS)
    def time_passes(self, passed: float) -> None:
        self.now += passed
        due = []
        for key in self.deadlines.pop_due(self.now):
            due.append(key)
            del self.true_or_seen(key)[key]
        assert all(moment > self.now for moment in self.true.values())
        assert len(due) == len(set(due))

    def true_or_seen(self, key: int) -> dict[int, float]:
        assert self.true[key] <= self.now
        return self.true

    @invariant()
    def every_key_is_watched_and_looked_at_in_time(self) -> None:
        if not hasattr(self, "true"):
            return
        assert len(self.deadlines) == len(self.true)
        check = self.deadlines.next_check()
        assert (check is None) == (not self.true)
        assert check is None or check <= min(self.true.values())


TestDeadlines = DeadlinesMachine.TestCase


def test_what_is_due_comes_in_order_however_it_was_added() -> None:
    moments = {"c": 3.0, "a": 1.0, "b": 2.0, "d": 4.0}
    deadlines = Deadlines[str](moments.__getitem__)
    for key in moments:
        deadlines.add(key)
    assert list(deadlines.pop_due(3.0)) == ["a", "b", "c"]
    assert deadlines.next_check() == 4.0


def test_keys_may_be_added_and_discarded_while_what_is_due_is_read() -> None:
    moments = {"a": 1.0, "b": 2.0, "late": 9.0, "new": 2.5}
    deadlines = Deadlines[str](moments.__getitem__)
    for key in ("a", "b", "late"):
        deadlines.add(key)
    seen = []
    for key in deadlines.pop_due(5.0):
        seen.append(key)
        if key == "a":
            deadlines.discard("b")
            deadlines.add("new")
    assert seen == ["a", "new"]
    assert len(deadlines) == 1


def test_ten_thousand_touches_leave_one_entry_and_removed_keys_leave_none() -> None:
    moments: dict[object, float] = {"touched": 1.0}
    deadlines = Deadlines[object](moments.__getitem__)
    deadlines.add("touched")
    for second in range(10_000):
        moments["touched"] = second + 1.5
        assert list(deadlines.pop_due(second)) == []
        assert deadlines.entries == 1
    for number in range(10_000):
        moments[number] = 1e9 + number
        deadlines.add(number)
        deadlines.discard(number)
        assert deadlines.entries < 100


def test_what_is_discarded_after_a_peak_is_let_go() -> None:
    deadlines = Deadlines[int](float)
    for number in range(1_000):
        deadlines.add(number)
    for number in range(1_000):
        deadlines.discard(number)
    assert deadlines.entries < 100
