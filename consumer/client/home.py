"""The process and the event loop that a connected client belongs to.

Sockets and tasks belong to one event loop, and an event loop to one process. In another process or loop a client would
wait for ever, because nothing there reads its socket.
"""

import asyncio
import os

from schemas.errors import NotConnectedHere

FORKED = "the client was connected before this process was forked; connect it in this process"
"""The error message of a client in a child of the process that connected it."""


class Home:
    """The process and the running event loop in which this object was made."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.get_running_loop()

    def is_here(self) -> bool:
        """Whether this is called in the same process and event loop."""
        return self._loop is asyncio.get_running_loop() and self._process == os.getpid()

    def is_over(self) -> bool:
        """Whether the process or event loop of the client has ended."""
        return self._process != os.getpid() or self._loop.is_closed()

    def check(self) -> None:
        """Check that this is called in the same process and event loop.

        Raises:
            NotConnectedHere: it is not.
        """
        if self._process != os.getpid():
            raise NotConnectedHere(FORKED)
        if self._loop is not asyncio.get_running_loop():
            raise NotConnectedHere(
                "the client was connected in another event loop; connect it in this one ('async with', inside the "
                "function that asyncio.run gets)"
            )
