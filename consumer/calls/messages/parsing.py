"""Parses messages that are addressed to calls, and checks that they came under the routing key of their call."""

from typing import Any

from pydantic import ValidationError

from consumer.broker.message import CALL_HEADER, Delivery
from consumer.broker.outcome import ToDeadLetters
from consumer.broker.topology import Names
from consumer.observability import metrics
from consumer.sessions import ProcessExit
from schemas.calls import CallEvent
from schemas.errors import InvalidMessage, SessionNotFound, SessionsError
from schemas.explaining import explain
from schemas.ids import SEPARATOR, CallId, ServiceName, routing_key, session_id_of
from schemas.internal import OwnerCheck, Recipe, SessionsScatter
from schemas.replies import failed
from schemas.requests import (
    REQUESTS,
    CallAddressed,
    CallRequest,
    ClusterRequest,
    MayOpen,
    ServicesDescribe,
    ServicesTools,
    SessionCreate,
    SessionDescribe,
    ToolsCall,
    ToolsList,
    parse_request,
)

Addressed = CallAddressed | Recipe | OwnerCheck

_INTERNAL: dict[str, type[Recipe] | type[OwnerCheck]] = {Recipe.type: Recipe, OwnerCheck.type: OwnerCheck}


def read_addressed(delivery: Delivery, names: Names) -> tuple[CallId, Addressed]:
    """Parse a message. Return it with its call.

    Raises:
        UnknownType: its type is unknown.
        InvalidMessage: it does not fit its type, came under the key of another call, or is a request to the cluster
            that was sent to a call.
    """
    call_id, message = _read(delivery, names)
    # Between workers it may go straight to a queue, under the queue's name; then a header names the call.
    named = delivery.message.headers.get(CALL_HEADER)
    key = delivery.routing_key if named is None else routing_key(CallId(str(named)))
    if key != routing_key(call_id):
        raise InvalidMessage(
            f"{delivery.type}: it names the call {call_id!r}, but has the routing key {key!r}: "
            f"publish it under {routing_key(call_id)!r}",
            call_id=call_id,
            routing_key=key,
        )
    return call_id, message


def _read(delivery: Delivery, names: Names) -> tuple[CallId, Addressed]:
    internal = _INTERNAL.get(delivery.type or "")
    if internal is not None:
        try:
            message = internal.model_validate_json(delivery.message.body)
        except ValidationError as error:
            raise InvalidMessage(f"{delivery.type}: {explain(error, internal)[0]}", type=delivery.type) from error
        return message.call_id, message
    request = parse_request(delivery.type, delivery.message.body)
    if isinstance(request, CallRequest | CallEvent):
        return request.call_id, request
    raise InvalidMessage(
        f"{delivery.type} is a request to the cluster: publish it to the exchange {names.cluster!r}",
        type=delivery.type,
    )


def about(message: Addressed | ClusterRequest) -> dict[str, Any]:
    """Return the fields of a message for its log line: the tool and the service that it names."""
    told: dict[str, Any] = {"tool": message.name} if isinstance(message, ToolsCall) else {}
    service: str | None = None
    if isinstance(message, CallRequest):
        service = service_named_by(message)
    elif isinstance(message, ServicesTools | ServicesDescribe):
        service = message.service_name
    if service is not None:
        told["service"] = service
    return told


def service_named_by(request: CallRequest) -> ServiceName | None:
    """The service that a request names, if it names one."""
    if isinstance(request, MayOpen | SessionCreate | SessionDescribe | ToolsList):
        return request.service_name
    return None


def names_session_of(request: CallRequest, service: ServiceName) -> bool:
    """Return whether the id of a request is a possible id of the call's session on the service."""
    return request.session_id in (request.call_id, session_id_of(request.call_id, service, first=False))


def no_session(request: CallRequest, *, ended: bool = False, died: ProcessExit | None = None) -> SessionNotFound:
    """Return the error for a request without a session. It says why, or how the request could open one.

    ``died`` is how the session's server ended, if the session died.
    """
    hint, details = "", dict[str, Any]()
    if ended:
        hint = ": its call has ended"
    elif died is not None:
        hint = f": it died, {died.told}"
        details = died.details
    if not ended and isinstance(request, MayOpen):
        service = request.service_name
        if service is None:
            _, _, name = request.session_id.partition(SEPARATOR)
            given = f"the service_name {name!r}" if name else "a service_name"
            hint += f"; with {given}{' and open' if request.open == 'never' else ''} the request opens one"
        elif not names_session_of(request, service):
            other = session_id_of(request.call_id, service, first=False)
            hint += f"; the call's session on service {service!r} has the id {request.call_id!r} or {other!r}"
    told = f"there is no session {request.session_id!r}{hint}"
    return SessionNotFound(told, session_id=request.session_id, **details)


def timeout_named_by(request: CallRequest) -> float | None:
    """How long (s) the caller of a request waits, where the request says so."""
    return request.timeout if isinstance(request, MayOpen) else None


_KNOWN = frozenset({*REQUESTS, *_INTERNAL, SessionsScatter.type})


AMONG_WORKERS = frozenset({OwnerCheck.type, SessionsScatter.type})
"""The message types that workers send each other on their own."""


def kind_of(delivery: Delivery, names: Names) -> str:
    """Return a delivery's name for metrics: its type if that is one of ours, or ``call_event``."""
    if delivery.queue == names.calls:
        return "call_event"
    return delivery.type if delivery.type in _KNOWN else metrics.OTHER


def refused(error: SessionsError) -> ToDeadLetters:
    """Return the outcome of an unreadable message: a dead letter, and an error to its sender."""
    return ToDeadLetters(error.code.value.lower(), error.message, failed(error))
