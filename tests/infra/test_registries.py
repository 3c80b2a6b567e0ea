"""A package registry that cannot be reached, or is not trusted, costs the tests of foreign servers and one sentence."""

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from infra.loopback import LOOPBACK, free_port
from tests.realservers.install import Unreachable, _pip


@pytest.fixture
def untrusted() -> Iterator[str]:
    """A registry with a certificate of nobody's."""
    server = ThreadingHTTPServer((LOOPBACK, 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(LOOPBACK).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who does not trust it hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://{LOOPBACK}:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def install_from(registry: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", registry)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(Unreachable) as told:
        _pip("--target", str(folder), "mcp-server-time==1")
    return str(told.value)


def test_a_registry_that_is_not_trusted(untrusted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = install_from(untrusted, tmp_path, monkeypatch)
    assert told == "pip does not trust the certificate of its registry"


def test_a_registry_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = install_from(f"http://{LOOPBACK}:{free_port()}/simple", tmp_path, monkeypatch)
    assert told == "pip cannot reach its registry"
