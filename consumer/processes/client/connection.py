"""A connection to a server: two streams, and the state of the server behind them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from consumer.processes.client.start_retries import Setback
from consumer.processes.stdio.process import ServerProcess
from consumer.processes.stdio.short_way import ShortWay
from consumer.sessions.session import ProcessExit
from schemas.errors import StartTimeout

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import ReadStream, WriteStream  # only the SDK's typing names them
    from mcp.shared.message import SessionMessage


class Connection(ABC):
    """The connection below a session, however the server is reached."""

    read: "ReadStream[SessionMessage | Exception]"
    write: "WriteStream[SessionMessage]"
    process: ServerProcess | None = None
    """The server's process, if this worker started it."""
    short_way: ShortWay | None = None
    """The fast path for requests without interim messages, if there is one."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether a request can still be answered."""

    @property
    @abstractmethod
    def last_words(self) -> str:
        """The last lines that the server wrote outside the protocol."""

    @property
    def forgotten(self) -> bool:
        """Whether a live server has forgotten the session. It executes no request of such a session."""
        return False

    # While it starts.

    @abstractmethod
    async def setback(self, fault: Exception, *, probed: bool) -> Setback:
        """Return what a failed handshake means. ``probed``: the server was asked for its era."""

    @abstractmethod
    def too_slow(self) -> StartTimeout:
        """Return the error for a handshake that took too long."""

    @abstractmethod
    def hurry(self) -> None:
        """Skip the waits when the server is ended: no session has begun."""

    # While the session lasts.

    @abstractmethod
    def begin(self, gone: Callable[[ProcessExit], None]) -> None:
        """Note that the start succeeded. ``gone`` is called once, in the loop, when the server ends or is lost."""

    @abstractmethod
    def break_off(self, cause: BaseException) -> None:
        """Note that the streams have failed."""

    @abstractmethod
    async def wait_gone(self, timeout: float) -> ProcessExit | None:
        """Wait at most ``timeout`` seconds for the end. Return how it ended, or ``None`` if it has not."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the server's process, if this worker started it."""
