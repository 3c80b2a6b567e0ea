"""A todo list that answers with JSON-RPC errors, as SignalWire's sample server does, and needs no library."""

import json
import sys

SCHEMA = {"type": "object"}
NAMES = ("add_todo", "list_todos", "complete_todo")
todos: list[str] = []


def called(name: str, arguments: dict) -> str:
    if name == "add_todo":
        todos.append(str(arguments["text"]))
        return f"added {todos[-1]}"
    if name == "list_todos":
        return ", ".join(todos) or "nothing"
    return f"done {todos[arguments['id']]}"


def answer(method: str, params: dict) -> dict:
    if method == "initialize":
        info = {"name": "todo", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [{"name": name, "inputSchema": SCHEMA} for name in NAMES]}
    if params.get("name") not in NAMES:
        raise LookupError(f"unknown tool {params.get('name')}")
    text = called(params["name"], params.get("arguments") or {})
    return {"content": [{"type": "text", "text": text}]}


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    try:
        said = {"result": answer(message["method"], message.get("params") or {})}
    except (LookupError, KeyError, TypeError) as error:
        said = {"error": {"code": -32603, "message": str(error)}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}) + "\n")
    sys.stdout.flush()
