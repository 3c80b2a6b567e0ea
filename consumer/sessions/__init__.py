"""The session core: SignalWire's session manager in asyncio, usable alone.

It refuses to know where a request comes from and what a process speaks: it imports neither a broker's library nor
MCP's, only the standard library and ``schemas``. It starts nothing of its own accord (a process comes from the
``start`` it is given), reads no configuration file and publishes nothing (what happens is told to ``on_event``).
Its logs are the standard library's, an event's name as the message and its fields as ``extra``.

``start`` is whatever gives a ``SessionProcess``::

    manager = SessionManager({"session": {"default_timeout": 300}}, on_event=print)
    async with manager:  # leaving ends every session and waits for every process
        session, created = await manager.open_session("call-1", "echo", start)
        with session.in_use():  # it does not go idle while this runs
            assert await session.process.ask("hello") == "hello"
        assert manager.get_session("call-1") is session  # touched: its idle time starts anew
        print(manager.list_sessions()["call-1"]["time_remaining"])
        print(session.record.summary())
        assert await manager.close_session("call-1")  # its process has stopped now
        assert manager.get_session("call-1") is None

Modules: ``session`` (one session), ``session_manager`` (the table of them), ``limits``, ``turns``, ``starts``,
``stops`` and ``reservations`` (what the manager delegates), ``expiry`` over ``deadlines`` (when a session's time is
over), ``record`` (its tools).
"""

from consumer.sessions.limits import LimitSettings, SessionLimits
from consumer.sessions.record import ToolRecord
from consumer.sessions.reservations import Reservation
from consumer.sessions.session import ProcessExit, Session, SessionCreated, SessionEnded, SessionProcess
from consumer.sessions.session_manager import IfExists, Opened, SessionManager

__all__ = [
    "IfExists",
    "LimitSettings",
    "Opened",
    "ProcessExit",
    "Reservation",
    "Session",
    "SessionCreated",
    "SessionEnded",
    "SessionLimits",
    "SessionManager",
    "SessionProcess",
    "ToolRecord",
]
