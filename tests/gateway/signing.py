"""Signing as the platforms do, for tests: one function for each scheme, from its documentation."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consumer.gateway.signatures import Signed
from schemas.calls import Platform

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Sent:
    """A request on its way."""

    body: bytes
    url: str = "https://voice.example.com/events"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    def signed(self, now: float, window: float = 300.0) -> Signed:
        """The request as a scheme sees it."""
        return Signed(self.method, self.url, self.headers, self.body, now, window)

    def told(self) -> dict[str, Any]:
        """The request as it is told to an SDK."""
        return {
            "method": self.method,
            "url": self.url,
            "headers": self.headers,
            "body": self.body.decode(),
            "form": self.content_type == FORM,
        }


Signer = Callable[[str, Sent, float], Sent]


def _hex(key: bytes, message: bytes) -> str:
    return hmac.new(key, message, "sha256").hexdigest()


def _base64(key: bytes, message: bytes, digest: str = "sha256") -> str:
    return base64.b64encode(hmac.digest(key, message, digest)).decode()


def _with(sent: Sent, **headers: str) -> Sent:
    return replace(sent, headers=sent.headers | {name.replace("_", "-"): value for name, value in headers.items()})


def twilio(key: str, sent: Sent, now: float) -> Sent:
    url = sent.url
    if sent.content_type == FORM:
        url += "".join(name + value for name, value in sorted(set(parse_qsl(sent.body.decode(), True))))
    elif sent.body:
        joined = "&" if "?" in url else "?"
        url += f"{joined}bodySHA256={hashlib.sha256(sent.body).hexdigest()}"
        sent = replace(sent, url=url)
    return _with(sent, x_twilio_signature=_base64(key.encode(), url.encode(), "sha1"))


def telnyx(key: str, sent: Sent, now: float) -> Sent:
    signature = private(key).sign(f"{int(now)}|".encode() + sent.body)
    return _with(sent, telnyx_timestamp=str(int(now)), telnyx_signature_ed25519=base64.b64encode(signature).decode())


def vonage(key: str, sent: Sent, now: float) -> Sent:
    claims = {
        "iat": int(now),
        "exp": int(now) + 3600,
        "jti": "c5ba8f24-1a14-4c10-bfdf-3fbe8ce511b5",
        "iss": "Vonage",
        "payload_hash": hashlib.sha256(sent.body).hexdigest(),
        "application_id": "aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
    }
    return _with(sent, authorization=f"Bearer {jwt.encode(claims, key, 'HS256')}")


def plivo(key: str, sent: Sent, now: float) -> Sent:
    url, _, query = sent.url.partition("?")
    fields = sorted(parse_qsl(sent.body.decode(), True))
    sorted_query = "&".join(f"{name}={value}" for name, value in sorted(parse_qsl(query, True)))
    base = url + (f"?{sorted_query}" if query or fields else "") + ("." if query and fields else "")
    nonce = "73823452345"
    message = base + "".join(name + value for name, value in fields) + "." + nonce
    return _with(sent, x_plivo_signature_v3=_base64(key.encode(), message.encode()), x_plivo_signature_v3_nonce=nonce)


def livekit(key: str, sent: Sent, now: float) -> Sent:
    issuer, _, secret = key.partition(":")
    digest = base64.b64encode(hashlib.sha256(sent.body).digest()).decode()
    claims = {"iss": issuer, "nbf": int(now), "exp": int(now) + 300, "sha256": digest}
    return _with(sent, authorization=jwt.encode(claims, secret, "HS256"))


def vapi(key: str, sent: Sent, now: float) -> Sent:
    message = f"{int(now)}.".encode() + sent.body
    return _with(sent, x_signature=_hex(key.encode(), message), x_timestamp=str(int(now)))


def retell(key: str, sent: Sent, now: float) -> Sent:
    stamp = str(int(now * 1000))
    return _with(sent, x_retell_signature=f"v={stamp},d={_hex(key.encode(), sent.body + stamp.encode())}")


def jambonz(key: str, sent: Sent, now: float) -> Sent:
    stamp = int(now)
    return _with(sent, jambonz_signature=f"t={stamp},v1={_hex(key.encode(), f'{stamp}.'.encode() + sent.body)}")


def daily(key: str, sent: Sent, now: float) -> Sent:
    signature = _base64(base64.b64decode(key), f"{int(now)}.".encode() + sent.body)
    return _with(sent, x_webhook_signature=signature, x_webhook_timestamp=str(int(now)))


def elevenlabs(key: str, sent: Sent, now: float) -> Sent:
    stamp = int(now)
    return _with(sent, elevenlabs_signature=f"t={stamp},v0={_hex(key.encode(), f'{stamp}.'.encode() + sent.body)}")


def openai(key: str, sent: Sent, now: float) -> Sent:
    stamp, identity = int(now), "wh_6b6ebd5e8553"
    secret = base64.b64decode(key.removeprefix("whsec_"))
    signature = _base64(secret, f"{identity}.{stamp}.".encode() + sent.body)
    return _with(sent, webhook_id=identity, webhook_timestamp=str(stamp), webhook_signature=f"v1,{signature}")


def private(public: str) -> Ed25519PrivateKey:
    """The private key of one of the public keys in ``KEYS``."""
    return _PRIVATE[public]


def _pair(seed: bytes) -> tuple[str, Ed25519PrivateKey]:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return base64.b64encode(key.public_key().public_bytes_raw()).decode(), key


_PRIVATE = dict(_pair(bytes([number]) * 32) for number in (1, 2))


def _in_base64(letter: bytes) -> str:
    return base64.b64encode(letter * 32).decode()


SIGNERS: dict[Platform, Signer] = {
    "twilio": twilio,
    "telnyx": telnyx,
    "vonage": vonage,
    "plivo": plivo,
    "livekit": livekit,
    "vapi": vapi,
    "retell": retell,
    "jambonz": jambonz,
    "daily": daily,
    "elevenlabs": elevenlabs,
    "openai": openai,
}
"""How each platform signs; SignalWire has tests of its own."""

KEYS: dict[Platform, tuple[str, str]] = {name: (f"{name}-key-1-" * 4, f"{name}-key-2-" * 4) for name in SIGNERS}
KEYS["telnyx"] = tuple(_PRIVATE)  # type: ignore[assignment]
KEYS["daily"] = (_in_base64(b"a"), _in_base64(b"b"))
KEYS["openai"] = (f"whsec_{_in_base64(b'c')}", f"whsec_{_in_base64(b'd')}")
KEYS["livekit"] = ("APIone:" + "s" * 40, "APItwo:" + "t" * 40)
"""Two keys for each."""

BODIES: dict[Platform, Sent] = {
    "twilio": Sent(b"CallSid=CA1&CallStatus=completed&From=%2B1555&To=", content_type=FORM),
    "plivo": Sent(b"CallUUID=u-1&CallStatus=completed&Event=Hangup&From=1555&To=", content_type=FORM),
}


def ordinary(platform: Platform) -> Sent:
    """A request as this platform sends them."""
    return BODIES.get(platform, Sent('{"event": "call_ended", "call": {"call_id": "é-1"}}'.encode()))
