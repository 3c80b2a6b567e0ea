"""Sentences that an agent can say to a caller when a tool could not be used. Pure."""

import re
from typing import Final

from schemas.errors import ClientError, ErrorCode, SessionsError
from schemas.text import problem_of

LATE = "This is taking longer than expected, and I do not know yet whether it worked. Please ask me again in a moment."
BUSY = "I cannot do that right now because the system is busy. Please try again in a moment."
UNKNOWN = "I do not have a way to do that."
FAILED = "That did not work. You can try again, or ask for something else."
UNSURE = "Something went wrong, and I cannot tell whether that was done. Please check before you try again."
UNREADABLE = "I could not use what I was given for that. Please tell me again."
ENDED = "I have lost track of this conversation's data. Please start again."


def sentence(error: SessionsError) -> str:
    """Return the sentence for an error. It says whether something may have been done, and nothing technical."""
    if isinstance(error, ClientError):
        return BUSY if error.executed is False else LATE
    match error.code:
        case ErrorCode.TOOL_TIMEOUT | ErrorCode.DEADLINE_EXCEEDED:
            return LATE
        case ErrorCode.OUTCOME_UNKNOWN | ErrorCode.SESSION_DIED | ErrorCode.INTERNAL:
            return UNSURE
        case (
            ErrorCode.CAPACITY
            | ErrorCode.SESSION_LIMIT
            | ErrorCode.SERVICE_SESSION_LIMIT
            | ErrorCode.START_TIMEOUT
            | ErrorCode.SHUTTING_DOWN
        ):
            return BUSY
        case ErrorCode.TOOL_NOT_FOUND | ErrorCode.SERVICE_NOT_FOUND | ErrorCode.SERVICE_DISABLED:
            return UNKNOWN
        case ErrorCode.INVALID_MESSAGE:
            return UNREADABLE
        case ErrorCode.SESSION_NOT_FOUND:
            return ENDED
        case _:
            return FAILED


_PYDANTIC: Final = re.compile(r"\d+ validation errors? for .*", re.DOTALL)
_FAULT: Final = re.compile(r"^(\S+)\n  (.+?) \[type=", re.MULTILINE)


def told_by_tool(text: str) -> str:
    """Return a tool's text about its failure. Pydantic's report of wrong arguments becomes one plain sentence."""
    reported = _PYDANTIC.search(text)
    if reported is None:
        return text or FAILED
    # "must be a valid integer, unable to parse string as an integer": the rest is for programmers
    faults = [
        f"{field} {_IN_SPEECH.get(problem, problem_of(problem).partition(', unable')[0])}"
        for field, problem in _FAULT.findall(reported[0])
    ]
    return f"That did not work: {' and '.join(faults)}." if faults else FAILED


_IN_SPEECH: Final = {"Field required": "is missing"}
