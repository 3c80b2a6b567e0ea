"""What a client of MCP sees of a server through the gateway's endpoint, in both eras."""

from typing import Any, Literal

from mcp import Client
from mcp_types import ServerCapabilities

from tests.gateway.conftest import OPEN_TO_THIS_MACHINE, served
from tests.harness import Cluster

Mode = Literal["legacy", "auto"]
ERAS: dict[str, Mode] = {"2025-11-25": "legacy", "2026-07-28": "auto"}
"""The eras, and how the official client is made to speak them."""


async def seen(mcp: Cluster, service: str, call_id: str) -> dict[str, dict[str, list[str]]]:
    """What there is in each era: names of ``tools``, ``resources`` and ``prompts``, and what else is ``offered``."""
    found = {}
    async with served(mcp, **OPEN_TO_THIS_MACHINE) as (gateway, _):
        url = f"http://127.0.0.1:{gateway.port}/calls/{call_id}/{service}/mcp"
        for era, mode in ERAS.items():
            async with Client(url, mode=mode) as client:
                assert client.protocol_version == era
                found[era] = await listed(client)
    return found


async def listed(client: Client) -> dict[str, list[str]]:
    """What a client lists of what its server says that it has."""
    can = client.server_capabilities
    found = {"offered": [*_beside(can)]}
    if can.tools is not None:
        found["tools"] = [one.name for one in (await client.list_tools()).tools]
    if can.resources is not None:
        found["resources"] = [str(one.uri) for one in (await client.list_resources()).resources]
    if can.prompts is not None:
        found["prompts"] = [one.name for one in (await client.list_prompts()).prompts]
    return found


def _beside(can: ServerCapabilities) -> list[str]:
    told: dict[str, Any] = can.model_dump(by_alias=True, exclude_none=True)
    lists = [
        f"changes of {name}" for name in ("tools", "resources", "prompts") if told.get(name, {}).get("listChanged")
    ]
    subscribed = ["subscriptions"] if told.get("resources", {}).get("subscribe") else []
    return [*(name for name in ("completions", "logging") if name in told), *subscribed, *lists]
