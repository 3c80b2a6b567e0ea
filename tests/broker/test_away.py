"""A broker that stays away is told of in one line, and then once a minute."""

import tenacity

from consumer.broker import supervisor
from tests.harness import Cluster, config
from tests.proxy import proxy_to, through


async def test_a_worker_tells_once_that_it_is_cut_off(mcp: Cluster):
    async with proxy_to(mcp.url) as proxy:
        worker = await mcp.start(config(worker={"log_level": "debug"}), AMQP_URL=through(mcp.url, proxy))
        await mcp.client.create("c-1", "echo")
        await proxy.close()
        since = worker.records.index(await worker.logged("broker.lost")) + 1

        def failed() -> int:
            return sum(one["event"] == "broker.attach_failed" for one in worker.records[since:])

        await mcp.until(lambda: failed() >= 5)
        told = [one for one in worker.records[since:] if one["level"] != "debug"]
        assert [one["event"] for one in told] == ["broker.reconnecting"], told
        assert told[0]["error"].startswith("the connection was ")


async def test_then_it_tells_once_a_minute(monkeypatch):
    """By the clock of tenacity, which a test can turn."""
    told: list[float] = []
    monkeypatch.setattr(supervisor.log, "warning", lambda event, **fields: told.append(fields["away_s"]))
    tell = supervisor._teller()
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    for second in range(200):
        state.start_time, state.outcome_timestamp = 0.0, float(second)
        tell(state)
    assert told == [0, 60, 120, 180]


async def test_another_cause_is_told_at_once_and_each_once_a_minute(monkeypatch):
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(
        supervisor.log, "warning", lambda event, **fields: told.append((fields["away_s"], fields["error"]))
    )
    tell = supervisor._teller(first="nobody listens")
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    for second in range(70):
        said = "nobody listens" if second < 10 else f"ACCESS_REFUSED: no access to 'mcp.worker.{second:06x}'"
        state.start_time, state.outcome_timestamp = 0.0, float(second)
        state.outcome = tenacity.Future(1)
        state.outcome.set_exception(ConnectionError(said))
        tell(state)
    assert [when for when, _ in told] == [10], "a cause is the same whatever the token of the link is"
    assert told[0][1].startswith("ACCESS_REFUSED")
