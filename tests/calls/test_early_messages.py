"""Messages that come through a new binding before the message that was placed: they wait for it, and not for long."""

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.calls.ownership.early_messages import EARLY_TIMEOUT, EarlyMessages
from tests.virtual_time import in_virtual_time, passes


class Line:
    """Messages that were held back, and those that went on."""

    def __init__(self) -> None:
        self.early = EarlyMessages()
        self.went: list[str] = []

    def comes(self, call: str, name: str) -> None:
        self.early.wait(call, lambda: self.went.append(name))


@in_virtual_time
async def test_what_waits_goes_on_in_order_when_its_call_has_been_placed():
    line = Line()
    for call, name in (("c-1", "a"), ("c-2", "x"), ("c-1", "b")):
        line.comes(call, name)
    assert line.went == []
    line.early.admit("c-1")
    assert line.went == ["a", "b"]
    line.early.admit("c-1")
    line.early.admit("c-3")
    await passes(EARLY_TIMEOUT * 2)
    assert line.went == ["a", "b", "x"], "once each"


@in_virtual_time
async def test_nothing_waits_for_longer_than_the_first_of_its_call_may():
    line = Line()
    line.comes("c-1", "a")
    await passes(EARLY_TIMEOUT * 0.9)
    line.comes("c-1", "b")
    assert line.went == []
    await passes(EARLY_TIMEOUT * 0.2)
    assert line.went == ["a", "b"]
    line.comes("c-1", "c")
    await passes(EARLY_TIMEOUT * 0.9)
    assert line.went == ["a", "b"], "it has a wait of its own"
    await passes(EARLY_TIMEOUT * 0.2)
    assert line.went == ["a", "b", "c"]


@in_virtual_time
async def test_what_comes_after_a_placement_has_a_wait_of_its_own():
    line = Line()
    line.comes("c-1", "a")
    await passes(EARLY_TIMEOUT * 0.9)
    line.early.admit("c-1")
    line.comes("c-1", "b")
    await passes(EARLY_TIMEOUT * 0.9)
    assert line.went == ["a"]


@in_virtual_time
async def test_what_goes_on_may_come_again():
    early, went = EarlyMessages(), []

    def again() -> None:
        went.append("again")
        if len(went) < 3:
            early.wait("c-1", again)

    early.wait("c-1", again)
    early.admit("c-1")
    assert went == ["again"], "what comes while the others go on waits anew"
    await passes(EARLY_TIMEOUT * 4)
    assert went == ["again"] * 3


@in_virtual_time
async def test_nothing_goes_on_once_the_owner_has_stopped():
    line = Line()
    line.comes("c-1", "a")
    line.early.stop()
    line.early.admit("c-1")
    await passes(EARLY_TIMEOUT * 2)
    assert line.went == []


STEPS = st.one_of(
    st.tuples(st.just("comes"), st.sampled_from(["c-1", "c-2"])),
    st.tuples(st.just("placed"), st.sampled_from(["c-1", "c-2"])),
    st.tuples(st.just("passes"), st.sampled_from([0.2, 0.4, 0.6])),
)


@settings(max_examples=50)
@given(st.lists(STEPS, max_size=12))
@in_virtual_time
async def test_every_message_goes_on_once_and_in_the_order_of_its_call(steps: list[tuple[str, str | float]]):
    line, came = Line(), 0
    for what, value in steps:
        if what == "passes":
            await passes(float(value))
        elif what == "placed":
            line.early.admit(str(value))
        else:
            line.comes(str(value), f"{value} {came}")
            came += 1
    await passes(EARLY_TIMEOUT * 1.1)
    for call in ("c-1", "c-2"):
        numbers = [int(name.split()[1]) for name in line.went if name.startswith(call)]
        assert numbers == sorted(numbers)
    assert len(line.went) == len(set(line.went)) == came
