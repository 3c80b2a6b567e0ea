"""A client tells of an outage of its broker in a line each: its beginning, its causes, its end; without tracebacks."""

import asyncio
import logging
from collections.abc import Callable
from itertools import groupby

import pytest
from structlog.testing import capture_logs

from consumer.client import SessionClient
from infra.broker import PrivateBroker
from tests.harness import WAIT, declare_events


async def test_an_outage_is_lost_reconnecting_and_reconnected(
    own_broker: PrivateBroker, caplog: pytest.LogCaptureFixture
):
    for library in ("aiormq", "aio_pika"):
        caplog.set_level(logging.INFO, library)  # a program that wants to hear them
    await declare_events(own_broker.url, "mcp")
    async with SessionClient(own_broker.url) as client, client.following():
        # A node that is killed first may not have written yet what has just been declared.
        for break_down in (own_broker.stop, own_broker.kill):
            await outage(own_broker, client, break_down)
    assert [one.getMessage() for one in caplog.records if one.exc_info or one.levelno >= logging.ERROR] == []


async def outage(node: PrivateBroker, client: SessionClient, break_down: Callable[[], None]) -> None:
    """Break the broker down and start it again."""
    with capture_logs() as lines:

        async def told(event: str) -> None:
            try:
                async with asyncio.timeout(2 * WAIT):  # a node that starts accepts connections before it answers them
                    while not any(one["event"] == event for one in lines):
                        await asyncio.sleep(0.02)
            except TimeoutError:
                raise AssertionError(f"no {event} among {lines}") from None

        await asyncio.to_thread(break_down)
        await told("broker.reconnecting")
        await asyncio.to_thread(node.start)
        await told("broker.reconnected")
    assert client.connected
    loud = [one["event"] for one in lines if one["log_level"] not in ("debug", "info")]
    assert [event for event, _ in groupby(loud)] == ["broker.lost", "broker.reconnecting", "broker.reconnected"]
    causes = [one["error"] for one in lines if one["event"] == "broker.reconnecting"]
    assert len(causes) == len(set(causes)), "a line for each cause, of which a start has several"
    assert lines[-1]["away_s"] > 0
