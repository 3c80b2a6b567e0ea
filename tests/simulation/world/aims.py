"""Faults at a moment of the protocol: when RabbitMQ gets a certain frame, or delivers a certain message.

A fault at a moment that is drawn meets the millisecond between two steps of the protocol once in thousands of calls.
These wait for the step, so that a few worlds are enough to try what comes between it and the next one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consumer.broker.message import CALL_HEADER
from schemas import headers
from tests.simulation.broker.session import ServerChannel
from tests.simulation.broker.stored import Published
from tests.simulation.broker.wire import properties_of

if TYPE_CHECKING:
    from tests.simulation.world.faults import Faults
    from tests.simulation.world.world import SimulatedWorker, World

DEEDS_OF_PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "start": ("start", {"to": "1"}), "progress": ("progress", {"to": "1"}), "end": ("end", {}), "close": ("close", {}),
    "create": ("create", {}), "create beside": ("create", {"service": "second"}), "tool": ("tool", {}),
}  # fmt: skip
"""Steps of calls that are done at a moment, besides faults."""

_MARKS = (
    (headers.PLACEMENT, "placed"), (headers.RESENT, "resent"), (headers.RETURNED, "returned"),
    (headers.REFUSED, "refused"),
)  # fmt: skip


def _word(properties: Any) -> str:
    """A message in words: its type, and how it came here."""
    given = properties.headers or {}
    mark = next((f" {word}" for name, word in _MARKS if name in given), "")
    orphan = " orphan" if "x-death" in given or headers.ORPHAN_OF in given else ""
    return f"{properties.message_type or 'raw event'}{mark}{orphan}"


@dataclass
class Aim:
    """A fault that waits for its moment; it lets the moment pass ``skip`` times."""

    moment: str
    skip: int
    more: dict[str, Any]


class Aims:
    """The faults that wait for their moments."""

    def __init__(self, world: "World", faults: "Faults") -> None:
        self._world = world
        self._faults = faults
        self._waiting: list[Aim] = []

    def add(self, more: dict[str, Any]) -> None:
        """Wait for a moment."""
        self._waiting.append(Aim(more["moment"], more["skip"], more))
        self._world.node.aims = self

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()
        self._world.node.aims = None

    # What the node tells.

    def frame(self, channel: ServerChannel, method: str, args: tuple[Any, ...]) -> bool:
        """Look at a frame before it is handled; returns whether it is lost with its connection."""
        match method:
            case "basic_publish":
                _, key, wire, _, _ = args
                properties = properties_of(wire)
                return self._met(_word(properties), channel, (properties.headers or {}).get(CALL_HEADER, key))
            case "basic_ack":
                message = channel.message_of(args[0])
                return message is not None and self._met(f"ack {_word(message.properties)}", channel, _call_of(message))
            case "queue_bind" | "queue_unbind" if args[1].endswith(".sessions"):
                return self._met(method.removeprefix("queue_"), channel, args[2])
        return False

    def delivery(self, channel: ServerChannel, message: Published, redelivered: bool) -> None:
        """Look at a message that goes to a consumer."""
        word = f"deliver {_word(message.properties)}"
        self._met(word, channel, _call_of(message))
        if redelivered:
            self._met(f"{word} again", channel, _call_of(message))

    # What comes of it.

    def _met(self, moment: str, channel: ServerChannel, call: str) -> bool:
        lost = False
        for aim in [one for one in self._waiting if one.moment == moment]:
            if aim.skip:
                aim.skip -= 1
                continue
            self._waiting.remove(aim)
            victim = self._victim(aim.more.get("whose", "its"), channel, call)
            if victim is not None:
                lost = self._do(aim, victim, channel, call) or lost
        if not self._waiting:
            self._world.node.aims = None
        return lost

    def _victim(self, whose: str, channel: ServerChannel, call: str) -> "SimulatedWorker | None":
        workers = [one for one in self._world.workers if one.running and one.worker is not None]
        its = next((one for one in workers if one.process is channel.client.simulated.owner), None)
        if whose == "placer":
            return next((one for one in workers if one.places), its)
        if whose == "other":
            return next((one for one in workers if one is not its and not one.process.frozen), its)
        if whose == "owner":
            return next(iter(self._world.alive().get(call, ())), its)
        return its

    def _do(self, aim: Aim, victim: "SimulatedWorker", channel: ServerChannel, call: str) -> bool:
        """Do it, now or a moment later; returns whether the frame is lost with the connection."""
        more = aim.more
        now = self._world.loop.time()
        self._world.tell(
            victim.process.name, f"at {aim.moment!r} of {call}: {more['do']} ({more['delay']:.3f} s later)"
        )
        if more["do"] == "cut" and more.get("only"):
            more = {**more, "connection": channel.client.simulated}
        if more["do"] in ("kill", "cut") and more["before"]:
            self._act(more, victim, call)
            return channel.client.simulated.owner is victim.process and channel.client.simulated.loses_the_rest()
        self._world.loop.at(now + more["delay"], None, self._act, more, victim, call)
        return False

    def _act(self, more: dict[str, Any], victim: "SimulatedWorker", call: str) -> None:
        if self._faults.finished:
            return
        what = more["do"]
        if what in DEEDS_OF_PEOPLE:
            if call in self._world.plan.calls:
                self._world.do(call, (0.0, *DEEDS_OF_PEOPLE[what]))
        else:
            self._faults.do((0.0, what, {**more, "victim": victim}))


def _call_of(message: Published) -> str:
    return str(message.headers.get(CALL_HEADER, message.routing_key))
