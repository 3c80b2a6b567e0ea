"""Our own normalised event, sent by a bridge that has done the translating itself.

The message is ours to define, so it is read strictly: a field that we do not know or of a wrong type is refused, and
named. It keeps its own ``source``. Letters that are no text are replaced, but for those of an id.
"""

import json

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consumer.telephony.marks import among, has
from consumer.telephony.translation import Ignored, Payload, Translated, Unusable
from schemas.calls import CallEvent, CallKind
from schemas.text import REPLACED, problem_of, replaced, unknown_field

SOURCE = "custom"

SHAPES = (
    (has("kind"), has("call_id")),
    (among("kind", (kind.value for kind in CallKind)),),  # without a call_id: to be told what is missing
)

_FIELDS = tuple(field.serialization_alias or name for name, field in CallEvent.model_fields.items())

MAX_ERRORS_SHOWN = 3
MAX_SHOWN = 100


def translate(payload: Payload) -> Translated | Ignored:
    """Return the event unchanged."""
    try:
        # by way of JSON, because only there strict reading takes text for kinds and times
        text = json.dumps(payload, ensure_ascii=False)
        readable = replaced(text)
        return Translated(CallEvent.model_validate_json(readable, context={REPLACED: readable != text}))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        shown = [_sentence(one) for one in found[:MAX_ERRORS_SHOWN]]
        raise Unusable("; ".join(shown)) from error


def _sentence(error: ErrorDetails) -> str:
    field = ".".join(map(str, error["loc"]))[:MAX_SHOWN] or "the event"
    said = unknown_field(field, _FIELDS) if error["type"] == "extra_forbidden" else problem_of(error["msg"])
    return f"{field}: {said}"
