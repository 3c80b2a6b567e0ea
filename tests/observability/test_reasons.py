"""Errors of libraries are told in words, whatever they are."""

import asyncio

import pytest
from aiormq.exceptions import ChannelPreconditionFailed, ConnectionClosed

from consumer.observability.reasons import reason_of


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError(), "no answer came in time"),
        (ConnectionResetError(), "the connection was closed"),
        (asyncio.IncompleteReadError(b"", 8), "0 bytes read on a total of 8 expected bytes"),
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (ChannelPreconditionFailed(406, "PRECONDITION_FAILED - it differs"), "PRECONDITION_FAILED - it differs"),
        (ConnectionClosed(320, "CONNECTION_FORCED"), "CONNECTION_FORCED"),
        (RuntimeError(), "it failed without a word (RuntimeError)"),
    ],
)
def test_an_error_is_told_in_words(error: Exception, said: str):
    assert reason_of(error) == said
