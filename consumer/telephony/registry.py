"""Every translator, and the one function that uses them.

To add a platform, write a module with ``SOURCE``, ``SHAPES`` and ``translate`` in ``platforms`` and add its line below.
The shapes exclude one another, and their order means nothing: a body that two translators know becomes a dead letter
with both names, because a guess could end the wrong call. A body is compared with the shapes that begin with one of its
own fields, so a further platform costs the events of the others nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from consumer.telephony.decode import decode
from consumer.telephony.marks import Shape, fits, missing, nearness
from consumer.telephony.platforms import (
    asterisk,
    cxml,
    daily,
    elevenlabs,
    freeswitch,
    jambonz,
    kazoo,
    livekit,
    openai,
    own,
    plivo,
    relay,
    retell,
    swaig,
    swml,
    telnyx,
    vapi,
    vonage,
    wazo,
)
from consumer.telephony.translation import Ignored, Payload, Translated, Translation, Unrecognised, Unusable
from consumer.telephony.values import one_line
from schemas.calls import Platform


class Translator(Protocol):
    """One platform: a module of ``consumer.telephony.platforms``."""

    SOURCE: str

    @property
    def SHAPES(self) -> tuple[Shape, ...]:  # noqa: N802 - a constant of the module
        """The shapes that its events have, any of which is enough. The first mark of each needs a field."""

    def translate(self, payload: Payload) -> Translated | Ignored:
        """Translate a body that has one of the shapes.

        Raises:
            Unusable: the call cannot be identified, or the body contradicts its own shape.
        """


TRANSLATORS: tuple[Translator, ...] = (
    own,
    relay,
    swml,
    cxml,
    swaig,
    freeswitch,
    kazoo,
    wazo,
    asterisk,
    telnyx,
    vonage,
    plivo,
    jambonz,
    livekit,
    vapi,
    retell,
    daily,
    elevenlabs,
    openai,
)

SOURCES = frozenset(translator.SOURCE for translator in TRANSLATORS)
"""The names of all translators."""

PLATFORMS: Mapping[Platform, frozenset[str]] = {
    "asterisk": frozenset({"asterisk"}),
    "daily": frozenset({"daily"}),
    "elevenlabs": frozenset({"elevenlabs"}),
    "freeswitch": frozenset({"freeswitch_amqp"}),
    "jambonz": frozenset({"jambonz"}),
    "kazoo": frozenset({"kazoo"}),
    "livekit": frozenset({"livekit"}),
    "openai": frozenset({"openai"}),
    "plivo": frozenset({"plivo"}),
    "retell": frozenset({"retell"}),
    "signalwire": frozenset({"relay", "swml_status", "cxml", "swaig"}),
    "telnyx": frozenset({"telnyx", "cxml"}),
    "twilio": frozenset({"cxml"}),
    "vapi": frozenset({"vapi"}),
    "vonage": frozenset({"vonage"}),
    "wazo": frozenset({"wazo"}),
}
"""The translators that read the events of each platform."""

MAX_KEYS_SHOWN = 8
MAX_SHOWN = 60
MAX_PROBLEM_BYTES = 600
MAX_INNER_BYTES = 256 << 10
"""The longest inner text that is examined, to distinguish a wrapped event from an unknown one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One translator's verdict on a body; ``refused`` is the reason why it is not one of its events, or None."""

    source: str
    refused: str | None
    near: int = 0
    """How many of the translator's marks the body has, if it lacks only one."""


def _index() -> dict[str, tuple[tuple[Translator, Shape], ...]]:
    found: dict[str, tuple[tuple[Translator, Shape], ...]] = {}
    for translator in TRANSLATORS:
        for shape in translator.SHAPES:
            for key in shape[0].keys:
                found[key] = (*found.get(key, ()), (translator, shape))
    return found


_INDEX = _index()
_INDEXED = frozenset(_INDEX)


def translate(
    body: bytes,
    *,
    content_type: str | None = None,
    headers: Mapping[str, object] | None = None,
    routing_key: str | None = None,
    platform: Platform | None = None,
) -> Translation:
    """Translate a telephony platform's message to a call event. Never raises.

    Platforms are told apart by the shape of the body. ``content_type`` (or a ``content-type`` among the ``headers``, as
    HTTP bridges leave it) helps with a form that does not look like one; ``routing_key`` is only quoted in the problem
    of an unknown body. ``platform``, one of ``PLATFORMS``, says whose event it must be.
    """
    try:
        payload = _payload(body, content_type, headers, platform)
    except Unusable as error:
        return _dead_letter(str(error))
    try:
        found = recognisers(payload)
    except Exception as error:  # noqa: BLE001 - a defect of one shape must make one dead letter, not stop a worker
        return _dead_letter(f"the shapes failed with {type(error).__name__}: {error}")
    if platform is not None:
        found = [one for one in found if one.SOURCE in PLATFORMS[platform]]
    match found:
        case []:
            return _dead_letter(_nobody_knows(payload, routing_key, platform))
        case [translator]:
            return _translated(translator, payload)
        case _:
            names = " and ".join(sorted(one.SOURCE for one in found))
            return _dead_letter(f"it could be an event of {names}: send what one platform sent, and nothing else")


def recognisers(payload: Payload) -> list[Translator]:
    """Return the translators that know the body's shape: at most one, unless it mixes two bodies."""
    found: list[Translator] = []
    for key in payload.keys() & _INDEXED:
        for translator, shape in _INDEX[key]:
            if translator not in found and fits(shape, payload):
                found.append(translator)
    return found


def looks(
    body: bytes,
    *,
    content_type: str | None = None,
    headers: Mapping[str, object] | None = None,
    platform: Platform | None = None,
) -> list[Verdict]:
    """Return each translator's verdict on a body, the nearest first; none if the body cannot be read."""
    try:
        return _looks(_payload(body, content_type, headers, platform))
    except Unusable:
        return []


def _translated(translator: Translator, payload: Payload) -> Translation:
    try:
        return translator.translate(payload)
    except Unusable as error:
        return _dead_letter(f"{translator.SOURCE}: {error}")
    except Exception as error:  # noqa: BLE001 - a defect of one translator must make one dead letter, not stop a worker
        return _dead_letter(f"{translator.SOURCE}: the translator failed with {type(error).__name__}: {error}")


def _payload(
    body: bytes, content_type: str | None, headers: Mapping[str, object] | None, platform: Platform | None
) -> Payload:
    payload = decode(body, content_type or _header_content_type(headers))
    return asterisk.unwrapped(payload) if platform == asterisk.SOURCE else payload


def _looks(payload: Payload) -> list[Verdict]:
    found = [_look(translator, payload) for translator in TRANSLATORS]
    return sorted(found, key=lambda look: (look.refused is not None, -look.near))


def _look(translator: Translator, payload: Payload) -> Verdict:
    if any(fits(shape, payload) for shape in translator.SHAPES):
        return Verdict(translator.SOURCE, None)
    closest = min(translator.SHAPES, key=lambda shape: (-nearness(shape, payload), len(missing(shape, payload))))
    lost = "; ".join(mark.missing for mark in missing(closest, payload))
    return Verdict(translator.SOURCE, one_line(lost, MAX_PROBLEM_BYTES), nearness(closest, payload))


def _dead_letter(problem: str) -> Unrecognised:
    """Return the problem as one short line of valid text. It travels in a header, and may quote names in the body."""
    return Unrecognised(one_line(problem, MAX_PROBLEM_BYTES))


def _header_content_type(headers: Mapping[str, object] | None) -> str | None:
    for name, value in (headers or {}).items():
        if name.casefold() == "content-type":
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


def _nobody_knows(payload: Payload, routing_key: str | None, platform: Platform | None) -> str:
    """Return why no translator takes a body. The most helpful reasons come first."""
    keys = ", ".join(repr(key[:MAX_SHOWN]) for key in list(payload)[:MAX_KEYS_SHOWN]) or "none"
    more = ", ..." if len(payload) > MAX_KEYS_SHOWN else ""
    came = f", routing key {routing_key[:MAX_SHOWN]!r}" if routing_key else ""
    known = f"{platform} sends no" if platform else "no known platform sends an"
    said = f"{known} object with these fields: {keys}{more}{came}"
    hints = [*_wrapped(payload), *_nearly(payload, PLATFORMS[platform] if platform else SOURCES)]
    return "; ".join([said, *hints])


def _nearly(payload: Payload, sources: Iterable[str]) -> list[str]:
    return [f"nearly {look.source}: {look.refused}" for look in _looks(payload) if look.near and look.source in sources]


def _wrapped(payload: Payload) -> list[str]:
    """Return the fields that contain a platform's event, because a bridge has put it into an envelope."""
    found = []
    for name, value in payload.items():
        if isinstance(value, str) and 2 < len(value) <= MAX_INNER_BYTES:
            try:
                value = decode(value.encode("utf-8", "surrogateescape"))  # noqa: PLW2901 - read, as a body would be
            except (Unusable, UnicodeEncodeError):
                continue
        if isinstance(value, dict) and (known := recognisers(value)):
            found.append(f"{name[:MAX_SHOWN]!r} holds an event of {known[0].SOURCE}: send that alone")
    return found
