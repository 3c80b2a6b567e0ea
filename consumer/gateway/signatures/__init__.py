"""Verifies the signatures of platforms' webhooks: one pure module for each scheme, with the same two functions.

A scheme says whether a request carries its signature at all, and whether one of several keys has made it. Two keys are
valid while one is replaced. A signature that does not cover the body, or is older than the replay window, is refused.
"""

from collections.abc import Mapping
from typing import Final

from consumer.gateway.signatures import (
    daily,
    elevenlabs,
    jambonz,
    livekit,
    plivo,
    retell,
    signalwire,
    standard,
    telnyx,
    twilio,
    vapi,
    vonage,
)
from consumer.gateway.signatures.signed import Scheme, Signed
from schemas.calls import Platform

SCHEMES: Final[Mapping[Platform, Scheme]] = {
    "daily": daily,
    "elevenlabs": elevenlabs,
    "jambonz": jambonz,
    "livekit": livekit,
    "openai": standard,
    "plivo": plivo,
    "retell": retell,
    "signalwire": signalwire,
    "telnyx": telnyx,
    "twilio": twilio,
    "vapi": vapi,
    "vonage": vonage,
}
"""The scheme of each platform that signs."""

COVERS_URL: Final[frozenset[Platform]] = frozenset({"plivo", "signalwire", "twilio"})
"""The platforms whose signatures cover the address with its query. For others, a request without a body is unsigned."""

__all__ = ["COVERS_URL", "SCHEMES", "Scheme", "Signed"]
