"""Decides after a failed start whether another try can help."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from errno import EAGAIN, EMFILE, ENFILE, ENOMEM

import httpx2
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, wait_exponential

from consumer.processes.secrets import origin
from consumer.processes.service import MCPService
from consumer.sessions.session import ProcessExit
from schemas.errors import SessionsError, StartFailed, StartTimeout

MAX_TRIES = 5
_BUSY = {EAGAIN, EMFILE, ENFILE, ENOMEM}


class Again(Enum):
    """Whether to try once more."""

    NO = auto()
    """Never: a missing command, a crash with a traceback or a refusal would happen again."""

    ONCE = auto()
    """Once: the server was ended by a signal, perhaps because memory was short."""

    AS_OLD = auto()
    """At once, as a server of the old era: it ended when it was asked for its era."""

    WHILE_TIME = auto()
    """Until the deadline: no process could be forked, or nothing listens at the URL yet."""


@dataclass
class Setback(Exception):
    """One try to start a server failed with ``error``."""

    error: SessionsError
    again: Again = Again.NO


def tries(pause: Callable[[float], Awaitable[None]], deadline_passed: Callable[[], bool]) -> AsyncRetrying:
    """Return the retry policy for one client. All tries begin before its deadline. It raises the last setback."""

    def another_helps(state: RetryCallState) -> bool:
        setback = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(setback, Setback) or deadline_passed():
            return False
        at_most = {Again.NO: 1, Again.ONCE: 2}.get(setback.again, MAX_TRIES)
        return state.attempt_number < at_most

    def wait(state: RetryCallState) -> float:
        setback = state.outcome.exception() if state.outcome is not None else None
        at_once = isinstance(setback, Setback) and setback.again is Again.AS_OLD
        return 0.0 if at_once else backoff(state)

    backoff = wait_exponential(multiplier=0.1, max=2)
    return AsyncRetrying(retry=another_helps, wait=wait, sleep=pause, reraise=True)


def root_cause(error: BaseException) -> BaseException:
    """Return the first real exception inside exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def words_of(fault: BaseException) -> str:
    """Return the text of a failed handshake, in the server's words or ours, never in a validator's."""
    if isinstance(fault, ValidationError):
        where = ", ".join(
            ".".join(str(part) for part in error["loc"]) or "the whole response" for error in fault.errors()[:3]
        )
        return f"its response is not valid MCP; see {where}"
    if isinstance(fault, MCPError | SessionsError):
        return fault.message
    return str(fault) or type(fault).__name__


def ended_while_starting(service: MCPService, ending: ProcessExit, last_line: str, clue: str = "") -> StartFailed:
    """Return the error for a server that ended before it was ready. ``clue`` is the end of the message."""
    how = f"signal {ending.signal}" if ending.signal is not None else f"exit code {ending.exit_code}"
    why = f": {last_line}" if last_line else ", with no output on stderr"
    return StartFailed(
        f"{service.name}: the server ended while it was starting ({how}){why}{clue}",
        **ending.details,
    )


def refused(
    service: MCPService, fault: BaseException, stderr: str, *, clue: str = "", **details: object
) -> StartFailed:
    """Return the error for a server that gave an unusable answer. ``clue`` is the end of the message."""
    return StartFailed(
        f"{service.name}: the server did not complete the handshake: {words_of(fault)}{clue}",
        exit_code=None,
        signal=None,
        stderr=stderr,
        **details,
    )


def stopped(service: MCPService) -> StartFailed:
    """Return the error for a cancelled start."""
    return StartFailed(f"{service.name}: stopped while it was starting", exit_code=None, signal=None, stderr="")


def too_slow(service: MCPService, stderr: str, clue: str = "") -> StartTimeout:
    """Return the error for a handshake that took too long. ``clue`` is the end of the message."""
    return StartTimeout(
        f"{service.name}: the server did not finish its handshake within {service.start_timeout:g} s{clue}",
        stderr=stderr,
    )


def setback_of(service: MCPService, error: BaseException) -> Setback:
    """Return what an exception outside the protocol means, such as no process or no connection."""
    cause = root_cause(error)
    if isinstance(cause, Setback):
        return cause
    if isinstance(cause, SessionsError):
        return Setback(cause)
    details = {"exit_code": None, "signal": None, "stderr": ""}
    if isinstance(cause, (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)):
        again = Again.WHILE_TIME if isinstance(cause, httpx2.ConnectError) else Again.NO
        what = f"{service.name}: cannot reach {origin(service)}: {cause or type(cause).__name__}"
        return Setback(StartFailed(what, **details), again)
    if isinstance(cause, OSError):
        again = Again.WHILE_TIME if cause.errno in _BUSY else Again.NO
        return Setback(StartFailed(f"{service.name}: the process cannot be started: {cause}", **details), again)
    raise error
