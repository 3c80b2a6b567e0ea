"""Logs, metrics, traces. All rooms import it, and it imports none of them."""

from consumer.observability.known_secrets import MASK
from consumer.observability.logs import LogFormat, LogLevel, bound, configure_logging, get_logger
from consumer.observability.masking import is_secret_key, mask_command, mask_text, masked

__all__ = [
    "MASK",
    "LogFormat",
    "LogLevel",
    "bound",
    "configure_logging",
    "get_logger",
    "is_secret_key",
    "mask_command",
    "mask_text",
    "masked",
]
