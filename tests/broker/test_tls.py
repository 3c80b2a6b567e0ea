"""``amqps`` is verified, by the certificate's issuer and by its host name, on a real TLS listener."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from consumer.broker.link import Link
from consumer.client import SessionClient
from infra.broker import find_server, private_broker
from infra.loopback import LOOPBACK, free_port
from schemas.errors import CannotConnect

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_server() is None, reason="no rabbitmq-server here: the broker comes from elsewhere"),
]


@dataclass(frozen=True)
class Listener:
    """A node's TLS port, and the CA that signed its certificate for ``localhost``."""

    port: int
    ca: Path
    other_ca: Path

    def url(self, host: str, ca: Path | None = None, **query: str) -> str:
        given = query | ({"cafile": str(ca)} if ca else {})
        words = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        return f"amqps://guest:guest@{host}:{self.port}/?{words}"


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    folder.chmod(0o755)
    ca, other = trustme.CA(), trustme.CA()
    issued = ca.issue_cert("localhost")
    made = Listener(port, folder / "ca.pem", folder / "other.pem")
    ca.cert_pem.write_to_path(made.ca)
    other.cert_pem.write_to_path(made.other_ca)
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o644)  # the node may run as another user; the key is worth nothing
    config = "\n".join(
        (
            f"listeners.ssl.default = {LOOPBACK}:{port}",
            f"ssl_options.cacertfile = {made.ca}",
            f"ssl_options.certfile = {folder / 'cert.pem'}",
            f"ssl_options.keyfile = {folder / 'key.pem'}",
            "ssl_options.verify = verify_none",
        )
    )
    with private_broker(config=config):
        await_listener(port)
        yield made


def await_listener(port: int) -> None:
    """The node answers on its other port first."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


async def fails(url: str) -> str:
    """Why the client does not connect; said at once, because it will not be otherwise in a minute."""
    client = SessionClient(url, connect_timeout=120)
    with pytest.raises(CannotConnect) as refused:
        async with client:
            pass
    assert not refused.value.retryable
    return str(refused.value)


async def test_a_certificate_of_a_known_ca_for_this_host_is_taken(listener: Listener):
    link = Link(listener.url("localhost", listener.ca), "test")
    await link.open()
    async with link.scratch() as channel:
        await channel.prefetch(1)
    await link.close()


async def test_an_unknown_ca_is_refused(listener: Listener):
    for ca in (None, listener.other_ca):
        told = await fails(listener.url("localhost", ca))
        assert "is not trusted" in told
        assert "cafile" in told
        assert "guest:guest" not in told


async def test_another_host_name_is_refused(listener: Listener):
    told = await fails(listener.url(LOOPBACK, listener.ca))
    assert LOOPBACK in told
    assert "certificate" in told


async def test_a_ca_file_that_is_not_there_is_named(listener: Listener, tmp_path: Path):
    missing = tmp_path / "nobody.pem"
    assert "nobody.pem" in await fails(listener.url("localhost", missing))


async def test_the_port_for_tls_is_named_to_who_speaks_none(listener: Listener):
    told = await fails(f"amqp://guest:guest@{LOOPBACK}:{listener.port}/")
    assert f"{LOOPBACK}:{listener.port} speaks TLS: write amqps://" in told
    assert "guest:guest" not in told


async def test_verification_ends_only_where_somebody_said_so(listener: Listener):
    link = Link(listener.url(LOOPBACK, no_verify_ssl="1"), "test")
    await link.open()
    await link.close()
