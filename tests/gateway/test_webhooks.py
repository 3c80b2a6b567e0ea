"""Webhooks through the gateway: what a platform says has its effect, and 204 means that RabbitMQ has it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from consumer.broker.declare import ensure
from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.topology import Names, cluster_topology
from consumer.gateway.signatures.signalwire import SHA1_HEADERS, SHA256_HEADER
from tests.gateway.conftest import NOBODY, Serve
from tests.gateway.test_signatures import KEY, scheme_a, scheme_b
from tests.harness import ROOT, Cluster

SAMPLES = ROOT / "tests/samples/call-events"
MANIFEST = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
HOOKS = [case for case in MANIFEST if case["source"] in {"cxml", "relay", "swaig", "swml_status"}]
FORM = "application/x-www-form-urlencoded"


def sample(name: str) -> tuple[bytes, str]:
    """A body as it is sent, and its content type."""
    form = SAMPLES / name.replace(".json", ".form.txt")
    if form.exists():
        return form.read_bytes().strip(), FORM
    return (SAMPLES / name).read_bytes(), "application/json"


def signed(url: str, body: bytes, content_type: str, key: str = KEY) -> dict[str, str]:
    """The headers of a webhook that SignalWire signs."""
    headers = {"content-type": content_type}
    if content_type == FORM:
        fields = httpx2.QueryParams(body.decode()).multi_items()
        return headers | {SHA1_HEADERS[0]: scheme_b(key, url, fields)}
    return headers | {SHA1_HEADERS[0]: scheme_a(key, url, body), SHA256_HEADER: scheme_a(key, url, body, "sha256")}


def url_of(http: httpx2.AsyncClient, path: str = "/signalwire/events") -> str:
    return f"http://127.0.0.1:{http.base_url.port}{path}"


async def send(http: httpx2.AsyncClient, name: str) -> httpx2.Response:
    body, content_type = sample(name)
    headers = signed(url_of(http), body, content_type)
    return await http.post("/signalwire/events", content=body, headers=headers, auth=NOBODY)


@pytest.fixture
async def published(mcp: Cluster) -> AsyncIterator["asyncio.Queue[Delivery]"]:
    """What is published to the exchange of call events; there is no worker to take it."""
    names = Names(mcp.prefix)
    link = Link(mcp.url, "listener")
    await link.open()
    try:
        await ensure(link, cluster_topology(names))
        heard: asyncio.Queue[Delivery] = asyncio.Queue()
        await (await link.channel()).consume(names.calls, heard.put_nowait, no_ack=True)
        yield heard
    finally:
        await link.close()


async def test_every_webhook_is_passed_on_as_it_came(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]"
) -> None:
    """Its effect is then that of the same body from RabbitMQ, which the acceptance tests show for each."""
    http = await serve(signing_keys=[KEY])
    for case in HOOKS:
        body, content_type = sample(case["file"])
        assert (await send(http, case["file"])).status_code == 204, case["file"]
        delivery = await asyncio.wait_for(published.get(), 45)
        assert delivery.message.body == body, case["file"]
        assert delivery.message.content_type == content_type


async def test_a_call_opens_and_closes_by_webhooks_alone(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve(signing_keys=[KEY])
    call_id = next(case["call_id"] for case in MANIFEST if case["file"] == "relay/receive_created_phone.json")
    assert (await send(http, "relay/receive_created_phone.json")).status_code == 204
    await mcp.event("created", call_id=call_id)
    assert (await send(http, "relay/state_ended_hangup.json")).status_code == 204
    await mcp.event("closed", call_id=call_id, reason="call_ended")


async def test_a_callback_by_get_says_it_in_its_query(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve(signing_keys=[KEY])
    query = "CallSid=get-1&CallStatus=initiated&From=%2B15550100&To=%2B15550101&Direction=inbound"
    url = url_of(http, f"/signalwire/events?{query}")
    answer = await http.get(url, headers={SHA1_HEADERS[1]: scheme_b(KEY, url)}, auth=NOBODY)
    assert answer.status_code == 204
    await mcp.event("created", call_id="get-1")


async def test_a_changed_body_url_or_key_is_refused_without_a_word(mcp: Cluster, serve: Serve) -> None:
    http = await serve(signing_keys=[KEY])
    body, content_type = sample("cxml/initiated.json")
    url = url_of(http)
    good = signed(url, body, content_type)
    for path, content, headers in (
        ("/signalwire/events", body + b"&x=1", good),
        ("/signalwire/events?x=1", body, good),
        ("/signalwire/events", body, signed(url, body, content_type, key="another")),
        ("/signalwire/swaig", b'{"function": "add_todo", "call_id": "c"}', good),
    ):
        answer = await http.post(path, content=content, headers=headers)
        assert answer.status_code == 403
        assert answer.content == b""


async def test_signing_keys_alone_let_nobody_else_in(mcp: Cluster, serve: Serve) -> None:
    http = await serve(signing_keys=[KEY], auth_user=None, auth_password=None, auth_token=None)
    answer = await http.post("/signalwire/events", json={"call_id": "c", "kind": "started"})
    assert answer.status_code == 403


async def test_why_a_webhook_is_refused_is_in_the_log_alone_and_once_a_minute(mcp: Cluster, serve: Serve) -> None:
    http = await serve(signing_keys=[KEY])
    body, content_type = sample("cxml/initiated.json")
    headers = signed("https://voice.example.com/signalwire/events", body, content_type)
    url = "/signalwire/events?tenant=acme-secret"
    with capture_logs() as logs:
        for _ in range(3):
            answer = await http.post(url, content=body, headers=headers, auth=NOBODY)
            assert (answer.status_code, answer.content) == (403, b"")
    [told] = [line for line in logs if line["event"] == "webhook.refused"]
    assert told["log_level"] == "warning"
    assert told["reason"] == "the signature is wrong"
    assert told["platforms"] == ["signalwire"]
    assert told["url"] == f"{url_of(http)}?..."
    assert "gateway.public_url" in told["hint"]
    assert "acme-secret" not in str(logs)
    assert KEY not in str(logs)


async def test_a_webhook_without_signature_where_nothing_else_lets_in_is_said_to_have_none(
    mcp: Cluster, serve: Serve
) -> None:
    http = await serve(signing_keys=[KEY], auth_user=None, auth_password=None, auth_token=None)
    with capture_logs() as logs:
        assert (await http.post("/signalwire/events", json={"call_id": "c", "kind": "started"})).status_code == 403
    assert [line["reason"] for line in logs if line["event"] == "webhook.refused"] == ["there is no signature"]


async def test_behind_a_trusted_proxy_the_url_is_the_forwarded_one(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    body, content_type = sample("cxml/initiated.json")
    url = "https://voice.example.com/signalwire/events"
    headers = signed(url, body, content_type) | {"x-forwarded-proto": "https", "x-forwarded-host": "voice.example.com"}
    trusting = await serve(signing_keys=[KEY], trusted_proxies=["127.0.0.0/8"])
    assert (await trusting.post("/signalwire/events", content=body, headers=headers, auth=NOBODY)).status_code == 204
    public = await serve(signing_keys=[KEY], public_url="https://voice.example.com", allowed_hosts=["127.0.0.1"])
    assert (await public.post("/signalwire/events", content=body, headers=headers, auth=NOBODY)).status_code == 204
    strict = await serve(signing_keys=[KEY])
    assert (await strict.post("/signalwire/events", content=body, headers=headers, auth=NOBODY)).status_code == 403


async def test_agents_give_basic_credentials_in_their_urls(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve()
    event = {"call_id": "basic-1", "kind": "started"}
    assert (await http.post("/signalwire/events", json=event)).status_code == 204
    assert (await http.post("/signalwire/events", json=event, auth=("admin", "wrong"))).status_code == 401
    await mcp.event("created", call_id="basic-1")


async def test_a_document_fetch_is_answered_from_a_file(mcp: Cluster, serve: Serve, tmp_path: Path) -> None:
    await mcp.start()
    document = tmp_path / "answer.json"
    document.write_text('{"version": "1.0.0", "sections": {"main": ["answer"]}}')
    http = await serve(document=str(document))
    body, _ = sample("swml_status/inbound_fetch_phone.json")
    headers = {"content-type": "application/json"}
    fetched = await http.post("/signalwire/events", content=body, headers=headers)
    assert fetched.status_code == 200
    assert fetched.json()["sections"] == {"main": ["answer"]}
    told = await http.post("/signalwire/events", content=sample("swml_status/created.json")[0], headers=headers)
    assert told.status_code == 204
    await mcp.event("created", call_id=json.loads(body)["call"]["call_id"])


async def test_an_empty_request_says_nothing(mcp: Cluster, serve: Serve) -> None:
    http = await serve()
    assert (await http.post("/signalwire/events")).status_code == 400


async def test_where_no_worker_has_ever_been_the_event_is_not_taken(mcp: Cluster, serve: Serve) -> None:
    http = await serve()
    began = time.monotonic()
    answer = await http.post("/signalwire/events", json={"call_id": "c", "kind": "started"})
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert time.monotonic() - began < 4.5
