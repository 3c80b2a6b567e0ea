"""The messages on the wire: requests, replies, events, errors and ids. It imports nothing of the worker.

Other programs may use this package alone, to build and to read messages.
"""

from schemas.calls import CallEvent, CallKind
from schemas.errors import ErrorBody, ErrorCode, SessionsError
from schemas.events import CloudEvent, EndReason, SessionEventType
from schemas.replies import Reply
from schemas.requests import REQUESTS, Request, parse_request
from schemas.sessions import ServiceInfo, SessionInfo, WorkerInfo

__all__ = [
    "REQUESTS",
    "CallEvent",
    "CallKind",
    "CloudEvent",
    "EndReason",
    "ErrorBody",
    "ErrorCode",
    "Reply",
    "Request",
    "ServiceInfo",
    "SessionEventType",
    "SessionInfo",
    "SessionsError",
    "WorkerInfo",
    "parse_request",
]
