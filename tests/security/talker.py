"""An MCP server that talks without end, or lists tools without end; in the standard library.

``--flood progress|elicitation|keys|unheard`` says what its tool ``flood`` writes, for as long as anybody reads.
``--pages N --page BYTES`` lists so many pages of so many bytes. Its tool ``answer`` answers what ``HEAVY`` has.
"""

import argparse
import itertools
import json
import sys


def write(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


UNHEARD = "".join(
    json.dumps({"jsonrpc": "2.0", "method": method, "params": {"level": "info", "data": "still here"}}) + "\n"
    for method in ["notifications/message", "notifications/nobody/knows"] * 100
)


def flood(kind: str, token: object) -> None:
    keys = {f"key-{number}": {"a": number} for number in range({"keys": 200_000, "few keys": 9_000}.get(kind, 0))}
    pretended = {"jsonrpc": "2.0", "method": "notifications/progress", "extra": [{}] * 45_000}
    for number in itertools.count():
        progress = {"progressToken": token, "progress": number, **keys}
        match kind:
            case "pretended":
                sys.stdout.write(json.dumps(pretended | {"params": progress | {"result": 0}}) + "\n")
            case "progress" | "keys" | "few keys":
                write({"method": "notifications/progress", "params": progress})
            case "unheard":  # many at a time: one alone costs so little that nobody notices
                sys.stdout.write(UNHEARD)
            case "elicitation":
                schema = {"type": "object", "properties": {}}
                params = {"message": "Really?", "requestedSchema": schema}
                write({"id": f"q-{number}", "method": "elicitation/create", "params": params})


HEAVY = {
    "integers": lambda: "[" + "1," * (7 << 20) + "1]",
    "objects": lambda: "[" + "{}," * (5 << 20) + "1]",
    "nested": lambda: "[" + ("[" * 100 + "]" * 100 + ",") * 20_000 + "1]",
    "names": lambda: "{" + ",".join(f'"{number}":""' for number in range(300_000)) + "}",
    "long": lambda: '"' + "x" * (15 << 20) + '"',
    "commas": lambda: '"' + 'a,\\"b\\",[' * (3 << 17) + '"',
    "no text": lambda: '"' + "\\ud800" * (1 << 19) + '"',
    "numbers": lambda: "[" + ("1" * 4_000 + ",") * 1_000 + "1]",
}


def answer(request_id: object, kind: str) -> None:
    result = f'{{"content": [], "structuredContent": {{"heavy": {HEAVY[kind]()}}}}}'
    sys.stdout.write(f'{{"jsonrpc": "2.0", "id": {request_id}, "result": {result}}}\n')
    sys.stdout.flush()


def page(number: int, options: argparse.Namespace) -> dict:
    tools = [
        {
            "name": f"tool-{number}-{index}",
            "description": "x" * 500,
            "inputSchema": {"type": "object", "properties": {}},
        }
        for index in range(options.page // 600)
    ]
    more = {"nextCursor": str(number + 1)} if number + 1 < options.pages else {}
    own = [{"name": name, "inputSchema": {"type": "object"}} for name in ("flood", "answer")]
    return {"tools": [*own, *tools], **more}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flood", default="progress")
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--page", type=int, default=0)
    options = parser.parse_args()
    for line in sys.stdin:
        message = json.loads(line)
        params = message.get("params") or {}
        match message.get("method"):
            case "initialize":
                result = {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "talker", "version": "1"},
                }
            case "tools/list":
                result = page(int(params.get("cursor", 0)), options)
            case "tools/call" if params["name"] == "answer":
                answer(message["id"], params["arguments"]["kind"])
                continue
            case "tools/call":
                flood(options.flood, params.get("_meta", {}).get("progressToken"))
                return
            case _:
                if "id" in message and "method" in message:
                    write({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})
                continue
        write({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()
