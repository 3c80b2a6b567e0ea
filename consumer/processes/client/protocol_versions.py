"""Two eras of MCP on one wire: finding out which one a server speaks, and writing requests for it.

Up to 2025-11-25 a connection begins with the ``initialize`` handshake. From 2026-07-28 on there is no handshake:
``server/discover`` tells what a server can do, and every request carries version, client and capabilities in its
``_meta`` (basic/versioning of that revision), over HTTP also in headers.
"""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
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
from consumer.processes.jsonrpc import quoted
from schemas.errors import McpError

PROBE_TIMEOUT = 2.5
"""Seconds for the answer to ``server/discover``; a server that is silent on what it does not know is old."""

CLIENT_INFO = Implementation(name="mcp-sessions", version=__version__)
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
"""What we offer to servers: to ask our callers. Neither sampling nor roots."""

_OPTIONAL: dict[str, type] = {"_meta": dict, "instructions": str}
"""What a server may leave out when it introduces itself, so that one of another type is better left out."""

log = structlog.get_logger(__name__)


_LOST = ("Connection closed", "SSE stream")
"""How the SDK begins what it says of a connection that broke under a request."""


def connection_lost(fault: MCPError) -> bool:
    """Whether the connection broke; -32000 alone is also what many servers answer with, the SDK's words are not."""
    return fault.code == CONNECTION_CLOSED and fault.message.startswith(_LOST)


class Era(StrEnum):
    """How a server begins a conversation."""

    HANDSHAKE = "handshake"
    """Up to 2025-11-25: ``initialize``."""

    MODERN = "modern"
    """From 2026-07-28: every request stands alone."""


async def negotiate(session: ClientSession, dispatcher: JSONRPCDispatcher[Any], *, known: Era | None = None) -> Era:
    """Find out what the server speaks and set ``session`` up for it.

    Whatever goes wrong with the question means "old", except that the connection is gone. A server that was only slow
    to start answers the handshake that follows with "too late, I am modern" and is asked once more.
    """
    if known is not Era.HANDSHAKE and await _discover(session, LATEST_MODERN_VERSION):
        return Era.MODERN
    try:
        await _initialize(session, dispatcher)
    except MCPError as refusal:
        mutual = _mutual(refusal)
        if mutual is None or not await _discover(session, mutual):
            raise
        return Era.MODERN
    return Era.HANDSHAKE


async def _initialize(session: ClientSession, dispatcher: JSONRPCDispatcher[Any]) -> None:
    """Shake hands, as the SDK's session does, with a server that may write its introduction carelessly."""
    raw = await dispatcher.send_raw_request(
        "initialize",
        {
            "protocolVersion": LATEST_HANDSHAKE_VERSION,
            "capabilities": CAPABILITIES,
            "clientInfo": CLIENT_INFO.model_dump(by_alias=True, mode="json", exclude_none=True),
        },
    )
    version = raw.get("protocolVersion")
    if version not in HANDSHAKE_PROTOCOL_VERSIONS:
        said = f"it offers protocol version {quoted(version)}; known are {', '.join(HANDSHAKE_PROTOCOL_VERSIONS)}"
        raise McpError(said, code=INVALID_PARAMS, data=None)
    session.adopt(InitializeResult.model_validate(_introduction(raw)))
    await session.send_notification(InitializedNotification())


def _introduction(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a server tells of itself, with an empty object for what should be one and is not: ``[]`` (PHP), ``true``."""
    told = {key: value for key, value in raw.items() if isinstance(value, _OPTIONAL.get(key, object))}
    given = raw.get("capabilities")
    capabilities = given if isinstance(given, dict) else {}
    told["capabilities"] = {
        name: value if isinstance(value, dict) else {}
        for name, value in capabilities.items()
        if value is not None and value is not False
    }
    about = raw.get("serverInfo")
    if "protocolVersion" in raw or about is not None:
        about = about if isinstance(about, dict) else {}
        told["serverInfo"] = {**about, **{key: str(about.get(key) or "unknown") for key in ("name", "version")}}
    return told


async def _discover(session: ClientSession, version: str) -> bool:
    try:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                raw = await session.send_discover(version)
        except MCPError as refusal:
            if connection_lost(refusal):
                raise
            mutual = _mutual(refusal)
            if mutual is None:
                return False
            async with asyncio.timeout(PROBE_TIMEOUT):
                raw = await session.send_discover(mutual)
        found = DiscoverResult.model_validate(_introduction(raw))
    except (TimeoutError, ValidationError) as reason:
        log.debug("era.old", reason=type(reason).__name__)
        return False
    except MCPError as refusal:
        if connection_lost(refusal):
            raise
        return False
    if not set(MODERN_PROTOCOL_VERSIONS) & set(found.supported_versions):
        return False
    session.adopt(found)
    return True


def _mutual(refusal: MCPError) -> str | None:
    """The modern version that a server names in its refusal and that we speak, too."""
    if refusal.code != UNSUPPORTED_PROTOCOL_VERSION:
        return None
    try:
        supported = UnsupportedProtocolVersionErrorData.model_validate(refusal.data).supported
    except ValidationError:
        return None
    return next((version for version in reversed(MODERN_PROTOCOL_VERSIONS) if version in supported), None)


class Envelope:
    """Writes what each request carries beside its own parameters, for the era and the version agreed on."""

    def __init__(self, era: Era, version: str) -> None:
        self.era = era
        self._version = version
        self._meta = {
            PROTOCOL_VERSION_META_KEY: version,
            CLIENT_INFO_META_KEY: CLIENT_INFO.model_dump(by_alias=True, mode="json", exclude_none=True),
            CLIENT_CAPABILITIES_META_KEY: CAPABILITIES,
        }
        self._header_maps: dict[str, dict[tuple[str, ...], str]] = {}

    def admit(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The tools that may be used; 2026-07-28 demands to drop those with invalid ``x-mcp-header`` annotations."""
        if self.era is Era.HANDSHAKE:
            return tools
        admitted = [tool for tool in tools if find_invalid_x_mcp_header(tool.get("inputSchema")) is None]
        self._header_maps = {tool["name"]: x_mcp_header_map(tool.get("inputSchema")) for tool in admitted}
        return admitted

    def seal(self, method: str, params: Mapping[str, Any], opts: CallOptions) -> dict[str, Any]:
        """``params`` as they are sent; the headers that HTTP needs are put into ``opts``."""
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
        return {**params, "_meta": {**params.get("_meta", {}), **self._meta}}
