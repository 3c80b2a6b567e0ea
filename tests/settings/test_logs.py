"""Logs are events, one line each, and never tell a secret."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from consumer.observability import bound, configure_logging, get_logger

log = get_logger("tests.logs")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root, names = logging.getLogger(), ("consumer", "aiormq", "aio_pika")
    handlers, level, levels = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    yield
    root.handlers, root.level = handlers, level
    for name, was in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(was)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Any:
    def read() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return read


def test_an_event_is_one_line_of_json_with_its_time_in_utc(lines: Any) -> None:
    configure_logging("info", "json")
    log.info("session.created", call_id="c1", service="todo")
    (line,) = lines()
    told = json.loads(line)
    assert list(told) == ["timestamp", "level", "event", "call_id", "service"]
    assert (told["event"], told["level"], told["call_id"]) == ("session.created", "info", "c1")
    offset = datetime.fromisoformat(told["timestamp"]).utcoffset()
    assert offset is not None
    assert not offset


def test_the_standard_librarys_loggers_are_heard_from_info_on_in_our_package_only(lines: Any) -> None:
    configure_logging("info", "json")
    logging.getLogger("consumer.sessions.session_manager").info("session.ended", extra={"call_id": "c1"})
    logging.getLogger("consumer.sessions.session_manager").debug("not asked for")
    logging.getLogger("somebody.else").info("of no interest")
    (line,) = lines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["call_id"]) == ("session.ended", "info", "c1")


def test_auto_is_json_when_nobody_sits_there_and_readable_when_somebody_does(
    lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging("info", "auto")
    log.info("session.created")
    assert json.loads(lines()[0])["event"] == "session.created"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    configure_logging("info", "auto")
    log.info("session.created", call_id="c1")
    (line,) = lines()
    assert "session.created" in line
    assert "call_id=c1" in line
    assert "{" not in line


def test_lines_below_the_level_are_not_written(lines: Any) -> None:
    configure_logging("warning", "json")
    log.info("quiet")
    log.warning("loud")
    assert [json.loads(line)["event"] for line in lines()] == ["loud"]


def test_what_is_bound_for_a_delivery_is_in_each_of_its_lines(lines: Any) -> None:
    configure_logging("info", "json")
    with bound(call_id="c1", delivery=7):
        log.info("one")
        logging.getLogger("aio_pika").warning("two")
    log.info("three")
    assert [json.loads(line).get("call_id") for line in lines()] == ["c1", "c1", None]


def test_libraries_that_a_client_has_quieted_are_heard_again(lines: Any) -> None:
    logger = logging.getLogger("aiormq")
    logger.setLevel(logging.CRITICAL)
    configure_logging("info", "json")
    logger.error("lost")
    assert [json.loads(line)["event"] for line in lines()] == ["lost"]


def test_libraries_go_through_the_same_renderer_from_warning_up(lines: Any) -> None:
    configure_logging("debug", "json")
    for name in ("aio_pika", "aiormq.connection", "mcp.client", "asyncio"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).error("lost amqp://u:hunter2@h/ %s", "now")
    told = [json.loads(line) for line in lines()]
    assert [one["logger"] for one in told] == ["aio_pika", "aiormq.connection", "mcp.client", "asyncio"]
    assert {one["event"] for one in told} == {"lost amqp://u:***@h/ now"}


def test_warnings_of_python_become_lines(lines: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("info", "json")
        warnings.warn("old thing", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "old thing" in json.loads(lines()[0])["event"]


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_no_line_has_a_secret(lines: Any, fmt: Any) -> None:
    configure_logging("info", fmt)
    secret = "hunter2"  # a local variable: tracebacks must not show those
    try:
        raise ConnectionError(f"amqp://u:{secret}@h/")
    except ConnectionError:
        log.exception("broker.lost", url=f"amqp://u:{secret}@h", body={"headers": [{"Authorization": secret}]})
        logging.getLogger("aiormq").exception("lost")
    text = "\n".join(lines())
    assert secret not in text.replace('secret = "hunter2"', "")
    assert text.count("ConnectionError") >= 2


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_huge_value_does_not_flood(lines: Any, fmt: Any) -> None:
    configure_logging("info", fmt)
    log.info("big", body="x" * 1_000_000, many=list(range(100_000)))
    assert len("".join(lines())) < 5_000


def test_a_hostile_id_forges_no_line_and_drives_no_terminal(lines: Any) -> None:
    configure_logging("info", "console")
    log.info("call.started", call_id="x\n2026-01-01 [error] forged\x1b[2J")
    (line,) = lines()
    assert "\x1b[2J" not in line
    assert "\\n" in line


def test_configured_twice_a_line_is_written_once(lines: Any) -> None:
    configure_logging("info", "json")
    configure_logging("info", "json")
    logging.getLogger("mcp").warning("once")
    log.info("once")
    assert len(lines()) == 2


def test_a_reader_that_went_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def isatty(self) -> bool:
            return False

        def write(self, _text: str) -> int:
            raise BrokenPipeError

    configure_logging("info", "json")
    monkeypatch.setattr(sys, "stderr", Gone())
    log.info("into the void")
    logging.getLogger("mcp").error("into the void")
