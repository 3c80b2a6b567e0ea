"""A server's introduction of itself, unchanged but limited in size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_types import SERVER_INFO_META_KEY

from consumer.processes.client.era import Era
from consumer.processes.foreign_text import written_as_json

MAX_PART = 64 << 10
"""The most bytes of capabilities and of server info, as JSON, and the most characters of instructions that are kept."""

_OPTIONAL: dict[str, type] = {"_meta": dict, "instructions": str}
"""The optional fields of an introduction. One with a wrong type is left out."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """A server's description of itself: era, protocol version, capabilities and name."""

    era: Era
    protocol_version: str
    capabilities: dict[str, Any] = field(default_factory=dict)
    server_info: dict[str, Any] | None = None
    instructions: str | None = None

    def told(self) -> dict[str, Any]:
        """Return the introduction as it is on the wire."""
        about: dict[str, Any] = {
            "era": self.era.value,
            "protocol_version": self.protocol_version,
            "capabilities": self.capabilities,
        }
        if self.server_info is not None:
            about["server_info"] = self.server_info
        if self.instructions is not None:
            about["instructions"] = self.instructions
        return about


def introduction(era: Era, version: str, mended: Mapping[str, Any]) -> Introduction:
    """Return the introduction in a repaired result of ``initialize`` or ``server/discover``; see ``mended``.

    Capabilities beyond ``MAX_PART`` are reduced to their names, server info to name and version.
    """
    capabilities = mended["capabilities"]
    if _size(capabilities) > MAX_PART:
        capabilities = {str(name)[:100]: {} for name in list(capabilities)[:100]}
    info = mended.get("serverInfo") or (mended.get("_meta") or {}).get(SERVER_INFO_META_KEY)
    if not isinstance(info, dict):
        info = None
    elif _size(info) > MAX_PART:
        info = {key: str(info.get(key))[:1_000] for key in ("name", "version")}
    instructions = mended.get("instructions")
    return Introduction(era, version, capabilities, info, instructions[:MAX_PART] if instructions else None)


def _size(value: Any) -> int:
    return len(written_as_json(value).encode())


def mended(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a server's introduction, with ``{}`` for each value that should be an object: ``[]`` (PHP), ``true``."""
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
