"""``/events`` and ``/events/<platform>``: every platform's webhooks, signed as it signs them."""

import asyncio
import json
import time

import pytest

from consumer.broker.message import Delivery
from schemas.calls import Platform
from tests.gateway.conftest import NOBODY, Serve
from tests.gateway.signing import FORM, KEYS, SIGNERS, Sent
from tests.gateway.test_webhooks import published, sample, url_of
from tests.harness import Cluster

__all__ = ["published"]

SAMPLES: dict[Platform, str] = {
    "twilio": "twilio/in_progress.json",
    "telnyx": "telnyx/initiated_incoming.json",
    "vonage": "vonage/started_inbound.json",
    "plivo": "plivo/ring.json",
    "livekit": "livekit/joined_inbound.json",
    "vapi": "vapi/in_progress_inbound.json",
    "retell": "retell/call_started_inbound.json",
    "jambonz": "jambonz/status_trying_inbound.json",
    "daily": "daily/dialin_connected.json",
    "elevenlabs": "elevenlabs/post_call_inbound.json",
    "openai": "openai/realtime_incoming.json",
}
JSON_ANSWERS = {"daily", "elevenlabs", "vapi"}
WEBHOOKS = {platform: {"keys": ["of-before" * 5, KEYS[platform][0]]} for platform in SIGNERS}


def sent_by(platform: Platform, url: str, name: str | None = None, number: int = 0) -> Sent:
    body, content_type = sample(name or SAMPLES[platform])
    unsigned = Sent(body, url=url, content_type=content_type)
    signed = SIGNERS[platform](KEYS[platform][number], unsigned, time.time())
    return Sent(signed.body, signed.url, "POST", signed.headers | {"content-type": content_type}, content_type)


async def post(http, sent: Sent):
    path = "/" + sent.url.split("/", 3)[3]
    return await http.post(path, content=sent.body, headers=sent.headers, auth=NOBODY)


async def test_each_platform_is_believed_by_its_signature_and_passed_on_as_it_came(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]"
) -> None:
    http = await serve(webhooks=WEBHOOKS)
    for platform in SIGNERS:
        for path in (f"/events/{platform}", "/events"):
            sent = sent_by(platform, url_of(http, path))
            answer = await post(http, sent)
            assert answer.status_code == (200 if platform in JSON_ANSWERS else 204), (platform, path, answer.text)
            delivery = await asyncio.wait_for(published.get(), 45)
            assert delivery.message.body == sent.body
            assert delivery.message.content_type == sent.content_type


async def test_a_wrong_key_another_address_and_no_signature_are_refused(mcp: Cluster, serve: Serve) -> None:
    http = await serve(webhooks=WEBHOOKS)
    for platform in SIGNERS:
        url = url_of(http, f"/events/{platform}")
        wrong = await post(http, sent_by(platform, url, number=1))
        assert wrong.status_code == (401 if "authorization" in sent_by(platform, url).headers else 403), platform
        bare = Sent(*sample(SAMPLES[platform])[:1], url=url, headers={"content-type": "application/json"})
        assert (await post(http, bare)).status_code == 401, platform


async def test_keys_alone_let_nobody_else_in(mcp: Cluster, serve: Serve) -> None:
    http = await serve(webhooks=WEBHOOKS, auth_user=None, auth_password=None, auth_token=None)
    event = {"call_id": "c", "kind": "started"}
    for path in ("/events/twilio", "/events"):
        assert (await http.post(path, json=event)).status_code == 403


async def test_a_platforms_address_takes_no_other_platforms_events(mcp: Cluster, serve: Serve) -> None:
    http = await serve()
    body, content_type = sample("telnyx/hangup.json")
    answer = await http.post("/events/vonage", content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert "an event of telnyx" in answer.json()["error"]
    unknown = await http.post("/events/pigeon", content=body)
    assert unknown.status_code == 404
    assert "known: asterisk, daily" in unknown.json()["error"]


async def test_what_nobody_knows_is_kept_for_who_looks_at_the_dead_letters(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]"
) -> None:
    http = await serve()
    assert (await http.post("/events/vonage", json={"new": "thing"})).status_code == 204
    assert (await asyncio.wait_for(published.get(), 45)).message.body == b'{"new":"thing"}'


async def test_a_batch_is_published_event_by_event(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]"
) -> None:
    http = await serve()
    stream = json.loads(sample("twilio/event_stream_completed.json")[0])
    assert (await http.post("/events/twilio", json=[stream, stream])).status_code == 204
    for _ in range(2):
        assert json.loads((await asyncio.wait_for(published.get(), 45)).message.body) == stream
    for odd in ([], [1], [stream] * 1001):
        assert (await http.post("/events", json=odd)).status_code == 400


async def test_a_call_opens_and_closes_by_signed_webhooks_alone(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve(webhooks=WEBHOOKS)
    url = url_of(http, "/events/retell")
    assert (await post(http, sent_by("retell", url))).status_code == 204
    await mcp.event("created", call_id="call_3a5b320d6741b1b9348d98f0d6e")
    assert (await post(http, sent_by("retell", url, "retell/call_ended_user_hangup.json"))).status_code == 204
    await mcp.event("closed", call_id="call_3a5b320d6741b1b9348d98f0d6e", reason="call_ended")


async def test_an_answer_request_by_get_is_taken_from_its_query(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]"
) -> None:
    http = await serve()
    query = sample("vonage/answer_request.json")[0].decode()
    assert (await http.get(f"/events/vonage?{query}")).status_code == 204
    assert (await asyncio.wait_for(published.get(), 45)).message.content_type == FORM


async def test_a_query_is_believed_only_where_the_signature_covers_it(mcp: Cluster, serve: Serve) -> None:
    await mcp.start()
    http = await serve(webhooks=WEBHOOKS, auth_user=None, auth_password=None, auth_token=None)
    for platform in SIGNERS:
        url = url_of(http, f"/events/{platform}?CallSid=q-1&CallStatus=initiated&CallUUID=q-2")
        signed = SIGNERS[platform](KEYS[platform][0], Sent(b"", url=url, method="GET"), time.time())
        answer = await http.get(url, headers=signed.headers, auth=NOBODY)
        assert (answer.status_code == 403) is (platform not in ("twilio", "plivo")), (platform, answer.text)


@pytest.mark.parametrize(
    ("platform", "asking", "telling"),
    [
        ("vonage", "vonage/answer_request.json", "vonage/started_inbound.json"),
        ("plivo", "plivo/inbound_answer_url.json", "plivo/ring.json"),
        ("twilio", "twilio/inbound_request.json", "twilio/ringing.json"),
        ("jambonz", "jambonz/call_hook_inbound.json", "jambonz/status_trying_inbound.json"),
        ("vapi", "vapi/assistant_request.json", "vapi/queued_outbound.json"),
        ("elevenlabs", "elevenlabs/initiation_request.json", "elevenlabs/post_call_inbound.json"),
    ],
)
async def test_who_asks_what_to_do_with_a_call_gets_the_document(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]", tmp_path, platform: str, asking: str, telling: str
) -> None:
    document = tmp_path / "answer.json"
    document.write_text('{"do": "this"}')
    http = await serve(webhooks={platform: {"document": str(document)}})
    for name, expected in ((asking, b'{"do": "this"}'), (telling, None)):
        body, content_type = sample(name)
        answer = await http.post(f"/events/{platform}", content=body, headers={"content-type": content_type})
        assert answer.status_code in (200, 204)
        assert (answer.content == b'{"do": "this"}') is (expected is not None), name
        assert (await asyncio.wait_for(published.get(), 45)).message.body == body


async def test_elevenlabs_is_told_that_there_is_nothing_to_add(
    mcp: Cluster, serve: Serve, published: "asyncio.Queue[Delivery]"
) -> None:
    http = await serve()
    body, _ = sample("elevenlabs/initiation_request.json")
    answer = await http.post("/events/elevenlabs", content=body, headers={"content-type": "application/json"})
    assert answer.json() == {"type": "conversation_initiation_client_data"}
