"""The two eras of MCP."""

from enum import StrEnum


class Era(StrEnum):
    """How a server begins a conversation."""

    HANDSHAKE = "handshake"
    """Up to 2025-11-25: ``initialize``."""

    MODERN = "modern"
    """From 2026-07-28: every request stands alone."""
