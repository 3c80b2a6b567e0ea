"""Plivo: the requests to ``answer_url``, ``hangup_url`` and ``ring_url``, and the callbacks of ``<Dial>``.

Sources: plivo.com/docs ``voice/xml/request``, ``voice/xml/dial``, ``voice/use-cases/dial-status-reporting``. Vobiz
sends the same forms. ``StartTime``, ``AnswerTime`` and ``EndTime`` are in the account's time zone and do not say so;
only ``SessionStart`` is known to be UTC, and it is the time of the start.
"""

import re

from consumer.telephony import times, values
from consumer.telephony.marks import has, lacks
from consumer.telephony.translation import Ignored, Payload, Translated
from schemas.calls import CallKind, normal_reason

SOURCE = "plivo"

SHAPES = ((has("CallUUID"), lacks("CallSid")),)

ENDS = frozenset({"completed", "busy", "failed", "timeout", "noanswer", "cancel", "canceled", "cancelled", "rejected"})
"""The call statuses of an end, as ``normal_reason`` spells them."""

STATES = {"ringing": "ringing", "inprogress": "answered"}
DIAL_ACTIONS = {"answer": CallKind.PROGRESS, "connected": CallKind.PROGRESS, "hangup": CallKind.ENDED}

_OF_SOMETHING_ELSE = re.compile(r"Record|Machine|Stream|Conference|Audio|Transcri|Member", re.IGNORECASE)
"""Events about other things that may contain the ``CallStatus`` of their call."""

_ATTRIBUTES = (
    ("event", "Event"), ("call_status", "CallStatus"), ("caller_name", "CallerName"), ("request_uuid", "RequestUUID"),
    ("hangup_cause_code", "HangupCauseCode"), ("hangup_cause_name", "HangupCauseName"),
    ("hangup_source", "HangupSource"),
    ("duration", "Duration"), ("bill_duration", "BillDuration"), ("forwarded_from", "ForwardedFrom"),
    ("stir_verification", "STIRVerification"), ("dial_status", "DialStatus"), ("account_id", "ParentAuthID"),
    ("machine", "Machine"),
)  # fmt: skip


def translate(payload: Payload) -> Translated | Ignored:
    """Translate the call's status, or that of the dialled leg in a callback of ``<Dial>``."""
    fields = values.unlisted(payload)
    action = values.first(fields, "DialAction")
    if action is not None:
        return _dialled(fields, action)
    event = values.first(fields, "Event") or ""
    status = values.first(fields, "CallStatus")
    if status is None and event != "Hangup":
        return Ignored(SOURCE, values.what(event) if event else "callback without CallStatus")
    if _OF_SOMETHING_ELSE.search(event):
        return Ignored(SOURCE, values.what(event))
    state = normal_reason(status or "")
    kind = CallKind.ENDED if event == "Hangup" or state in ENDS else CallKind.PROGRESS
    if kind is CallKind.PROGRESS and state not in STATES:
        return Ignored(SOURCE, values.what("call status", status))
    if state == "ringing" and event in ("StartApp", "") and values.direction_of(fields.get("Direction")) != "outbound":
        kind = CallKind.STARTED  # the request for the XML that an inbound call is to follow
    return values.translated(
        SOURCE,
        kind,
        values.call_id(fields, "CallUUID"),
        direction=fields.get("Direction"),
        from_=values.first(fields, "From"),
        to=values.first(fields, "To"),
        end_reason=values.first(fields, "HangupCause") or status,
        occurred_at=times.iso(fields.get("SessionStart")) if kind is CallKind.STARTED else None,
        state=STATES.get(state),
        about=_about(fields),
    )


def _dialled(fields: Payload, action: str) -> Translated | Ignored:
    """Translate the leg that ``<Dial>`` called. ``CallUUID`` and ``CallStatus`` in it are the caller's."""
    kind = DIAL_ACTIONS.get(action)
    if kind is None or fields.get("DialBLegUUID") == "":  # nobody answered: there never was a leg
        return Ignored(SOURCE, values.what("dial", action))
    return values.translated(
        SOURCE,
        kind,
        values.call_id(fields, "DialBLegUUID"),
        direction="outbound",
        from_=values.first(fields, "DialBLegFrom"),
        to=values.first(fields, "DialBLegTo"),
        end_reason=values.first(fields, "DialBLegHangupCause", "DialHangupCause", "DialBLegStatus"),
        parent=values.parent_id(fields, "DialALegUUID") or values.parent_id(fields, "CallUUID"),
        state="answered" if kind is CallKind.PROGRESS else None,
        about=_about(fields),
    )


def _about(fields: Payload) -> list[tuple[str, object]]:
    headers = {name.removeprefix("X-PH-"): value for name, value in fields.items() if name.startswith("X-PH-")}
    return [*values.picked(fields, _ATTRIBUTES), *values.sip_headers(headers)]
