"""Finds out which era of MCP a server speaks, and writes requests for it.

Up to 2025-11-25 a connection begins with the ``initialize`` handshake. From 2026-07-28 on there is no handshake:
``server/discover`` tells what a server can do, and every request carries version, client and capabilities in its
``_meta`` (basic/versioning of that revision), over HTTP also in headers.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from mcp.client.session import ClientSession
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    DiscoverResult,
    Implementation,
    InitializedNotification,
    InitializeResult,
    UnsupportedProtocolVersionErrorData,
)
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)
from pydantic import ValidationError

from consumer import __version__
from consumer.processes.client.era import Era
from consumer.processes.client.introduction import Introduction, introduction, mended
from consumer.processes.jsonrpc import quoted
from consumer.sessions.dialogue import DEFAULT_CAPABILITIES
from schemas.errors import McpError

PROBE_TIMEOUT = 2.5
"""Seconds to wait for the answer to ``server/discover``. A server that ignores it is of the old era."""

CLIENT_INFO = Implementation(name="mcp-sessions", version=__version__)
log = structlog.get_logger(__name__)


_LOST = ("Connection closed", "SSE stream")
"""The beginning of the SDK's message for a connection that broke during a request."""


def connection_lost(fault: MCPError) -> bool:
    """Return whether the connection was lost. Many servers also use the code -32000, so the SDK's text is compared."""
    return fault.code == CONNECTION_CLOSED and fault.message.startswith(_LOST)


def answer_lost(fault: MCPError) -> bool:
    """Return whether the stream of one answer ended without the answer, by the SDK's text. The session lives on."""
    return fault.code == CONNECTION_CLOSED and fault.message.startswith(("SSE stream ended", "SSE stream failed"))


async def negotiate(
    session: ClientSession,
    dispatcher: JSONRPCDispatcher[Any],
    *,
    known: Era | None = None,
    capabilities: Mapping[str, Any] = DEFAULT_CAPABILITIES,
) -> Introduction:
    """Find out the server's era and set ``session`` up for it. Return the server's introduction.

    ``capabilities`` are those that a handshake offers.

    Any failure of the question means the old era, except a lost connection. A modern server that was only slow to start
    refuses the handshake that follows, and is asked once more.
    """
    if known is not Era.HANDSHAKE and (found := await _discover(session, LATEST_MODERN_VERSION)):
        return found
    try:
        return await _initialize(session, dispatcher, capabilities)
    except MCPError as refusal:
        mutual = _mutual(refusal)
        if mutual is None or not (found := await _discover(session, mutual)):
            raise
        return found


async def _initialize(
    session: ClientSession, dispatcher: JSONRPCDispatcher[Any], capabilities: Mapping[str, Any]
) -> Introduction:
    """Shake hands like the SDK's session, but tolerate mistakes in the server's introduction."""
    raw = await dispatcher.send_raw_request(
        "initialize",
        {
            "protocolVersion": LATEST_HANDSHAKE_VERSION,
            "capabilities": dict(capabilities),
            "clientInfo": CLIENT_INFO.model_dump(by_alias=True, mode="json", exclude_none=True),
        },
    )
    version = raw.get("protocolVersion")
    if version not in HANDSHAKE_PROTOCOL_VERSIONS:
        said = f"it offers protocol version {quoted(version)}; supported are {', '.join(HANDSHAKE_PROTOCOL_VERSIONS)}"
        raise McpError(said, code=INVALID_PARAMS, data=None)
    told = mended(raw)
    session.adopt(InitializeResult.model_validate(told))
    await session.send_notification(InitializedNotification())
    return introduction(Era.HANDSHAKE, str(version), told)


async def _discover(session: ClientSession, version: str) -> Introduction | None:
    try:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                raw = await session.send_discover(version)
        except MCPError as refusal:
            if connection_lost(refusal):
                raise
            mutual = _mutual(refusal)
            if mutual is None:
                return None
            async with asyncio.timeout(PROBE_TIMEOUT):
                raw = await session.send_discover(mutual)
        told = mended(raw)
        found = DiscoverResult.model_validate(told)
    except (TimeoutError, ValidationError) as reason:
        log.debug("era.old", reason=type(reason).__name__)
        return None
    except MCPError as refusal:
        if connection_lost(refusal):
            raise
        return None
    if not set(MODERN_PROTOCOL_VERSIONS) & set(found.supported_versions):
        return None
    session.adopt(found)
    return introduction(Era.MODERN, session.protocol_version or version, told)


def _mutual(refusal: MCPError) -> str | None:
    """Return the modern version that a server names in its refusal and that we support too."""
    if refusal.code != UNSUPPORTED_PROTOCOL_VERSION:
        return None
    try:
        supported = UnsupportedProtocolVersionErrorData.model_validate(refusal.data).supported
    except ValidationError:
        return None
    return next((version for version in reversed(MODERN_PROTOCOL_VERSIONS) if version in supported), None)


class Envelope:
    """Writes the parts of each request beside its own parameters, for the agreed era and version."""

    def __init__(self, era: Era, version: str) -> None:
        self.era = era
        self._version = version
        self._meta = {
            PROTOCOL_VERSION_META_KEY: version,
            CLIENT_INFO_META_KEY: CLIENT_INFO.model_dump(by_alias=True, mode="json", exclude_none=True),
            CLIENT_CAPABILITIES_META_KEY: DEFAULT_CAPABILITIES,
        }
        self.log_level: str | None = None
        """The lowest level of log messages that a 2026-07-28 server sends; None: it sends none."""
        self._header_maps: dict[str, dict[tuple[str, ...], str]] = {}

    def admit(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the usable tools. 2026-07-28 requires dropping those with invalid ``x-mcp-header`` annotations."""
        if self.era is Era.HANDSHAKE:
            return tools
        admitted = [tool for tool in tools if find_invalid_x_mcp_header(tool.get("inputSchema")) is None]
        self._header_maps = {tool["name"]: x_mcp_header_map(tool.get("inputSchema")) for tool in admitted}
        return admitted

    def seal(
        self,
        method: str,
        params: Mapping[str, Any],
        opts: CallOptions,
        capabilities: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return ``params`` as they are sent. The headers that HTTP needs are put into ``opts``.

        ``capabilities`` are those of the requester, if it has named any.
        """
        headers = opts.setdefault("headers", {})
        headers[MCP_PROTOCOL_VERSION_HEADER] = self._version
        if self.era is Era.HANDSHAKE:
            return dict(params)
        headers[MCP_METHOD_HEADER] = method
        named = params.get(NAME_BEARING_METHODS.get(method, ""))
        if isinstance(named, str):
            headers[MCP_NAME_HEADER] = encode_header_value(named)
        if method == "tools/call" and isinstance(named, str):
            headers |= mcp_param_headers(self._header_maps.get(named, {}), params.get("arguments") or {})
        meta = {**params.get("_meta", {}), **self._meta}
        if capabilities is not None:
            meta[CLIENT_CAPABILITIES_META_KEY] = dict(capabilities)
        if self.log_level is not None:
            meta.setdefault(LOG_LEVEL_META_KEY, self.log_level)
        return {**params, "_meta": meta}
