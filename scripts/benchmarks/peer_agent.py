"""``PYTHON peer_agent.py URL USER PASSWORD SERVICE``: an agent of SignalWire's SDK, which calls the tools of a gateway.

Run by the Python that has the SDK. The agent has the skill ``mcp_gateway``, the client that the SDK has for its own
gateway, and is asked as its web server asks it. A line of JSON on stdin, ``{"seconds", "callers", "sessions", "tool",
"arguments"}``, has so many threads call for so long; the line on stdout that answers it has the seconds of each call.
"""

import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def main(url: str, user: str, password: str, service: str) -> None:
    """Do what stdin says until it ends."""
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the SDK logs to stdout
    os.environ["SWML_ALLOW_PRIVATE_URLS"] = "1"  # a gateway on loopback is one
    from signalwire import AgentBase  # type: ignore[import-not-found]  # noqa: PLC0415 - it reads the environment

    agent = AgentBase("bench")
    agent.add_skill(
        "mcp_gateway",
        {"gateway_url": url, "auth_user": user, "auth_password": password, "services": [{"name": service}]},
    )
    print(json.dumps("ready"), file=told, flush=True)
    for line in sys.stdin:
        print(json.dumps(_busy(agent, service, **json.loads(line))), file=told, flush=True)


def _busy(
    agent: Any,
    service: str,
    *,
    seconds: float,
    callers: int,
    sessions: list[str],
    tool: str,
    arguments: dict[str, Any],
) -> list[float]:
    until = time.perf_counter() + seconds
    numbers = itertools.count()
    took: list[float] = []

    def caller() -> None:
        while (began := time.perf_counter()) < until:
            session = sessions[next(numbers) % len(sessions)]
            answer = agent.on_function_call(f"mcp_{service}_{tool}", arguments, {"call_id": session})
            if str(answer.response).startswith("Failed"):
                raise RuntimeError(answer.response)
            took.append(time.perf_counter() - began)

    with ThreadPoolExecutor(callers) as threads:
        for one in [threads.submit(caller) for _ in range(callers)]:
            one.result()
    return took


if __name__ == "__main__":
    main(*sys.argv[1:])
