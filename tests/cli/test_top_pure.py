"""The parts of top that need neither a worker nor a terminal: what is known, what a key does, and what is drawn."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.calls.cluster.statistics import SPAN, Figures
from consumer.cli.events import about
from consumer.cli.top.head import per_second
from consumer.cli.top.keys import Keys
from consumer.cli.top.known import ClusterListing, Interruption, Known, Now, SessionRow, minute
from consumer.cli.top.picture import picture
from consumer.cli.top.start import snapshot
from consumer.cli.top.view import Close, Quit, View, chosen, pressed
from consumer.cli.top.watching import pause_after
from schemas.errors import StartTimeout
from schemas.events import CloudEvent
from schemas.ids import ServiceName, WorkerId

NOW = Now(1000.0, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


def info(session_id: str, *, service: str = "todo", worker: str = "w-1", age: float = 60, left: float = 30) -> Any:
    created = (NOW.date - timedelta(seconds=age)).isoformat()
    return {
        "session_id": session_id,
        "call_id": session_id.partition("#")[0],
        "service_name": service,
        "worker_id": worker,
        "created_at": created,
        "timeout": 300.0,
        "time_remaining": left,
        "restored": False,
    }


def event(what: str, session_id: str, **more: Any) -> CloudEvent:
    return CloudEvent(
        source="/mcp-sessions/w-1", type=f"mcp.session.{what}", subject=session_id, data=info(session_id, **more)
    )


def worker(worker_id: str, sessions: int = 3) -> dict[str, Any]:
    return {
        "worker_id": worker_id,
        "host": "a-host-with-a-long-name.example.com",
        "version": "0.1.0",
        "state": "ready",
        "started_at": NOW.date.isoformat(),
        "sessions": sessions,
        "capacity": 500,
        "services": {"todo": {"warm": 2}},
    }


def known(sessions: list[str], workers: int = 2) -> Known:
    made = Known("mcp on localhost:5672")
    listing = ClusterListing(
        [worker(f"host-{n}-{'x' * 20}-{n}") for n in range(workers)], {one: info(one) for one in sessions}
    )
    made.listed(listing, NOW.ticks)
    return made


@given(
    width=st.integers(20, 220),
    height=st.integers(1, 70),
    sessions=st.lists(st.text(min_size=1, max_size=80), max_size=40, unique=True),
    workers=st.integers(0, 30),
    events=st.integers(0, 20),
    keys=st.lists(
        st.sampled_from(["DOWN", "UP", "END", "PAGE_DOWN", "x", "/", "a", "s", "r", "?", "ENTER"]), max_size=6
    ),
)
@settings(max_examples=60, deadline=None)
def test_a_picture_has_the_size_of_its_screen_whatever_is_on_it(
    width: int, height: int, sessions: list[str], workers: int, events: int, keys: list[str]
):
    told, view = known(sessions, workers), View()
    for number in range(events):
        told.happened(event("created", f"event-{number}"), NOW.ticks)
    for key in keys:
        view, _ = pressed(view, key, told.sessions)
    drawn = picture(told, view, width, height, NOW)
    assert len(drawn) == height
    assert {line.cell_len for line in drawn} == {width}
    assert all(line.plain.isprintable() for line in drawn)


def test_thousands_of_sessions_are_drawn_as_far_as_they_fit_and_the_selected_one_is_among_them():
    told, view = known([f"call-{number:05}" for number in range(5000)]), View(sort="call")
    for key in ["END", "UP"]:
        view, _ = pressed(view, key, told.sessions)
    text = "\n".join(line.plain for line in picture(told, view, 100, 30, NOW))
    assert "call-04998" in text
    assert "-5000 of 5000" in text
    assert text.count("call-0") < 30


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_calls_services_and_workers_are_told_apart_on_every_screen(width: int):
    first, second = "c3f1b5d3-98db-45a6-a20b-2cf0dd311efa", "c3f1b5d3-98db-45b6-a20b-2cf0dd311efa"
    told = known([], workers=0)
    sessions = [(first, "todo"), (f"{first}#customer-database", "customer-database"), (second, "todo")]
    infos = {name: info(name, service=service, worker="vm-19762-4b29a643") for name, service in sessions}
    infos["c-1#mine"] = info("c-1#mine", worker="vm-19764-354e289e")
    workers = [worker("vm-19762-4b29a643"), worker("vm-19764-354e289e")]
    told.listed(ClusterListing(workers, infos), NOW.ticks)
    lines = [line.plain.split() for line in picture(told, View(sort="call"), width, 24, NOW)]
    assert [line[0] for line in lines if line and line[0].startswith(("c3", "c-1"))] == [
        "c-1#mine",  # its service does not tell which session of the call it is
        first,
        first,
        second,
    ]
    assert {line[0] for line in lines if line and line[0].startswith("vm-")} == {one["worker_id"] for one in workers}
    assert len({line[1] for line in lines if line and line[0] == first}) == 2
    assert len({line[2] for line in lines if line and line[0].startswith("c")}) == 2


def test_the_help_fits_the_narrowest_screen():
    assert not [line.plain for line in picture(known([]), View(mode="help"), 80, 24, NOW) if "…" in line.plain]


def test_what_happened_after_a_listing_was_asked_for_is_not_undone_by_it():
    told = known([])
    ended, created = event("closed", "gone"), event("created", "new")
    told.happened(ended, NOW.ticks)
    told.happened(created, NOW.ticks)
    told.listed(ClusterListing([], {"gone": info("gone")}), NOW.ticks, [ended, created])
    assert list(told.sessions) == ["new"]


def test_the_end_of_a_former_life_does_not_end_the_next_one():
    told = known([])
    told.happened(event("created", "call-1", worker="w-2"), NOW.ticks)
    told.happened(event("lost", "call-1", worker="w-1"), NOW.ticks)
    told.happened(event("rejected", "call-1"), NOW.ticks)
    told.happened(event("list_changed", "call-1", worker="w-2"), NOW.ticks)
    assert told.sessions["call-1"].worker == "w-2"


def test_the_reason_of_a_failed_start_is_read_whole_on_the_narrowest_screen():
    told = known([])
    reason = "todo: the server ended while it was starting (exit code 1): no database at db.example, and no other one"
    told.happened(event("created", "before"), NOW.ticks)
    rejected = event("rejected", "call-1")
    told.happened(rejected.model_copy(update={"data": rejected.data | {"message": reason}}), NOW.ticks)
    drawn = [line.plain for line in picture(told, View(), 80, 24, NOW)]
    assert reason in " ".join(" ".join(drawn).split())


def test_what_was_missed_without_a_connection_is_said_among_the_events():
    told = known([])
    told.happened(event("created", "call-1"), NOW.ticks)
    told.happened(Interruption(NOW.date, 12.3), NOW.ticks)
    text = "\n".join(line.plain for line in picture(told, View(), 80, 24, NOW))
    assert re.search(r"created +call-1 .*\n\d\d:\d\d:\d\d missed +events of 12s: the connection was lost", text)


def test_a_session_that_goes_leaves_the_selection_where_it_was():
    told, view = known(["a", "b", "c"]), View(sort="call")
    for key in ["DOWN", "DOWN"]:
        view, _ = pressed(view, key, told.sessions)
    told.happened(event("closed", "b"), NOW.ticks)
    view, _ = pressed(view, "x", told.sessions)
    assert view.asked == ("c", 1)
    assert pressed(view, "n", told.sessions)[1] is None
    assert pressed(view, "y", told.sessions)[1] == Close("c")
    assert pressed(view, "q", told.sessions)[1] is None
    assert pressed(View(), "q", told.sessions)[1] == Quit()


def test_every_order_is_an_order_of_all():
    told = known([])
    for name, service, on, age, left in (("a", "z", "w-2", 1, 9), ("b", "y", "w-3", 2, 8), ("c", "x", "w-1", 3, 7)):
        told.sessions[name] = SessionRow.of(info(name, service=service, worker=on, age=age, left=left), NOW.ticks)
    orders, view = {}, View()
    for _ in range(5):
        orders[view.sort] = "".join(one.session_id for one in chosen(told.sessions.values(), view))
        view, _action = pressed(view, "s", told.sessions)
    assert orders == {"age": "abc", "left": "cba", "service": "cba", "worker": "cab", "call": "abc"}
    assert view.sort == "age"


@pytest.mark.parametrize("cut", range(1, 20))
def test_keys_are_read_wherever_their_bytes_are_cut(cut: int):
    data = "a\x1b[Aé\x1bOB\x1b[5~\x1b[99~\r\x7f\x1b".encode()
    keys = Keys()
    assert keys.feed(data[:cut]) + keys.feed(data[cut:]) == ["a", "UP", "é", "DOWN", "PAGE_UP", "ENTER", "BACKSPACE"]
    assert keys.waiting
    assert keys.flush() == ["ESCAPE"]


def test_dead_letters_of_the_last_minute_are_counted_by_their_reasons_also_in_json():
    figures = {"worker_id": "w-1", "placer": True, "seconds": 60, "starts": 0, "ends": 0, "tools": {}}
    some = [{**figures, "parked": {"unrecognised": 2}}, {**figures, "parked": {"unrecognised": 1, "expired": 1}}]
    told = snapshot(Known("here", listing=ClusterListing([], {}, figures=some)))
    assert json.loads(json.dumps(told))["last_minute"]["dead_letters"] == {"unrecognised": 3, "expired": 1}


def test_a_service_is_failing_from_a_failed_start_to_the_next_one_that_works():
    at = 100.0
    figures = Figures(lambda: at)
    todo = ServiceName("todo")
    figures.start_failed(todo, StartTimeout("it was silent", stderr=""))
    at += 10 * SPAN
    assert figures.last_minute(WorkerId("w-1"), placer=False).failing["todo"].code == "START_TIMEOUT"
    figures.start_worked(todo)
    assert figures.last_minute(WorkerId("w-1"), placer=False).failing == {}


def test_figures_are_those_of_the_last_minute():
    at = 100.0
    figures = Figures(lambda: at)
    figures.started()
    for took in (0.010, 0.010, 0.010, 2.0):
        figures.called("todo", took, error=took > 1)
    figures.dead_lettered("unrecognised")
    at += 30
    told = figures.last_minute(WorkerId("w-1"), placer=False)
    assert (told.seconds, told.starts, told.ends, told.parked) == (30, 1, 0, {"unrecognised": 1})
    total = minute([told.model_dump(mode="json")])
    assert (total.calls, total.errors) == (4 / 30, 1 / 30)
    assert total.p50 == pytest.approx(0.010, rel=0.02)
    assert total.p95 == pytest.approx(2.0, rel=0.02)
    at += SPAN
    figures.ended()
    told = figures.last_minute(WorkerId("w-1"), placer=False)
    assert (told.starts, told.ends, told.tools, told.parked) == (0, 1, {}, {})


@pytest.mark.parametrize(
    ("took", "before", "pause"),
    [
        (0.1, 0.1, 1.0),
        (2.0, 2.0, 10.0),
        (2.0, 3.0, 10.0),
        (25.0, 0.1, 1.0),  # a broker that was stopped meanwhile
        (0.1, 25.0, 1.0),
        (25.0, 0.0, 1.0),  # the first round, or one after a round that failed
    ],
)
def test_only_what_takes_long_twice_in_a_row_is_asked_less_often(took: float, before: float, pause: float):
    assert pause_after(took, before, 1.0) == pause


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0.0"), (1 / 60, "0.02"), (0.09, "0.09"), (0.0951, "0.1"), (3.14, "3.1"), (99.94, "99.9"), (100, "100")],
)
def test_a_rate_that_is_low_is_not_told_as_none(value: float, told: str):
    assert per_second(value) == told


def test_an_end_tells_the_age_of_its_session_as_such():
    began = datetime(2026, 1, 1, tzinfo=UTC)
    data = {"service_name": "todo", "worker_id": "w-1", "reason": "idle", "created_at": began.isoformat()}
    event = CloudEvent(
        source="x", type="mcp.session.expired", subject="c-3", time=began + timedelta(seconds=671), data=data
    )
    assert about(event) == "todo idle age 11m11s on w-1"
