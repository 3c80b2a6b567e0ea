"""SignalWire's signatures: its vectors, and its SDK's own validator as the oracle."""

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.gateway.signatures import Signed, signalwire
from consumer.gateway.signatures.signalwire import SHA1_HEADERS, SHA256_HEADER
from tests.harness import ROOT

VECTORS = json.loads((ROOT / "tests/samples/gateway/signatures.json").read_text())
KEY = "PSKtest1234567890abcdef"
URL = "https://front.example.com/signalwire/events"
BODY = b'{"event_type": "calling.call.state"}'


def holds(keys: list[str], headers: dict[str, str], url: str, body: bytes) -> bool:
    return signalwire.holds(keys, Signed("POST", url, headers, body, now=0))


def sha1(key: str, message: bytes) -> bytes:
    return hmac.digest(key.encode(), message, "sha1")


def scheme_a(key: str, url: str, body: bytes, digest: str = "sha1") -> str:
    return hmac.new(key.encode(), url.encode() + body, digest).hexdigest()


def scheme_b(key: str, url: str, fields: list[tuple[str, str]] | None = None) -> str:
    text = url + "".join(name + value for name, value in sorted(fields or [], key=lambda field: field[0]))
    return base64.b64encode(sha1(key, text.encode())).decode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_is_judged_as_it_should_be(vector: dict) -> None:
    name = vector["header"].split(" / ")[0].lower()
    valid = vector["valid"] and "weak" not in vector["name"]
    assert holds([vector["key"]], {name: vector["signature"]}, vector["url"], vector["body"].encode()) is valid


def test_a_signature_of_the_url_alone_counts_for_an_empty_body_only() -> None:
    headers = {SHA1_HEADERS[0]: scheme_b(KEY, URL + "?CallSid=c-1")}
    assert holds([KEY], headers, URL + "?CallSid=c-1", b"")
    assert not holds([KEY], headers, URL + "?CallSid=c-1", b"CallSid=c-1")


def test_while_a_key_is_replaced_both_hold() -> None:
    for key in ("old-key", "new-key"):
        assert holds(["new-key", "old-key"], {SHA1_HEADERS[0]: scheme_a(key, URL, BODY)}, URL, BODY)
    assert not holds(["new-key"], {SHA1_HEADERS[0]: scheme_a("old-key", URL, BODY)}, URL, BODY)


def test_where_both_are_there_the_stronger_signature_counts() -> None:
    good, bad = scheme_a(KEY, URL, BODY, "sha256"), "0" * 64
    weak = scheme_a(KEY, URL, BODY)
    assert holds([KEY], {SHA256_HEADER: good, SHA1_HEADERS[0]: "wrong"}, URL, BODY)
    assert not holds([KEY], {SHA256_HEADER: bad, SHA1_HEADERS[0]: weak}, URL, BODY)


def test_credentials_in_the_url_are_not_signed() -> None:
    signed = scheme_a(KEY, URL, BODY)
    assert holds([KEY], {SHA1_HEADERS[0]: signed}, URL.replace("://", "://admin:pa@ss@"), BODY)


def is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
urls = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["front.example.com", "10.0.0.1", "[::1]"]),
    st.sampled_from(["", ":443", ":80", ":8443"]),
    st.sampled_from(["/signalwire/events", "/", "/a%20b"]),
    st.sampled_from(["", "?a=1", "?CallSid=c%2F1&x"]),
)
bodies = st.one_of(
    st.binary(max_size=60).filter(is_text),
    st.lists(st.tuples(words, words), max_size=5).map(lambda fields: urlencode(fields).encode()),
    st.just(BODY),
)


@st.composite
def signed(draw: st.DrawFn) -> tuple[str, str, str, bytes]:
    """A key, and a signature that fits it or nearly does."""
    key, url, body = draw(keys), draw(urls), draw(bodies)
    fields = draw(st.lists(st.tuples(words, words), min_size=1, max_size=4))
    how = draw(st.sampled_from(["a", "b", "b-hash", "wrong key", "wrong body", "wrong url", "junk"]))
    match how:
        case "a":
            return key, scheme_a(key, url, body), url, body
        case "b":
            return key, scheme_b(key, url, fields), url, urlencode(fields).encode()
        case "b-hash":
            url += ("&" if "?" in url else "?") + "bodySHA256=" + hashlib.sha256(body).hexdigest()
            return key, scheme_b(key, url), url, body
        case "wrong key":
            return key, scheme_a(key + "x", url, body), url, body
        case "wrong body":
            return key, scheme_b(key, url, fields), url, urlencode([*fields, ("x", "y")]).encode()
        case "wrong url":
            return key, scheme_a(key, url + "x", body), url, body
    return key, draw(st.text(max_size=50)), url, body


async def test_our_verdict_is_the_sdks_but_for_its_weak_one(sdk_verdict) -> None:
    @settings(max_examples=400, deadline=None, database=None)
    @given(signed())
    def check(case: tuple[str, str, str, bytes]) -> None:
        key, signature, url, body = case
        ours = holds([key], {SHA1_HEADERS[0]: signature}, url, body) if signature else False
        theirs = sdk_verdict(key, signature, url, body.decode())
        covers = "bodySHA256=" in url or not body
        weak = theirs and not ours and not covers and signature in {scheme_b(key, one) for one in variants(url)}
        assert ours == theirs or weak, case

    check()


def variants(url: str) -> list[str]:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    port = {"https": ":443", "http": ":80"}[scheme]
    return [url, f"{scheme}://{host.removesuffix(port)}{slash}{path}", f"{scheme}://{host}{port}{slash}{path}"]
