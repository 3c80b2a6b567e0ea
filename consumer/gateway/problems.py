"""Requests that are refused before a worker is asked."""

from collections.abc import Mapping
from types import MappingProxyType

from consumer.gateway.statuses import RETRY_AFTER, http_error

_NONE: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """A request that is answered with ``status`` and a sentence. A ``bare`` one is answered without a body."""

    def __init__(
        self, status: int, sentence: str, *, headers: Mapping[str, str] = _NONE, bare: bool = False, code: str = ""
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers)
        self.bare = bare
        self.code = code or http_error(status, "").code
        if status in (429, 503):
            self.headers.setdefault("Retry-After", str(RETRY_AFTER))
