"""Who may do what: call tokens, static tokens, the operator; and names that are none of the gateway's."""

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError
from structlog.testing import capture_logs

from consumer.client import InvalidKey, SessionClient, SyncSessionClient
from consumer.gateway.gateway import Gateway
from consumer.settings import Settings
from consumer.settings.gateway_settings import GatewaySettings
from consumer.tokens import KeyUnusable, TokenKeys, TokenRefused
from tests.gateway.conftest import NOBODY, TOKEN_KEY, Serve, call
from tests.gateway.test_cases import SERVICES
from tests.harness import Cluster, config

OTHER_KEY = "fedcba9876543210fedcba9876543210"
TWO = {"todo": SERVICES["todo"], "todo2": SERVICES["todo2"]}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def pair() -> tuple[str, str]:
    """An Ed25519 key as PEM: private, public."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return private, public


# Call tokens.


@pytest.mark.parametrize("keys", [[TOKEN_KEY], [pair()[0]]], ids=["secret", "ed25519"])
def test_a_token_says_its_call_its_services_and_its_scopes(keys: list[str]) -> None:
    minter = TokenKeys(keys, "mcp")
    said = minter.verify(minter.mint("call#1", ["todo"], scopes=["mcp"], lifetime=60))
    assert said.call_id == "call%231"
    assert said.services == ("todo",)
    assert said.scopes == ("mcp",)
    assert said.expires_at == pytest.approx(time.time() + 60, abs=3)


def test_a_token_holds_with_every_key_that_is_there_and_with_no_other() -> None:
    old, new = TokenKeys([OTHER_KEY], "mcp"), TokenKeys([TOKEN_KEY, OTHER_KEY], "mcp")
    assert new.verify(old.mint("c")).call_id == "c"
    with pytest.raises(TokenRefused, match="not signed"):
        TokenKeys([TOKEN_KEY], "mcp").verify(old.mint("c"))


def test_the_public_half_of_a_key_verifies_and_does_not_mint() -> None:
    private, public = pair()
    assert TokenKeys([public], "mcp").verify(TokenKeys([private], "mcp").mint("c")).call_id == "c"
    with pytest.raises(KeyUnusable, match="there is no key to sign with; make one"):
        TokenKeys([], "mcp").mint("c-1")
    with pytest.raises(KeyUnusable, match="no key signs"):
        TokenKeys([public], "mcp").mint("c")


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    _, public = pair()
    claims = {"iss": "mcp-sessions", "aud": "mcp", "iat": 0, "exp": 2**40, "jti": "x", "call": "c"}
    with pytest.raises(jwt.InvalidKeyError):
        jwt.encode(claims, public, algorithm="HS256")
    for forged in (jwt.encode(claims, "", algorithm="none"), jwt.encode(claims, TOKEN_KEY * 2, algorithm="HS512")):
        with pytest.raises(TokenRefused):
            TokenKeys([TOKEN_KEY * 2], "mcp").verify(forged)


@pytest.mark.parametrize("keys", [TokenKeys([TOKEN_KEY], "another"), TokenKeys([OTHER_KEY], "mcp")])
def test_a_token_of_elsewhere_does_not_hold(keys: TokenKeys) -> None:
    with pytest.raises(TokenRefused):
        TokenKeys([TOKEN_KEY], "mcp").verify(keys.mint("c"))


async def test_a_call_token_reaches_its_call_and_its_services_and_nothing_else(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=TWO))
    http = await serve(token_keys=[TOKEN_KEY])
    minted = await http.post("/calls/call-a/token", json={"services": ["todo"], "lifetime": 60})
    assert minted.status_code == 201
    token = minted.json()["token"]
    await call(http, "todo", "add_todo", "call-b", arguments={"text": "of b"})
    http.auth = NOBODY
    http.headers |= bearer(token)
    assert (await call(http, "todo", "add_todo", "call-a", arguments={"text": "of a"})).status_code == 200
    assert list((await http.get("/sessions")).json()) == ["call-a"]
    assert list((await http.get("/services")).json()) == ["todo"]
    for refused in (
        await call(http, "todo", "list_todos", "call-b"),
        await call(http, "todo2", "list_todos", "call-a"),
        await http.get("/services/todo2/tools"),
        await http.delete("/sessions/call-b"),
        await http.post("/calls/call-a/token"),
        await http.post("/signalwire/events", json={"call_id": "call-a", "kind": "ended"}),
        await http.post("/signalwire/swaig/todo", json={"function": "list_todos", "call_id": "call-b"}),
    ):
        assert refused.status_code == 403, refused.url
    assert (await http.delete("/sessions/call-a")).status_code == 200


async def minted(how: str, mcp: Cluster, http: httpx2.AsyncClient, call_id: str, service: str) -> str:
    """A token of a call and a service, made in one of the ways that there are."""
    match how:
        case "route":
            answer = await http.post(f"/calls/{call_id}/token", json={"services": [service]})
            return str(answer.json()["token"])
        case "command":
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from consumer.cli import main; main()"),
                *("calls", "token", call_id, "--service", service),
                env=os.environ
                | {
                    "MCP_SESSIONS_GATEWAY_TOKEN_KEYS": TOKEN_KEY,
                    "MCP_SESSIONS_PREFIX": mcp.prefix,
                    "AMQP_URL": mcp.url,
                },
                stdout=asyncio.subprocess.PIPE,
            )
            told, _ = await process.communicate()
            return told.decode().strip()
        case "client":
            return SessionClient(mcp.url, prefix=mcp.prefix, token_keys=[TOKEN_KEY]).mint_token(call_id, [service])
        case _:
            return SyncSessionClient(mcp.url, prefix=mcp.prefix, token_keys=[TOKEN_KEY]).mint_token(call_id, [service])


@pytest.mark.parametrize("how", ["route", "command", "client", "synchronous client"])
async def test_a_token_reaches_its_call_whoever_has_minted_it(mcp: Cluster, serve: Serve, how: str) -> None:
    await mcp.start(config(services=TWO))
    http = await serve(token_keys=[TOKEN_KEY])
    token = await minted(how, mcp, http, "call-a", "todo")
    http.auth = NOBODY
    http.headers |= bearer(token)
    assert (await call(http, "todo", "list_todos", "call-a")).status_code == 200
    assert (await call(http, "todo", "list_todos", "call-b")).status_code == 403
    assert (await call(http, "todo2", "list_todos", "call-a")).status_code == 403


@pytest.mark.parametrize("kind", [SessionClient, SyncSessionClient])
def test_a_client_without_a_key_that_signs_mints_nothing(kind: type[SessionClient] | type[SyncSessionClient]) -> None:
    with pytest.raises(InvalidKey, match="no key to sign with"):
        kind().mint_token("c")
    with pytest.raises(InvalidKey, match="no key signs"):
        kind(token_keys=[pair()[1]]).mint_token("c")
    with pytest.raises(InvalidKey, match="cannot be read"):
        kind(token_keys=["-----BEGIN PUBLIC KEY-----"])


OPEN = {"/health", "/livez", "/readyz", "/metrics"}
"""Answered without credentials; metrics to this machine only."""


def guarded_routes() -> Iterator[tuple[str, str]]:
    """Every method and path of a gateway that wants credentials."""
    named = {"{service}": "todo", "{platform}": "twilio", "{call}": "c", "{session_id}": "c"}
    for route in Gateway(Settings()).routes:
        path = "/".join(named.get(part, part) for part in route.path.split("/"))
        if path not in OPEN:
            yield from ((method, path) for method in sorted((route.methods or set()) - {"HEAD"}))


async def test_tokens_that_are_over_withdrawn_or_made_up_are_refused_at_every_route(mcp: Cluster, serve: Serve) -> None:
    http = await serve(token_keys=[TOKEN_KEY], auth_user=None, auth_password=None)
    over = jwt.encode(
        jwt.decode(TokenKeys([TOKEN_KEY], mcp.prefix).mint("c"), options={"verify_signature": False}) | {"exp": 1},
        TOKEN_KEY,
        algorithm="HS256",
    )
    withdrawn = TokenKeys([OTHER_KEY], mcp.prefix).mint("c")
    for token in (over, withdrawn, "a.b.c", "x", TOKEN_KEY):
        for method, path in guarded_routes():
            answer = await http.request(
                method,
                path,
                headers=bearer(token),
                params={"CallSid": "c"} if method == "GET" else None,
                json={"call_id": "c", "kind": "ended"} if method == "POST" else None,
            )
            assert answer.status_code == 401, (method, path)
            assert token not in answer.text


# Static tokens.


def static(token: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "crm",
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
        "scopes": ["gateway"],
        "calls": "any",
        **more,
    }


async def test_a_static_token_has_its_scopes_and_its_services(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services=TWO))
    http = await serve(
        tokens=[static("of-crm", services=["todo"]), static("of-pbx", name="pbx", scopes=["events"], calls=None)]
    )
    http.auth = NOBODY
    assert (await http.get("/services/todo/tools", headers=bearer("of-crm"))).status_code == 200
    assert (await http.get("/services/todo2/tools", headers=bearer("of-crm"))).status_code == 403
    assert (await http.get("/services/todo/tools", auth=("crm", "of-crm"))).status_code == 200
    assert (await http.get("/services/todo/tools", auth=("pbx", "of-crm"))).status_code == 401
    event = {"call_id": "c", "kind": "started"}
    assert (await http.post("/signalwire/events", json=event, headers=bearer("of-pbx"))).status_code == 204
    assert (await http.post("/signalwire/events", json=event, headers=bearer("of-crm"))).status_code == 403
    assert (await http.get("/services", headers=bearer("of-pbx"))).status_code == 403


def test_a_token_that_reaches_every_call_has_to_say_so() -> None:
    with pytest.raises(ValidationError, match='set calls = "any"'):
        GatewaySettings(tokens=[static("x", calls=None)])


async def test_why_a_request_is_not_authenticated_is_in_the_log_once_a_minute(mcp: Cluster, serve: Serve) -> None:
    http = await serve(trusted_proxies=["127.0.0.1"], token_keys=[TOKEN_KEY])
    wrong = TokenKeys([OTHER_KEY], mcp.prefix).mint("c")
    cases: list[tuple[dict[str, str], Any, str]] = [
        ({}, NOBODY, "no credentials"),
        ({}, ("admin", "wr0ng"), "wrong user or password"),
        (bearer("wr0ng"), NOBODY, "wrong token"),
        (bearer(wrong), NOBODY, "the token was not signed by a key of this gateway"),
        ({"authorization": "Digest wr0ng"}, NOBODY, "neither Basic nor Bearer credentials"),
    ]
    for headers, auth, reason in cases:
        from_outside = headers | {"x-forwarded-for": "198.51.100.7"}
        with capture_logs() as logs:
            for _ in range(3):
                assert (await http.get("/services", headers=from_outside, auth=auth)).status_code == 401
        [told] = [line for line in logs if line["event"] == "http.not_authenticated"]
        assert told["log_level"] == "warning"
        assert (told["reason"], told["address"], told["path"]) == (reason, "198.51.100.7", "/services")
        assert "wr0ng" not in str(logs)
        assert wrong not in str(logs)


# Without credentials.


def test_without_credentials_only_loopback_is_listened_on() -> None:
    assert GatewaySettings(host="127.0.0.1").listens_on == "127.0.0.1"
    for host in ("0.0.0.0", "::", "10.0.0.1", "voice.example.com"):
        with pytest.raises(ValidationError, match="there are no credentials"):
            GatewaySettings(host=host)


@pytest.mark.parametrize(
    ("given", "listens_on"),
    [
        ({"auth_password": "changeme"}, "127.0.0.1"),
        ({"auth_token": "optional-bearer-token"}, "127.0.0.1"),
        ({"host": "::1", "auth_token": "optional-bearer-token"}, "::1"),
        ({"auth_token": "changeme"}, "0.0.0.0"),
        ({"signing_keys": ["a-key-of-ours", "PSKtest1234567890abcdef"]}, "127.0.0.1"),
        ({"signing_keys": ["a-key-of-ours"]}, "0.0.0.0"),
        ({}, "0.0.0.0"),
    ],
)
def test_with_a_published_secret_it_listens_on_loopback_as_signalwires_gateway_does(
    given: dict[str, str], listens_on: str
) -> None:
    gateway = {"host": "0.0.0.0", "auth_user": "admin", "auth_password": "a-password-of-ours"} | given
    assert Settings(gateway=gateway).gateway.listens_on == listens_on


async def test_without_credentials_pages_of_a_browser_get_nothing(mcp: Cluster, serve: Serve) -> None:
    http = await serve(auth_user=None, auth_password=None, auth_token=None)
    assert (await http.get("/services", headers={"host": "evil.example"})).status_code == 421
    assert (await http.get("/services", headers={"origin": "https://evil.example"})).status_code == 403
    assert (await http.get("/health", headers={"host": "10.1.2.3"})).status_code == 200
    ours = {"origin": f"http://localhost:{http.base_url.port}"}
    assert (await http.get("/livez", headers=ours)).status_code == 200


async def test_a_public_url_names_the_host(mcp: Cluster, serve: Serve) -> None:
    http = await serve(public_url="https://voice.example.com")
    assert (await http.get("/nothing", headers={"host": "voice.example.com"})).status_code == 404
    assert (await http.get("/nothing", headers={"host": "other.example.com"})).status_code == 421


async def test_metrics_are_for_this_machine_or_for_who_may_watch(mcp: Cluster, serve: Serve) -> None:
    http = await serve(trusted_proxies=["127.0.0.1"])
    assert (await http.get("/metrics", auth=NOBODY)).status_code == 200
    from_outside = {"x-forwarded-for": "198.51.100.7"}
    assert (await http.get("/metrics", headers=from_outside, auth=NOBODY)).status_code == 401
    assert (await http.get("/metrics", headers=from_outside)).status_code == 200


async def test_metrics_asked_for_by_the_public_name_need_credentials(mcp: Cluster, serve: Serve) -> None:
    http = await serve(public_url="https://voice.example.com")
    passed_on = {"host": "voice.example.com"}  # by a proxy on this machine that says nothing of itself
    assert (await http.get("/metrics", headers=passed_on, auth=NOBODY)).status_code == 401
    assert (await http.get("/metrics", headers=passed_on)).status_code == 200
    for name in ("localhost:9", "127.0.0.1", "[::1]:9"):
        assert (await http.get("/metrics", headers={"host": name}, auth=NOBODY)).status_code == 200, name


WRITES = "import sys; print('the secret of line 7', file=sys.stderr); sys.exit(3)"


async def test_what_a_server_wrote_is_for_operators_alone(mcp: Cluster, serve: Serve) -> None:
    await mcp.start(config(services={"broken": {"command": [sys.executable, "-c", WRITES]}}))
    http = await serve(token_keys=[TOKEN_KEY])
    told = await call(http, "broken", "x", "call-a")
    assert (told.status_code, told.json()["code"]) == (424, "START_FAILED")
    assert "line 7" in told.json()["error"]
    assert "line 7" in told.json()["details"]["stderr"]
    http.headers |= bearer(TokenKeys([TOKEN_KEY], mcp.prefix).mint("call-a"))
    http.auth = NOBODY
    told = await call(http, "broken", "x", "call-a")
    assert (told.status_code, told.json()["code"]) == (424, "START_FAILED")
    assert told.json()["details"] == {"exit_code": 3, "signal": None}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    over_mcp = await http.post("/calls/call-a/broken/mcp", json=asked)
    assert over_mcp.json()["error"]["data"]["code"] == "START_FAILED"
    for answer in (told, over_mcp):
        assert "line 7" not in answer.text
        assert sys.executable not in answer.text


async def test_each_route_has_a_rate_of_its_own(mcp: Cluster, serve: Serve) -> None:
    http = await serve(rate_limits={"default": "2 per minute"})
    assert [(await http.get("/health")).status_code for _ in range(3)] == [200, 200, 429]
    # Other routes, and all ids of one route together.
    assert [(await http.get("/services/%23/tools")).status_code for _ in range(2)] == [400, 400]
    assert [(await http.delete(f"/sessions/%23{number}")).status_code for number in range(3)] == [400, 400, 429]


async def test_rates_are_counted_by_the_address_that_asks(mcp: Cluster, serve: Serve) -> None:
    http = await serve(rate_limits={"session_delete": "2 per minute"}, trusted_proxies=["127.0.0.1"])

    async def delete(address: str) -> httpx2.Response:
        return await http.delete("/sessions/%23b", headers={"x-forwarded-for": address})

    assert [(await delete("198.51.100.7")).status_code for _ in range(3)] == [400, 400, 429]
    assert int((await delete("198.51.100.7")).headers["retry-after"]) > 0
    assert (await delete("198.51.100.8")).status_code == 400
