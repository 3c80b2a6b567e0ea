"""The calls that the bridge knows to be alive, so that it can find out what it has missed. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.base import Json
from schemas.calls import CALL_STATE, CallEvent, CallId, CallKind


@dataclass(frozen=True, slots=True)
class Missed:
    """Events that were missed: the last event of channels that ended, and the present state of others."""

    started: list[Json]
    changed: list[Json]
    ended: list[Json]

    def __len__(self) -> int:
        return len(self.started) + len(self.changed) + len(self.ended)


class KnownCalls:
    """Remembers the last event of each live call."""

    def __init__(self) -> None:
        self._known: dict[CallId, tuple[Json, object]] = {}
        self._unsure: set[CallId] = set()
        """Calls from before the gap without an event since."""
        self._ended_since: set[CallId] | None = None
        """Calls that ended since the gap; None if there is nothing to compare."""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, call: object) -> bool:
        return call in self._known

    def heard(self, event: CallEvent, payload: Json) -> bool:
        """Record an event. Return whether it is the first of its call."""
        call = event.call_id
        self._unsure.discard(call)
        known = self._known.get(call)
        match event.kind:
            case CallKind.ENDED:
                self._known.pop(call, None)
                if self._ended_since is not None:
                    self._ended_since.add(call)
            case CallKind.STARTED:
                self._known[call] = payload, _state(event)
                return known is None
            case CallKind.PROGRESS if known is not None:  # else it is a late word on a call that is over
                self._known[call] = payload, _state(event)
        return False

    def forget(self, call: CallId) -> None:
        """Forget a call whose end the PBX will not report."""
        self._unsure.discard(call)
        self._known.pop(call, None)

    def cut_off(self) -> None:
        """Note that the connection is lost: until ``missed`` is called, events may be missed."""
        self._unsure = set(self._known)
        self._ended_since = set()

    def missed(self, living: Mapping[CallId, tuple[CallEvent, Json]], *, starts: bool) -> Missed:
        """Return the missed events, derived from the live calls. ``starts`` says whether all of them are ours.

        Events since the reconnection have priority over the list, which may be older or newer.
        """
        ended_since = self._ended_since or set()
        started = [told for call, (_, told) in living.items() if call not in self._known and call not in ended_since]
        changed = [
            told
            for call, (event, told) in living.items()
            if call in self._unsure and _state(event) not in (None, self._known[call][1])
        ]
        ended = [self._known[call][0] for call in self._unsure if call not in living]
        self._unsure, self._ended_since = set(), None
        return Missed(started if starts else [], changed, ended)

    def cannot_compare(self) -> None:
        """Give up on the uncertain calls: the PBX cannot list which of them live."""
        for call in self._unsure:
            del self._known[call]
        self._unsure, self._ended_since = set(), None


def _state(event: CallEvent) -> object:
    return event.attributes.get(CALL_STATE)
