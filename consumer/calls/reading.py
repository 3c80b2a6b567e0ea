"""Reading what is addressed to a call."""

from pydantic import ValidationError

from consumer.broker.message import Delivery
from consumer.broker.outcome import Park
from schemas.calls import CallEvent
from schemas.errors import InvalidMessage, SessionsError
from schemas.ids import CallId
from schemas.internal import OwnerCheck, Recipe
from schemas.replies import failed
from schemas.requests import (
    CallAddressed,
    CallProgress,
    CallRequest,
    CallStarted,
    SessionCreate,
    explain,
    parse_request,
)

Addressed = CallAddressed | Recipe | OwnerCheck

MAX_OPENING = 1 << 20
"""The most bytes of what opens sessions, and of a raw call event.

It becomes their metadata, which is in every event and listing of theirs and in the call's recipe: all of them have to
fit into one message.
"""

_OPENING = {SessionCreate.type, CallStarted.type, CallProgress.type}

_INTERNAL: dict[str, type[Recipe] | type[OwnerCheck]] = {Recipe.type: Recipe, OwnerCheck.type: OwnerCheck}


def read_addressed(delivery: Delivery) -> tuple[CallId, Addressed]:
    """What a message says, and of which call.

    Raises:
        UnknownType: its type is none of ours.
        InvalidMessage: it does not fit its type, is too large, or is a question to the cluster that was sent to a call.
    """
    internal = _INTERNAL.get(delivery.type or "")
    if internal is not None:
        try:
            message = internal.model_validate_json(delivery.message.body)
        except ValidationError as error:
            raise InvalidMessage(f"{delivery.type}: {explain(error)[0]}", type=delivery.type) from error
        return message.call_id, message
    size = len(delivery.message.body)
    if size > MAX_OPENING and delivery.type in _OPENING:
        raise InvalidMessage(f"{delivery.type}: {size} bytes, {MAX_OPENING} are the most", size=size, limit=MAX_OPENING)
    request = parse_request(delivery.type, delivery.message.body)
    if isinstance(request, CallRequest | CallEvent):
        return request.call_id, request
    raise InvalidMessage(
        f"{delivery.type} is a question to the cluster: send it to the 'queries' queue", type=delivery.type
    )


def refused(error: SessionsError) -> Park:
    """What becomes of a message that cannot be read: parked, and its sender told."""
    return Park(error.code.value.lower(), error.message, failed(error))
