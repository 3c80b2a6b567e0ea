"""The normalised call event, which the events of every telephony platform are translated to."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from schemas.base import Json, Strict, Time
from schemas.errors import InvalidArgument
from schemas.explaining import explain
from schemas.ids import CallId, CallIdField


class CallKind(StrEnum):
    """The kind of a call event: what happened to the call.

    ``progress`` (ringing, answered, a tool requested) means that the call is active. It counts as the start if there
    was none, and as a use of the call's sessions otherwise.
    """

    STARTED = "started"
    PROGRESS = "progress"
    ENDED = "ended"


CALL_STATE = "call_state"
"""The attribute with the state of a call: ``created``, ``ringing``, ``answered``, or the platform's own word."""

UNANSWERED = frozenset({"queued", "initiated", "created", "ringing", "ending"})
"""The states of a call that is not answered. ``ending`` is one, because a call can end without an answer."""

Platform = Literal[
    "asterisk", "daily", "elevenlabs", "freeswitch", "jambonz", "kazoo", "livekit", "openai", "plivo", "retell",
    "signalwire", "telnyx", "twilio", "vapi", "vonage", "wazo",
]  # fmt: skip
"""A telephony platform, as the configuration and the gateway's addresses name it."""

Direction = Literal["inbound", "outbound", "internal"]


class CallEvent(Strict):
    """One normalised call event. Publish it to ``mcp.calls``, persistent and with confirms; it needs no ``type``.

    Workers send each other the same body as ``call.started``, ``call.progress`` and ``call.ended``.

    ``source`` names the translator (``relay``, ``freeswitch_amqp``, ...). ``end_reason`` is the platform's own word.
    ``attributes`` holds the rest of the event, for routes to match on: text, and in your own events any JSON. The
    attribute ``call_state`` has a special meaning: it is the state of the call (``created``, ``ringing``,
    ``answered``), if the platform reports it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, serialize_by_alias=True)

    call_id: CallIdField
    kind: Annotated[CallKind, Field(strict=False)]  # also its text, as JSON has it
    source: str = "custom"
    direction: Direction | None = None
    # Not ``alias``: type checkers would take ``from`` for the parameter's name, and that is a keyword.
    from_: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to: str | None = None
    end_reason: str | None = None
    parent_call_id: CallIdField | None = None
    occurred_at: Time | None = None
    attributes: Json = Field(default_factory=dict)

    if not TYPE_CHECKING:  # who makes an event has arguments with the names and types of its fields

        def __init__(self, /, **fields: Any) -> None:
            """Make an event.

            Raises:
                InvalidArgument: a field is missing, unknown, or has the wrong type or value; the message names it.
            """
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise InvalidArgument(f"{type(self).__name__}: {explain(error, type(self))[0]}") from None

        __init__.__pydantic_base_init__ = True  # else it would be called for what is read from a message, too

    @property
    def is_answered(self) -> bool:
        """Whether the call is answered. An event without a state counts as answered, so that nothing waits for ever."""
        return str(self.attributes.get(CALL_STATE)).casefold() not in UNANSWERED

    @property
    def message_type(self) -> str:
        """The AMQP ``type`` of this event between workers."""
        return f"call.{self.kind.value}"


def normal_reason(reason: str) -> str:
    """Return an end reason in a form for comparison: platforms write ``noAnswer`` or ``NO_ANSWER``."""
    return reason.replace("_", "").replace("-", "").replace(" ", "").casefold()


__all__ = ["CALL_STATE", "CallEvent", "CallId", "CallKind", "Direction", "Platform", "normal_reason"]
