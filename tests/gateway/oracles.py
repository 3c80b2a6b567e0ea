"""The platforms' own SDKs, in an environment of their own: installed once, never a dependency of ours."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from infra.environments import environment
from tests.harness import ROOT

FOLDER = ROOT / ".oracles"
PACKAGES = [
    "twilio>=9.13,<10",
    "telnyx>=4.189,<5",
    "pynacl>=1.5,<2",
    "vonage-jwt>=1.1.5,<2",
    "plivo>=4.63,<5",
    "livekit-api>=1.2.2,<2",
    "retell-sdk>=6.2,<7",
    "elevenlabs>=2.78,<3",
    "openai>=3.57,<4",
    "standardwebhooks>=1.1,<2",
]

Verdict = Callable[[str, str, dict[str, Any]], bool]
"""What the SDK of a platform says of a request that one key is said to have signed."""

_JUDGES = r"""
import json, sys
from urllib.parse import parse_qs, urlsplit

def twilio(key, r):
    from twilio.request_validator import RequestValidator, get_signature_algorithm
    class Form(dict):
        def getlist(self, name):
            return self[name]
    params = Form(parse_qs(r["body"], keep_blank_values=True)) if r["form"] else r["body"] or {}
    algorithm = get_signature_algorithm(r["headers"].get("x-twilio-webhooks-signature-settings"))
    return RequestValidator(key).validate(r["url"], params, r["headers"].get("x-twilio-signature", ""), algorithm)

def telnyx(key, r):
    from telnyx.lib.webhook_verification import verify_webhook_signature
    verify_webhook_signature(r["body"], r["headers"], key)
    return True

def vonage(key, r):
    from vonage_jwt import verify_signature
    return verify_signature(r["headers"]["authorization"].split()[-1], key)

def plivo(key, r):
    from plivo.utils.signature_v3 import validate_v3_signature
    params = {n: v if len(v) > 1 else v[0] for n, v in parse_qs(r["body"], keep_blank_values=True).items()}
    headers = r["headers"]
    return validate_v3_signature(
        r["method"], r["url"], headers["x-plivo-signature-v3-nonce"], key, headers["x-plivo-signature-v3"], params
    )

def livekit(key, r):
    from livekit.api import TokenVerifier, WebhookReceiver
    name, secret = key.split(":")
    WebhookReceiver(TokenVerifier(name, secret)).receive(r["body"], r["headers"]["authorization"])
    return True

def retell(key, r):
    from retell.lib.webhook_auth import verify
    return bool(verify(r["body"], key, r["headers"]["x-retell-signature"]))

def elevenlabs(key, r):
    from elevenlabs.client import ElevenLabs
    ElevenLabs(api_key="none").webhooks.construct_event(r["body"], r["headers"]["elevenlabs-signature"], key)
    return True

def openai(key, r):
    from openai import OpenAI
    OpenAI(api_key="none").webhooks.verify_signature(r["body"], r["headers"], secret=key)
    return True

def standard(key, r):
    from standardwebhooks.webhooks import Webhook
    Webhook(key).verify(r["body"], r["headers"], json_parse=False)
    return True

for line in sys.stdin:
    name, key, request = json.loads(line)
    try:
        said = bool(globals()[name](key, request))
    except ImportError:
        raise
    except Exception:
        said = False
    print(json.dumps(said), flush=True)
"""

SDKS = {
    "twilio": ("twilio",),
    "telnyx": ("telnyx",),
    "vonage": ("vonage",),
    "plivo": ("plivo",),
    "livekit": ("livekit",),
    "retell": ("retell",),
    "elevenlabs": ("elevenlabs",),
    "openai": ("openai", "standard"),
}
"""Which SDKs judge the signatures of a platform."""


@contextmanager
def judges() -> Iterator[Verdict]:
    """The SDKs' own verdicts; the test is left out where PyPI does not give them."""
    try:
        python = str(environment(FOLDER, PACKAGES))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        pytest.skip(f"the platforms' SDKs could not be installed from PyPI: {error}")
    with subprocess.Popen(
        [python, "-W", "ignore", "-c", _JUDGES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def verdict(name: str, key: str, request: dict[str, Any]) -> bool:
            stdin.write(json.dumps([name, key, request]) + "\n")
            stdin.flush()
            said: bool = json.loads(stdout.readline())
            return said

        try:
            yield verdict
        finally:
            stdin.close()
            process.wait(10)
