"""Tables fit the screen and lose nothing; times and bars say what they should. No broker, no process."""

import io
import os
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from consumer.cli.screen import Width, age, answers, bar, duration, fit, shown, table
from consumer.cli.sessions import sessions_table
from schemas.ids import CallId, ServiceName, SessionId, WorkerId
from schemas.sessions import SessionInfo
from tests.programs import PROGRAM

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=120)


def printed(made: object, width: int) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, color_system=None)
    screen.print(made)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4), st.integers(50, 130))
def test_a_table_fits_and_loses_no_letter(rows: list[tuple[str, str, str]], width: int):
    lines = printed(table("ID", "B", "C", rows=rows, whole=["ID"], width=width), 2 * width)
    longest = max(len(row[0]) for row in rows)
    assert max(map(len, lines)) <= max(width, longest + 2 * (10 + 2))
    assert all(any(line.startswith(row[0]) for line in lines) for row in rows)
    letters = sorted("".join("".join(row) for row in rows))
    assert sorted("".join(lines[2:]).replace(" ", "")) == letters


def test_a_call_id_stays_in_one_piece_while_another_column_can_be_folded():
    call_id = "c3f1b5d3-98db-45a6-a20b-2cf0dd311efa"
    row = (call_id, "todo", "a-rather-long-host-name-of-a-worker-4711-abcdef", Text("━━━━━ 4m58s"))
    lines = printed(table("SESSION", "SERVICE", "WORKER", "LEFT", rows=[row], whole=["SESSION"], width=80), 80)
    assert any(line.startswith(call_id) and "━━━━━ 4m58s" in line for line in lines)


def test_an_id_is_printed_whole_on_a_terminal_that_is_narrower(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setenv("COLUMNS", "40")
    call_id = "v3:" + "a-very-long-id-of-a-call-leg-" * 3
    row = (call_id, "a description that is folded as narrow as it may be", Text("━━━━━ 4m58s"))
    answers().print(table("SESSION", "SERVICE", "LEFT", rows=[row], whole=["SESSION"]))
    assert any(line.startswith(f"{call_id}  ") for line in capsys.readouterr().out.splitlines())


def test_a_session_of_a_uuid_has_one_line_of_80_columns():
    call_id, worker, now = "c3f1b5d3-98db-45a6-a20b-2cf0dd311efa", "vm-19762-4b29a643", datetime.now(UTC)
    session = SessionInfo(
        session_id=SessionId(call_id),
        call_id=CallId(call_id),
        service_name=ServiceName("todo"),
        worker_id=WorkerId(worker),
        created_at=now - timedelta(seconds=119),
        last_accessed=now,
        timeout=3600,
        time_remaining=3599,
        metadata={},
        is_alive=True,
        is_expired=False,
    )
    *_, line = printed(sessions_table([session], width=80), 80)
    assert line.split() == [call_id, "todo", worker, "119s", "59m59s"]


def test_columns_are_narrowed_from_the_widest_on_and_ids_last():
    id_column, text, fixed = Width(50, 44, 10), Width(40, 10, 10), Width(8, 8, 8)
    assert fit([id_column, text, fixed], 98) == [50, 40, 8]
    assert fit([id_column, text, fixed], 80) == [44, 28, 8]
    assert fit([id_column, text, fixed], 50) == [32, 10, 8]
    assert fit([id_column, text, fixed], 5) == [10, 10, 8], "and no narrower than can be read"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (1e-7, "0.01ms"), (0.0003, "0.3ms"),
     (0.0123, "12ms"), (0.9996, "1s"), (1.26, "1.3s"), (9.0, "9s"), (9.99, "10s"), (42.4, "42s"),
     (59.7, "1m00s"), (300, "5m00s"), (3599.8, "1h00m"), (7800, "2h10m"), (90_000, "1d01h")],
)  # fmt: skip
def test_durations_are_said_in_two_units_at_most(seconds: float, said: str):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("ago", "said"), [(-5, "0s"), (42, "42s"), (119, "119s"), (150, "2m"), (7300, "2h"), (2e5, "2d")]
)
def test_ages_are_said_in_one_unit(ago: float, said: str):
    assert age((datetime.now(UTC) - timedelta(seconds=ago)).isoformat()) == said


def test_a_bar_shows_a_part_of_a_whole():
    assert bar(300, 300, "5m").plain == "━━━━━ 5m"
    assert bar(0, 300, "0s").plain == "───── 0s"
    assert bar(150, 300, "x").plain.count("━") in (2, 3)
    assert bar(7, 0, "7/0").plain == "───── 7/0"
    assert bar(400, 300, "x").plain == "━━━━━ x"


def test_what_would_drive_the_terminal_is_spelled_out():
    assert shown("a\x1b[31mb\r\n\u202ec") == "a\\x1b[31mb\\r\\n\\u202ec"
    assert shown("a\nb\tc\x07", lines=True) == "a\nb\tc\\x07"
    assert shown("+49 é 日本") == "+49 é 日本"


def test_a_pipe_gets_a_line_for_each_row_without_frame_and_filling():
    command = [str(PROGRAM), "topology", "show", "--prefix", "acme"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "TYPE", "WHY"]
    assert lines[1].split()[:3] == ["exchange", "acme.dead", "fanout"]
    assert lines == [line.rstrip() for line in lines]
    assert "─" not in ran.stdout
