"""Figures, ratios and targets; tables and pictures of them."""

import io
import json
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from scripts.benchmarks import profile
from scripts.benchmarks.drawing import draw
from scripts.benchmarks.report import Machine, Plot, Report, Sample, Series, Subject, Target, figure
from scripts.benchmarks.show import cells, columns, show

MACHINE = Machine(cores=2, processor="p", memory_gb=1, system="s", python="3.11", rabbitmq="3.10")
TEN = Sample.of([number / 1000 for number in range(1, 11)])


def report(*figures) -> Report:
    return Report(made="2026-01-01", quick=False, machine=MACHINE, subjects={"tools": Subject(figures=list(figures))})


def test_a_figure_has_the_median_and_the_99th_percentile_in_milliseconds():
    one = figure("it", TEN)
    assert (one.value, one.p99, one.n, one.unit) == (5.5, 10.0, 10, "ms")


def test_a_ratio_is_how_many_times_the_reference_it_is():
    one = figure("it", 6.0, against={"sdk": 3.0, "peer": None})
    assert one.ratio("sdk") == 2.0
    assert one.ratio("peer") is None


@pytest.mark.parametrize(
    ("target", "against", "met", "said"),
    [
        (Target(5), {}, False, "below 5 ms"),
        (Target(7), {}, True, "below 7 ms"),
        (Target(2, "sdk"), {"sdk": 4.0}, True, "at most SDK alone + 2 ms"),
        (Target(1, "sdk"), {"sdk": 4.0}, False, "at most SDK alone + 1 ms"),
        (Target(0, "peer", 0.7), {"peer": 10.0}, True, "at most 0.7 × SignalWire's gateway"),
        (Target(0, "peer", 0.7), {}, None, "at most 0.7 × SignalWire's gateway"),
        (Target(0, "rest", 1.25), {"rest": 4.0}, False, "at most 1.25 × REST"),
    ],
)
def test_a_target_is_met_or_missed_or_not_known(target, against, met, said):
    one = figure("it", 6.0, against=against, target=target)
    assert (one.met, one.target) == (met, said)


def test_of_what_happens_in_a_second_more_is_better():
    four_times = Target(0, "peer", 4, unit="/s")
    assert figure("it", 41.0, unit="/s", against={"peer": 10.0}, target=four_times).met is True
    assert figure("it", 39.0, unit="/s", against={"peer": 10.0}, target=four_times).met is False


def test_a_table_has_the_references_that_were_measured():
    subject = Subject(figures=[figure("it", 6.0, against={"quorum": 3.0}), figure("other", 1.0)])
    assert columns(subject) == ["quorum"]
    assert cells(subject.figures[0], columns(subject)) == ["it", "6.00 ms", "", "2.00 (3.00 ms)", ""]


def test_what_an_earlier_run_has_measured_is_compared():
    console = Console(file=io.StringIO(), width=200)
    show(report(figure("it", 6.0), figure("new", 1.0)), console, before=report(figure("it", 3.0)))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "× before" in told
    assert "2.00 │" in told


def test_a_report_is_read_as_it_was_written():
    one = report(figure("it", TEN, against={"sdk": 3.0}, target=Target(5)))
    assert Report.model_validate(json.loads(one.model_dump_json())) == one


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_picture_has_every_series_and_is_well_formed(logarithmic: bool):
    names = ["one & two", "<three>"]
    lines = [Series(name=name, points=[(1.0, 2.0), (500.0, 0.0)]) for name in names]
    bars = [Series(name=name, points=[("a", 3.0), ("b", 0.0)]) for name in names]
    for kind, series, mark in (("lines", lines, "polyline"), ("bars", bars, "rect")):
        plot = Plot(name="p", title="t", kind=kind, x="x", y="ms", series=series, logarithmic=logarithmic)
        root = ET.fromstring(draw(plot))
        found = [element.text for element in root.iter() if element.tag.endswith("}text")]
        assert {*names, "t"} <= set(found)
        assert sum(element.tag.endswith(f"}}{mark}") for element in root.iter()) >= 2


def test_a_profile_is_told_by_the_innermost_part_that_is_known():
    stacks = (
        "main (/x/asyncio/runners.py:1);settle (/x/consumer/broker/settling.py:2);sub (/lib/re/__init__.py:3) 60\n"
        "main (/x/asyncio/runners.py:1) 39\n"
        "odd (/x/odd.py:1) 1\n"
    )
    shares = profile.read(stacks)
    assert [(one.part, one.share) for one in shares] == [("broker room", 0.6), ("event loop", 0.39), ("the rest", 0.01)]
