"""Gateways as processes of their own, which can be killed and looked at."""

import httpx2
import psutil

from tests.gateway.conftest import PASSWORD, USER
from tests.harness import START, Cluster, WorkerProcess


class GatewayProcess:
    """A gateway in a process of its own, with the operator's credentials."""

    def __init__(self, process: WorkerProcess, port: int) -> None:
        self._process = process
        self.port = port

    def client(self) -> httpx2.AsyncClient:
        """A client with the operator's credentials."""
        return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", auth=(USER, PASSWORD), timeout=30)

    @property
    def memory(self) -> int:
        """Bytes that it holds."""
        return int(psutil.Process(self._process.process.pid).memory_info().rss)

    async def kill(self) -> None:
        """SIGKILL: it tells nobody."""
        await self._process.kill()


async def gateway_process(mcp: Cluster, **env: str) -> GatewayProcess:
    """Start one and wait until it is ready; it goes with the test's workers."""
    settings = {"PORT": "0", "AUTH_USER": USER, "AUTH_PASSWORD": PASSWORD} | env
    process = await mcp.spawn_gateway(**{f"MCP_SESSIONS_GATEWAY_{name}": value for name, value in settings.items()})
    await process.logged("gateway.ready", within=START)
    return GatewayProcess(process, int((await process.logged("gateway.listening"))["port"]))
