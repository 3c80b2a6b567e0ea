"""The last list of tools of each service, so that a request for it need not start a process.

A listing belongs to an edition of a server: its command and environment, the state of its program's file at the start,
and the version that it reports. Later messages of a process of an older edition are ignored.
"""

from collections.abc import Mapping
from typing import Any

from consumer.processes.client.mcp_client import MCPClient
from consumer.processes.launch.launcher import program_of
from consumer.processes.service import MCPService
from schemas.errors import SessionsError


class _Shown:
    """The edition that was started last, its tools, and its live clients."""

    def __init__(self, client: MCPClient) -> None:
        self.program, self.version = client.program, _version(client)
        self.listing = client.listing
        self.about = client.about
        self.changed = False
        self.clients: dict[MCPClient, None] = {}


class ToolCache:
    """The last listing of each server."""

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}

    def started(self, client: MCPClient) -> None:
        """Take the listing of a client that has just started, and follow its changes from now on."""
        source = client.service.source
        shown = self._shown.get(source)
        if shown is None or (shown.program, shown.version) != (client.program, _version(client)):
            shown = self._shown[source] = _Shown(client)
        shown.listing, shown.changed, shown.about = client.listing, client.tools_changed, client.about
        shown.clients[client] = None
        client.on_tools(self._hear)
        client.add_done_callback(self._forget)

    def fresh(self, service: MCPService) -> list[dict[str, Any]] | None:
        """Return the service's tools; ``None`` if they are unknown or out of date."""
        shown = self._current(service)
        if shown is None or shown.changed or shown.listing.is_old:
            return None
        return shown.listing.tools

    def about(self, service: MCPService) -> dict[str, Any] | None:
        """Return how the service's server described itself; ``None`` if that is unknown."""
        shown = self._current(service)
        return shown.about if shown is not None else None

    async def renewed(self, service: MCPService) -> list[dict[str, Any]] | None:
        """Ask a running server for the service's tools; ``None`` if none runs, or none answers."""
        shown = self._current(service)
        client = next((one for one in reversed(shown.clients) if one.is_alive), None) if shown is not None else None
        if client is None:
            return None
        try:
            return await client.list_again()
        except (SessionsError, TimeoutError):
            return None

    def keep(self, services: Mapping[str, MCPService]) -> None:
        """Forget all but these services."""
        sources = {service.source for service in services.values()}
        self._shown = {source: shown for source, shown in self._shown.items() if source in sources}

    def _current(self, service: MCPService) -> _Shown | None:
        shown = self._shown.get(service.source)
        return shown if shown is not None and shown.program == program_of(service) else None

    def _hear(self, client: MCPClient) -> None:
        """Update the tools after a client has listed them again, or forget them when they have changed."""
        shown = self._shown.get(client.service.source)
        if shown is None or client not in shown.clients:
            return
        if client.tools_changed:
            shown.changed = True
            shown.clients[client] = shown.clients.pop(client)  # the one to ask
        else:
            shown.listing, shown.changed = client.listing, False

    def _forget(self, client: MCPClient) -> None:
        shown = self._shown.get(client.service.source)
        if shown is not None:
            shown.clients.pop(client, None)


def _version(client: MCPClient) -> str | None:
    about = client.session.server_info
    return about.version if about is not None else None
