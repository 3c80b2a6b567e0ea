"""What the servers for the tests share of JSON-RPC: its errors, and messages to the client from several threads.

No import of anything outside the standard library, because tests start some of these servers thousands of times.
"""

from __future__ import annotations

import json
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Json: TypeAlias = dict[str, Any]

LOCK = threading.Lock()


class Failure(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.data = code, data


def send(message: Json) -> None:
    with LOCK:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()
