"""The requests that a server has not answered yet. Matches each response with its request."""

from typing import Final

from mcp.shared.dispatcher import coerce_request_id
from mcp_types import METHOD_NOT_FOUND, JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, RequestId

from consumer.processes.jsonrpc import Answer, failure, quoted

FIRST_ID: Final = 1 << 30
"""The ids of the fast path come after this one. The dispatcher counts from 1, and a server may keep ids in 32 bits."""


class OpenRequests:
    """Tracks sent requests, and finds the request of each answer."""

    def __init__(self) -> None:
        self._open: set[RequestId] = set()
        self._newest = 0
        self._newest_of_short_way = FIRST_ID

    @property
    def next_of_short_way(self) -> int:
        """The id of the next request on the fast path."""
        return self._newest_of_short_way + 1

    def is_of_short_way(self, request_id: RequestId) -> bool:
        """Return whether a request with this id was sent on the fast path."""
        return isinstance(request_id, int) and FIRST_ID < request_id <= self._newest_of_short_way

    def sent(self, message: JSONRPCMessage) -> None:
        """Note a message that is sent."""
        match message:
            case JSONRPCRequest(id=request_id, method=method):
                if method == "initialize":
                    self._open.clear()  # the question about the era, whose answer nobody waits for any more
                self.opened(request_id)
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": int() | str() as given_up}):
                self.given_up(given_up)
            case _:
                pass

    def opened(self, request_id: RequestId) -> None:
        """Note a request that is sent."""
        self._open.add(request_id)
        if isinstance(request_id, int):
            if request_id > FIRST_ID:
                self._newest_of_short_way = max(self._newest_of_short_way, request_id)
            else:
                self._newest = max(self._newest, request_id)

    def given_up(self, request_id: RequestId) -> None:
        """Note that no caller waits for a request any more."""
        self._open.discard(request_id)

    def claimed(self, answer: Answer) -> Answer | None:
        """Return the answer with the id of its request; ``None`` if no request matches.

        An answer without a usable id, or with one that was never used, is matched with the only open request. Its
        caller gets an error and never a result, which may belong to another request. An error "unknown method" without
        an id is the answer to a notification: servers answer these too, and one that can read the method can read an
        id.
        """
        request_id = coerce_request_id(answer.id) if answer.id is not None else None
        if request_id in self._open:
            self._open.discard(request_id)
            return answer
        if isinstance(request_id, int) and self._was_sent(request_id):
            return answer  # too late: its caller has gone
        if request_id is None and isinstance(answer, JSONRPCError) and answer.error.code == METHOD_NOT_FOUND:
            return None
        if len(self._open) != 1:
            return None
        only = self._open.pop()
        if isinstance(answer, JSONRPCError):
            return answer.model_copy(update={"id": only})
        return failure(only, f"the server answered a request that was not sent, {quoted(answer.id)}")

    def _was_sent(self, request_id: int) -> bool:
        return 0 < request_id <= self._newest or self.is_of_short_way(request_id)
