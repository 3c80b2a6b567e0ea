"""Direct reply-to addresses: finds out which ones can be published to safely.

RabbitMQ makes these addresses, but anybody can make one up or use one from another cluster. If an address does not name
a process on a node of the broker, RabbitMQ 3.10 closes the connection that publishes to it. So each node is checked
once, on a connection that may be lost, before anything is published there.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final

from consumer.concurrency.expiring_dict import ExpiringDict

PREFIX: Final = "amq.rabbitmq.reply-to."

ASKED_AGAIN: Final = 30.0
"""After how long (s) an unknown node is checked again, because nodes can join a cluster."""

MOST_NODES: Final = 1000
"""How many unknown nodes are remembered. There is a limit because anybody can make some up."""

_ADDRESS: Final = re.compile(r"([A-Za-z0-9+/]+={0,2})\.[A-Za-z0-9+/]+={0,2}")

_VERSION = 131
_NUMBERS = {ord("g"): 9, ord("X"): 12}
"""The bytes after the node's name in a process identifier (Erlang's external term format, PID_EXT and NEW_PID_EXT)."""

_LENGTH = {ord("d"): 2, ord("v"): 2, ord("s"): 1, ord("w"): 1}
"""The size of an atom's length field in bytes, by the type of the atom."""


def is_direct_reply(address: str) -> bool:
    """Return whether a reply address is a direct reply-to address, and not the name of a queue."""
    return address.startswith(PREFIX)


@lru_cache(maxsize=MOST_NODES)
def node_of(address: str) -> str | None:
    """Return the node that a direct reply-to address names, as it is written there; None if it names none."""
    found = _ADDRESS.fullmatch(address.removeprefix(PREFIX))
    if found is None:
        return None
    try:
        process = base64.b64decode(found[1], validate=True)
        version, kind, atom = process[:3]
        numbers, width = _NUMBERS[kind], _LENGTH[atom]
    except (binascii.Error, ValueError, KeyError):
        return None
    end = 3 + width + int.from_bytes(process[3 : 3 + width])
    if version != _VERSION or len(process) != end + numbers:
        return None
    return process[:end].hex()


class DirectReplies:
    """Knows which direct reply-to addresses belong to the broker.

    ``ask`` checks one address. If it returns None, the check failed, and the address is trusted.
    """

    def __init__(self, ask: Callable[[str], Awaitable[bool | None]]) -> None:
        self._ask = ask
        self._nodes: set[str] = set()
        self._none: ExpiringDict[bool] = ExpiringDict(ASKED_AGAIN, MOST_NODES)
        self._asking = asyncio.Lock()

    async def can_be(self, address: str) -> bool:
        """Return whether messages can be published to this address. They always can if it is a queue's name."""
        if not is_direct_reply(address):
            return True
        node = node_of(address)
        if node is None:
            return False
        if node in self._nodes:
            return True
        async with self._asking:
            if node not in self._nodes and not self._none.get(node):
                answer = await self._ask(address)
                if answer:
                    self._nodes.add(node)
                elif answer is not None:
                    self._none.set(node, True)
        return not self._none.get(node)
