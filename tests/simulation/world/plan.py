"""What happens in one world, as data: drawn from a seed, and made smaller by leaving parts of it out."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

SPAN = 40.0
"""How long (s) things happen; after that everything has to settle."""

Step = tuple[float, str, dict[str, Any]]
"""When (s after the beginning), what, and its details."""


@dataclass(frozen=True)
class Conditions:
    """What holds all the time in one world."""

    workers: int = 3
    room: int = 500
    pace: float = 0.002
    late: float = 0.002
    failing: float = 0.0
    skews: tuple[float, ...] = (0.0,)
    unconfirmed: float = 0.0
    drain: str = "hand_over"


@dataclass(frozen=True)
class Plan:
    """One world; ``calls`` maps each call to its steps, in order."""

    seed: int
    conditions: Conditions
    calls: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    faults: tuple[Step, ...] = ()

    def without_calls(self, names: set[str]) -> "Plan":
        return replace(self, calls={name: steps for name, steps in self.calls.items() if name not in names})

    def without_faults(self, numbers: set[int]) -> "Plan":
        return replace(self, faults=tuple(one for at, one in enumerate(self.faults) if at not in numbers))

    @property
    def broker_restarts(self) -> bool:
        return any(what == "restart broker" for _, what, _ in self.faults)


FAULTS = (
    ("kill", 4), ("freeze", 3), ("cut", 5), ("leave", 3), ("add", 2), ("server dies", 3), ("restart broker", 1),
    ("alarm", 1), ("stall", 3),
)  # fmt: skip

STYLES = (
    ("plain", 5), ("used", 5), ("long", 5), ("hasty", 3), ("reversed", 1), ("commanded", 3), ("created late", 1),
    ("closed", 3), ("brief", 1), ("repeated", 2), ("keyed", 2), ("two", 2), ("asked", 2), ("once", 1), ("rings", 1),
)  # fmt: skip
"""Ways in which a call lives, and how many of them there are."""


def planned(seed: int, *, calls: int = 50) -> Plan:
    """The world of a seed."""
    chance = random.Random(seed)
    calm = chance.random() < 0.08
    conditions = Conditions(
        workers=chance.choice([1, 2, 2, 3, 3, 3, 4]),
        room=chance.choice([500] * 5 + [12, 20]),
        pace=chance.choice([0.0005, 0.002, 0.002, 0.02]),
        late=0.0 if calm else chance.choice([0.0, 0.002, 0.01]),
        failing=0.0 if calm else chance.choice([0.0, 0.0, 0.03]),
        skews=(0.0,) if chance.random() < 0.6 else tuple(round(chance.uniform(-1.5, 1.5), 3) for _ in range(4)),
        unconfirmed=0.0 if calm else chance.choice([0.0, 0.05]),
        drain=chance.choice(["hand_over", "hand_over", "hand_over", "wait"]),
    )
    lives = {f"c{number}": _life(chance) for number in range(calls)}
    count = 0 if calm else chance.randrange(1, 9)
    faults = sorted((_fault(chance) for _ in range(count)), key=lambda one: one[0])
    return Plan(seed, conditions, lives, tuple(faults))


def _drawn(chance: random.Random, among: tuple[tuple[str, int], ...]) -> str:
    return chance.choices([name for name, _ in among], [weight for _, weight in among])[0]


def _fault(chance: random.Random) -> Step:
    when = round(chance.uniform(0.5, SPAN), 4)
    what = _drawn(chance, FAULTS)
    which = {"which": chance.randrange(64)}
    match what:
        case "kill":
            more: dict[str, Any] = {"again": chance.choice([None, 0.5, 2.0, 10.0]), "placer": chance.random() < 0.3}
        case "freeze":
            more = {"lasts": chance.choice([0.3, 2.0, 4.0, 8.0, 12.0]), "placer": chance.random() < 0.3}
        case "stall":
            more = {"lasts": round(chance.uniform(0.01, 0.4), 4), "placer": chance.random() < 0.5}
        case "cut":
            more = {
                "how": chance.choice(["both", "both", "client", "server"]),
                "away": chance.choice([0.0, 0.0, 0.5, 1.5, 3.0, 6.0]),
                "placer": chance.random() < 0.3,
            }
        case "restart broker":
            more = {"down": chance.choice([0.2, 2.0, 6.0]), "late": chance.random() < 0.3}
        case "alarm":
            more = {"lasts": chance.choice([0.5, 3.0, 8.0])}
        case _:
            more = {}
    return when, what, which | more


def _life(chance: random.Random) -> tuple[Step, ...]:
    began = chance.uniform(0.0, SPAN * 0.8)
    lasts = chance.choice([0.05, 0.5, 3.0, 10.0, 20.0]) * chance.uniform(0.5, 1.5)
    style = _drawn(chance, STYLES)
    to = {"two": "2", "brief": "3", "once": "4", "rings": "5"}.get(style, "1")
    start: Step = (began, "start", {"to": to})
    end: Step = (began + lasts, "end", {})
    steps: list[Step] = [start]
    match style:
        case "hasty":
            end = (began + chance.uniform(0.0, 0.05), "end", {})
        case "reversed":
            end = (began - chance.uniform(0.0, 0.2), "end", {})
        case "long":
            end = (1e9, "end", {})
        case "commanded":
            steps = [(began, "create", {}), (began + lasts * 0.5, "tool", {})]
            if chance.random() < 0.7:
                steps.append((began + lasts * 0.8, "close", {}))
        case "created late":
            steps += [(began + lasts + chance.uniform(0.0, 2.0), "create", {}), (1e8, "close", {})]
        case "closed":
            steps.append((began + lasts * chance.random(), "close", {}))
        case "repeated":
            steps += [(began + lasts * chance.random(), "start", {"to": to}) for _ in range(2)]
            steps.append((began + lasts + chance.uniform(0.0, 1.0), "end", {}))
        case "used" | "two":
            for _ in range(4):
                steps.append((began + lasts * chance.random(), "tool", {"takes": chance.choice([0.01, 0.5])}))
        case "keyed":
            at = began + lasts * chance.random()
            steps += [(at, "tool", {"key": "k"}), (at + chance.uniform(0.0, 1.0), "tool", {"key": "k"})]
        case "asked":
            steps = [(began, "tool", {"service": "echo"}), (began + 0.1, "tool", {"service": "echo"})]
        case "rings":
            steps = [(began, "start", {"to": to, "state": "ringing"}), (began + lasts * 0.5, "answered", {"to": to})]
        case _:
            pass
    if chance.random() < 0.2:
        until = min(end[0], began + lasts)
        steps.append((began + (until - began) * chance.random(), "progress", {"to": to}))
    steps.append(end)
    return tuple(sorted(((round(when, 4), what, more) for when, what, more in steps), key=lambda one: one[0]))
