"""The eras of MCP: which one a request uses, and what its headers must say. Pure.

Source: the MCP specification, revisions 2024-11-05 to 2025-11-25 (with ``initialize``) and 2026-07-28 (without).
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
)
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
)
from mcp_types.jsonrpc import HEADER_MISMATCH
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, SUPPORTED_PROTOCOL_VERSIONS
from starlette.datastructures import Headers

from consumer.gateway.mcp.rpc_messages import RpcError, RpcRequest
from schemas.base import Json
from schemas.replies import ServerDescription

Era = Literal["handshake", "stateless"]
"""``handshake``: revisions with ``initialize``. ``stateless``: revisions whose requests are independent."""

SUPPORTED: Final = list(SUPPORTED_PROTOCOL_VERSIONS)
SERVER_INFO: Final = SERVER_INFO_META_KEY
SUBSCRIPTION_ID: Final = SUBSCRIPTION_ID_META_KEY
CACHEABLE: Final = frozenset(
    {"server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)
"""How long a client of the stateless era may cache a result. Without a time of its own, a result is stale at once."""

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""The levels of log messages, in ascending order."""

_ENVELOPE: Final = frozenset({PROTOCOL_VERSION_META_KEY, CLIENT_INFO_META_KEY, CLIENT_CAPABILITIES_META_KEY})
_STATUSES: Final = ERROR_CODE_HTTP_STATUS


def era_of(headers: Mapping[str, str], message: object) -> Era:
    """Return the era of a request, from its header or from the ``_meta`` that only the stateless era has."""
    version = headers.get(MCP_PROTOCOL_VERSION_HEADER)
    if version is not None:
        return "handshake" if version in HANDSHAKE_PROTOCOL_VERSIONS else "stateless"
    return "stateless" if isinstance(message, RpcRequest) and PROTOCOL_VERSION_META_KEY in message.meta else "handshake"


def negotiated(requested: object) -> str:
    """Return the version that ``initialize`` agrees on: the client's if it is known, else the newest."""
    known = isinstance(requested, str) and requested in HANDSHAKE_PROTOCOL_VERSIONS
    return str(requested) if known else LATEST_HANDSHAKE_VERSION


def check_stateless(headers: Headers, call: RpcRequest) -> Json:
    """Check that a stateless request is complete and that its headers repeat it. Return the client's capabilities.

    Raises:
        RpcError: 400, with the code that the specification has for it.
    """
    duplicated = find_duplicated_routing_header(headers.items())
    if duplicated is not None:
        raise RpcError(HEADER_MISMATCH, f"the header {duplicated} occurs more than once", status=400)
    if MCP_PROTOCOL_VERSION_HEADER in headers and PROTOCOL_VERSION_META_KEY not in call.meta:
        check_version(headers)  # a version that nobody speaks explains more than the _meta that it does not have
    body = {"method": call.method, "params": call.params}
    verdict = classify_inbound_request(body, headers=dict(headers))
    if isinstance(verdict, InboundLadderRejection):
        raise _rejected(verdict)
    can = verdict.client_capabilities
    return can if isinstance(can, dict) else {}


def check_version(headers: Mapping[str, str]) -> None:
    """Check that this gateway speaks the version that a header names.

    Raises:
        RpcError: 400.
    """
    verdict = unsupported_protocol_version_rejection(headers.get(MCP_PROTOCOL_VERSION_HEADER, ""))
    if verdict is not None:
        raise _rejected(verdict)


def check_arguments(schema: Any, arguments: Json, headers: Headers) -> None:
    """Check that ``Mcp-Param-*`` headers repeat the arguments that the tool's schema marks.

    Raises:
        RpcError: 400.
    """
    verdict = validate_mcp_param_headers(schema, arguments, headers)
    if verdict is not None:
        raise _rejected(verdict)


def offered(described: ServerDescription, era: Era) -> Json:
    """Return the capabilities of a server that its clients can use through this gateway.

    Changes of lists are reported on streams of the stateless era. In the other era they are reported during a tool
    call, if the server sends them without a subscription.
    """
    unasked = era == "stateless" or described.era == "handshake"
    told: Json = {}
    for name in ("tools", "prompts", "resources", "completions", "logging"):
        if isinstance(can := described.capabilities.get(name), dict):
            flags = {"subscribe": can.get("subscribe"), "listChanged": unasked and can.get("listChanged")}
            told[name] = {flag: True for flag, value in flags.items() if value is True}
    return told


def change(changed_list: str | None, uri: str | None) -> tuple[str, Json]:
    """Return the notification that a list, or else a resource, has changed: its method and its params."""
    if changed_list is not None:
        return f"notifications/{changed_list}/list_changed", {}
    return "notifications/resources/updated", {"uri": uri}


def log_level(call: RpcRequest) -> str | None:
    """Return the lowest log level that a request of the stateless era asks for; None if it wants no log."""
    level = call.meta.get(LOG_LEVEL_META_KEY)
    return level if isinstance(level, str) and level in LEVELS else None


def status_of(error: RpcError, era: Era) -> int:
    """Return the HTTP status of an error. The stateless era defines one for some codes of JSON-RPC."""
    if error.status != 200 or era == "handshake":
        return error.status
    return _STATUSES.get(error.code, 200)


def is_of_envelope(key: str) -> bool:
    """Return whether a key of ``_meta`` belongs to the stateless era's envelope, which each hop writes anew."""
    return key in _ENVELOPE


def capabilities_of(call: RpcRequest) -> Json:
    """Return the client's capabilities, if the request names them."""
    can = call.meta.get(CLIENT_CAPABILITIES_META_KEY, call.params.get("capabilities"))
    return can if isinstance(can, dict) else {}


def _rejected(verdict: InboundLadderRejection) -> RpcError:
    return RpcError(verdict.code, verdict.message, verdict.data, status=_STATUSES.get(verdict.code, 400))
