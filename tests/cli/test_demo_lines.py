"""What is not as it should be on the demo's way over HTTP makes it fail, and it says what was answered."""

from pathlib import Path

import httpx2
import pytest

from consumer.demo.lines import SignalWireLine, signalwire_line
from consumer.demo.script import PARTS
from consumer.demo.stage import Place
from consumer.demo.watch import DemoFailed, PlayedCall
from consumer.gateway.gateway import Gateway
from consumer.settings import Settings, WorkerSettings
from consumer.settings.gateway_settings import GatewaySettings
from tests.harness import Cluster

RELAY = PlayedCall(PARTS[0], "c-1")


async def test_a_request_that_is_refused_is_a_failure_with_its_status(mcp: Cluster, tmp_path: Path):
    async with signalwire_line(Place(mcp.url, mcp.prefix, tmp_path)) as line:
        await line.try_another_key()
        wrong = SignalWireLine(line.http, line.base, "another key")
        with pytest.raises(DemoFailed, match="RELAY call was answered with 403"):
            await wrong.tell(RELAY, RELAY.part.started)
        with pytest.raises(DemoFailed, match="add_todo of the RELAY call was answered with 403"):
            await wrong.use(RELAY, "add_todo", {"text": "call back"})


async def test_a_gateway_that_believes_everybody_is_a_failure(mcp: Cluster):
    gateway = Gateway(
        Settings(amqp_url=mcp.url, worker=WorkerSettings(prefix=mcp.prefix), gateway=GatewaySettings(port=0))
    )
    try:
        await gateway.listen()
        await gateway.connect()
        async with httpx2.AsyncClient(trust_env=False) as http:
            line = SignalWireLine(http, f"http://127.0.0.1:{gateway.port}", "key")
            with pytest.raises(DemoFailed, match="not with 403"):
                await line.try_another_key()
    finally:
        await gateway.close()
