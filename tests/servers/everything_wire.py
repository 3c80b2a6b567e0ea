"""What the parts of the everything server share: its state, what it announces, and the kinds of content."""

import base64
import queue
import struct
import threading
from typing import Any

from json_rpc import send  # type: ignore[import-not-found]

Json = dict[str, Any]

META = "io.modelcontextprotocol/"
STATELESS = "2026-07-28"
HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
INFO = {"name": "everything", "version": "1.0"}
CAPABILITIES: Json = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"subscribe": True},
    "completions": {},
    "logging": {},
}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="  # one pixel
WAV = base64.b64encode(
    b"RIFF" + struct.pack("<I4s4sIHHIIHH4sI", 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8, b"data", 0)
).decode()
WAITING: dict[str, "queue.Queue[Json]"] = {}
CLIENT: Json = {}
SUBSCRIBED: set[str] = set()
LISTENERS: dict[Any, tuple[Json, threading.Event]] = {}
"""What each ``subscriptions/listen`` wants, by its id, and its end."""


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def said(*content: Json, **more: Any) -> Json:
    return {"content": list(content), **more}


def resource(uri: str, mime: str, words: str) -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": words}}


def picture() -> Json:
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def announce(method: str, wanted: str, uri: str | None = None) -> None:
    """Say that something has changed: to everybody after a handshake, else to those who listen for it."""
    params = {} if uri is None else {"uri": uri}
    if "stateless" not in CLIENT and (uri is None or uri in SUBSCRIBED):
        send({"method": method, "params": params})
    for listener, (notifications, _) in list(LISTENERS.items()):
        asked = notifications.get(wanted)
        if asked is True or (isinstance(asked, list) and uri in asked):
            send({"method": method, "params": {**params, "_meta": {f"{META}subscriptionId": listener}}})


def listen(request_id: Any, params: Json) -> Json:
    notifications, over = params.get("notifications") or {}, threading.Event()
    LISTENERS[request_id] = notifications, over
    told = {"notifications": notifications, "_meta": {f"{META}subscriptionId": request_id}}
    send({"method": "notifications/subscriptions/acknowledged", "params": told})
    over.wait()
    return {}


def log(words: str) -> None:
    send({"method": "notifications/message", "params": {"level": "info", "data": words}})
