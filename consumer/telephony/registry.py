"""Every translator, and the one function that uses them.

To add a platform, write a module with ``SOURCE``, ``recognises`` and ``translate`` in ``platforms`` and add its line
below. The shapes exclude one another, with these exceptions, which the order settles:

- a SWAIG request may carry a ``call`` object, which makes a SWML document fetch otherwise;
- a SWML status callback is a RELAY event whose ``event_channel`` begins with ``swml:``;
- Kazoo's and FreeSWITCH's events both have an ``Event-Name``: Kazoo adds ``Event-Category``;
- what wazo-res-stasis-amqp publishes of Asterisk is ``{name, data}`` like Wazo's own events, without their origin.
"""

from collections.abc import Mapping

from consumer.telephony.decode import decode
from consumer.telephony.outcome import Payload, Translation, Translator, Unrecognised, Unusable
from consumer.telephony.platforms import asterisk, cxml, freeswitch, kazoo, own, relay, swaig, swml, wazo
from consumer.telephony.values import one_line

TRANSLATORS: tuple[Translator, ...] = (
    own,
    swaig,
    swml,
    relay,
    cxml,
    kazoo,
    freeswitch,
    wazo,
    asterisk,
)

SOURCES = frozenset(translator.SOURCE for translator in TRANSLATORS)
"""The names of all platforms."""

MAX_KEYS_SHOWN = 8
MAX_SHOWN = 60
MAX_PROBLEM_BYTES = 600


def translate(
    body: bytes,
    *,
    content_type: str | None = None,
    headers: Mapping[str, object] | None = None,
    routing_key: str | None = None,
) -> Translation:
    """What a telephony platform's message says about a call; never raises.

    Platforms are told apart by the shape of the body. ``content_type`` (or a ``content-type`` among the ``headers``,
    as HTTP bridges leave it) helps with a form that does not look like one; ``routing_key`` is only quoted in
    the problem of a body that nobody knows.
    """
    try:
        payload = decode(body, content_type or _header_content_type(headers))
    except Unusable as error:
        return _parked(str(error))
    for translator in TRANSLATORS:
        try:
            if translator.recognises(payload):
                return translator.translate(payload)
        except Unusable as error:
            return _parked(f"{translator.SOURCE}: {error}")
        except Exception as error:  # noqa: BLE001 - a defect of one translator must park one message, not stop a worker
            return _parked(f"{translator.SOURCE}: the translator failed with {type(error).__name__}: {error}")
    return _parked(_nobody_knows(payload, routing_key))


def _parked(problem: str) -> Unrecognised:
    """The problem as one bounded line of valid text: it travels in a header, and may quote names out of the body."""
    return Unrecognised(one_line(problem, MAX_PROBLEM_BYTES))


def _header_content_type(headers: Mapping[str, object] | None) -> str | None:
    for name, value in (headers or {}).items():
        if name.casefold() == "content-type":
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


def _nobody_knows(payload: Payload, routing_key: str | None) -> str:
    keys = ", ".join(repr(key[:MAX_SHOWN]) for key in list(payload)[:MAX_KEYS_SHOWN]) or "none"
    more = ", ..." if len(payload) > MAX_KEYS_SHOWN else ""
    came = f", routing key {routing_key[:MAX_SHOWN]!r}" if routing_key else ""
    return f"no known platform sends an object with these fields: {keys}{more}{came}"
