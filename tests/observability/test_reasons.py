"""Errors of libraries are told in words, whatever they are."""

import asyncio
import ssl
from errno import ECONNREFUSED, ECONNRESET
from socket import EAI_NONAME, gaierror

import pytest
from aiormq.exceptions import AMQPConnectionError, ChannelPreconditionFailed, ConnectionClosed

from consumer.observability.reasons import reason_of

REFUSED = "the connection was refused: nobody listens there"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer came in time"),
        (ConnectionResetError(), "the connection was closed"),
        (asyncio.IncompleteReadError(b"", 8), "0 bytes read on a total of 8 expected bytes"),
        (gaierror(EAI_NONAME, "Name or service not known"), "the host name cannot be resolved"),
        (AMQPConnectionError(EAI_NONAME, "Name or service not known"), "the host name cannot be resolved"),
        (ConnectionResetError(ECONNRESET, "Connection reset by peer"), "the connection was reset by the other side"),
        (ConnectionRefusedError(ECONNREFUSED, "Connection refused"), REFUSED),
        (AMQPConnectionError(ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), REFUSED),
        (OSError(f"Multiple exceptions: [Errno {ECONNREFUSED}] one, [Errno {ECONNREFUSED}] other"), REFUSED),
        (
            OSError(f"Multiple exceptions: [Errno {ECONNREFUSED}] one, [Errno 1] other"),
            f"Multiple exceptions: [Errno {ECONNREFUSED}] one, [Errno 1] other",
        ),
        (OSError(2, "No such file or directory"), "[Errno 2] No such file or directory"),
        (ChannelPreconditionFailed(406, "PRECONDITION_FAILED - it differs"), "PRECONDITION_FAILED - it differs"),
        (ConnectionClosed(320, "CONNECTION_FORCED"), "CONNECTION_FORCED"),
        (RuntimeError(), "it failed without a message (RuntimeError)"),
    ],
)
def test_an_error_is_told_in_words(error: Exception, said: str):
    assert reason_of(error) == said


def test_a_broker_without_tls_is_told_in_words():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="broker")
    incoming.write(b"AMQP\x00\x00\x09\x01")
    with pytest.raises(ssl.SSLError) as caught:
        client.do_handshake()
    assert reason_of(caught.value) == "the other side does not speak TLS; is this the port for amqps?"
