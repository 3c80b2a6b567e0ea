"""A connection to a server: two streams, and what can be known of the life behind them."""

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
    """What a session is built on, however the server is reached."""

    read: "ReadStream[SessionMessage | Exception]"
    write: "WriteStream[SessionMessage]"
    process: ServerProcess | None = None
    """The server's process, where it is ours."""
    short_way: ShortWay | None = None
    """The way for requests whose sender hears nothing before the answer, where there is one."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether a request can still be answered."""

    @property
    @abstractmethod
    def last_words(self) -> str:
        """What the server said last, beside the protocol."""

    @property
    def forgotten(self) -> bool:
        """Whether the server lives and does not know the session any more; what it is asked then, it never executes."""
        return False

    # While it starts.

    @abstractmethod
    async def setback(self, fault: Exception, *, probed: bool) -> Setback:
        """What a fault of the handshake means; ``probed`` when the server was asked which era it speaks."""

    @abstractmethod
    def too_slow(self) -> StartTimeout:
        """The error for a handshake that did not come to an end in time."""

    @abstractmethod
    def hurry(self) -> None:
        """Give the server no time to leave when it is ended: no session was begun."""

    # While the session lasts.

    @abstractmethod
    def begin(self, gone: Callable[[ProcessExit], None]) -> None:
        """The start has succeeded: have ``gone`` called once, in the loop, when the server ends or is lost."""

    @abstractmethod
    def break_off(self, cause: BaseException) -> None:
        """The streams have failed."""

    @abstractmethod
    async def wait_gone(self, timeout: float) -> ProcessExit | None:
        """Wait at most ``timeout`` seconds for the end; how it ended, or ``None`` when it has not."""

    @abstractmethod
    def kill(self) -> None:
        """End at once what is ours of the server."""
