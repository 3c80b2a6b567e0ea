"""Answers of tools that are not one text: for what the HTTP gateway makes of them."""

import json
import os
import sys
import time
from pathlib import Path

TEXT = {"type": "text", "text": "one"}
RESULTS: dict[str, dict] = {
    "image": {"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]},
    "two": {"content": [TEXT, {"type": "text", "text": "two"}]},
    "empty": {"content": []},
    "iserror": {"content": [{"type": "text", "text": "no such city"}], "isError": True},
    "struct": {"content": [TEXT], "structuredContent": {"a": 1}},
}


ODD = ("crash", "charge", "hang")


def answer(message: dict) -> dict | None:
    method, params = message.get("method"), message.get("params", {})
    if method == "initialize":
        info = {"name": "odd", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in (*RESULTS, *ODD)]}
    if method == "tools/call":
        return called(params["name"])
    return None


def called(name: str) -> dict | None:
    if name == "crash":
        os._exit(3)
    if name in ("charge", "hang"):  # counts its executions outside of itself, then fails or is never done
        with Path(os.environ["CHARGED"]).open("a") as book:
            book.write("charged\n")
        if name == "hang":
            time.sleep(3600)
        return None
    return RESULTS[name]


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = answer(message)
    said = {"result": result} if result is not None else {"error": {"code": -32000, "message": "it failed"}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}) + "\n")
    sys.stdout.flush()
