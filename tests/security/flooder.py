"""A client with very many requests in flight: ``flooder.py URL PREFIX SESSION PROMPT HOW_MANY AT_ONCE``.

Writes one line of JSON: how many of its requests ended with which error code.
"""

import asyncio
import json
import sys
from collections import Counter

from consumer.client import SessionClient
from schemas.errors import SessionsError

WEEK = 604_800


async def flood(url: str, prefix: str, session_id: str, prompt: str, many: int, at_once: int) -> Counter[str]:
    """Ask for a prompt so many times, under a timeout of a week."""
    ended: Counter[str] = Counter()
    left = iter(range(many))

    async def ask() -> None:
        for _ in left:
            body = {"session_id": session_id, "name": prompt, "timeout": WEEK}
            try:
                await client.request("prompts.get", body, call_id=session_id, reply_timeout=WEEK)
            except SessionsError as error:
                ended[error.code] += 1
            else:
                ended["answered"] += 1

    async with SessionClient(url, prefix=prefix) as client, asyncio.TaskGroup() as askers:
        for _ in range(at_once):
            askers.create_task(ask())
    return ended


def main() -> None:
    url, prefix, session_id, prompt, many, at_once = sys.argv[1:]
    sys.stdout.write(json.dumps(asyncio.run(flood(url, prefix, session_id, prompt, int(many), int(at_once)))) + "\n")


if __name__ == "__main__":
    main()
