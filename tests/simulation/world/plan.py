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
        return any("restart broker" in (what, more.get("do")) for _, what, more in self.faults)


FAULTS = (
    ("kill", 4), ("freeze", 3), ("cut", 5), ("leave", 3), ("add", 2), ("server dies", 3), ("restart broker", 1),
    ("alarm", 1), ("stall", 3),
)  # fmt: skip

STYLES = (
    ("plain", 5), ("used", 5), ("long", 5), ("hasty", 3), ("reversed", 1), ("commanded", 3), ("created late", 1),
    ("closed", 3), ("brief", 1), ("repeated", 2), ("keyed", 2), ("two", 2), ("asked", 2), ("once", 1), ("rings", 1),
)  # fmt: skip
"""Ways in which a call lives, and how many of them there are."""


MOMENTS = (
    "call.recipe", "call.recipe placed", "call.recipe resent orphan", "call.recipe returned", "call.started",
    "call.started placed", "call.started resent", "call.ended", "session.create placed", "mcp.session.created",
    "mcp.session.closed", "mcp.session.lost", "owner.check", "owner.check placed", "tools.call placed",
    "tools.call resent", "bind", "unbind", "ack call.recipe", "ack call.recipe orphan", "ack call.started",
    "ack call.started placed", "ack call.ended", "ack tools.call", "ack raw event", "deliver call.recipe",
    "deliver call.recipe orphan", "deliver call.started", "deliver call.started placed orphan",
    "deliver call.progress orphan", "deliver session.create orphan", "deliver owner.check", "deliver tools.call",
    "deliver tools.call again", "deliver call.ended", "deliver call.ended orphan", "deliver session.close",
    "worker.endings", "worker.presence",
)  # fmt: skip
"""Steps of the protocol at which something is done; see ``aims``."""

DEEDS = (
    "kill", "cut", "freeze", "stall", "slow", "leave", "come back", "add", "restart broker", "server dies", "start",
    "end", "close", "create", "tool", "progress",
)  # fmt: skip

MORE_STYLES = (*(name for name, _ in STYLES), "again", "swapped", "worked", "beside", "reopened", "keyed often")


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


def swarmed(seed: int, *, calls: int = 50, script: str = "") -> Plan:
    """The world of a seed in the swarm: some kinds of calls and faults only, and many of each, other ones in each."""
    chance = random.Random(seed)
    conditions = Conditions(
        workers=chance.choice([2, 2, 3, 3, 4]),
        room=chance.choice([500] * 4 + [12]),
        pace=chance.choice([0.0005, 0.002, 0.02]),
        late=chance.choice([0.0, 0.002, 0.01, 0.05]),
        failing=chance.choice([0.0, 0.0, 0.0, 0.03]),
        skews=(0.0,) if chance.random() < 0.6 else tuple(round(chance.uniform(-1.5, 1.5), 3) for _ in range(4)),
        unconfirmed=chance.choice([0.0, 0.0, 0.1]),
        drain=chance.choice(["hand_over", "hand_over", "hand_over", "wait"]),
    )
    styles = chance.sample(STYLES_OF.get(script, MORE_STYLES), chance.randrange(1, 5))
    lives = {f"c{number}": _life(chance, chance.choice(styles)) for number in range(calls)}
    faults: list[Step] = []
    if script:
        faults = [one for _ in range(chance.randrange(2, 6)) for one in SCRIPTS[script](chance)]
    elif chance.random() < 0.7:
        scripts = chance.sample(list(SCRIPTS), chance.randrange(1, 4))
        faults = [one for _ in range(chance.randrange(2, 6)) for one in SCRIPTS[chance.choice(scripts)](chance)]
    else:
        faults = _unscripted(chance)
    return Plan(seed, conditions, lives, tuple(sorted(faults, key=lambda one: one[0])))


def _unscripted(chance: random.Random) -> list[Step]:
    kinds = chance.sample([name for name, _ in FAULTS], chance.randrange(1, 4))
    faults: list[Step] = []
    for _ in range(chance.randrange(6)):
        first = _fault(chance, chance.choice(kinds))
        faults.append(first)
        when = first[0]
        while chance.random() < 0.5:
            when = round(when + chance.choice([0.05, 0.5, 2.0, 4.0]) * chance.uniform(0.3, 1.5), 4)
            _, what, more = _fault(chance, chance.choice(kinds))
            faults.append((min(when, SPAN), what, more | {"same": True}))
    moments = chance.sample(MOMENTS, chance.randrange(1, 4))
    deeds = chance.sample(DEEDS, chance.randrange(1, 4))
    faults += [_aim(chance, chance.choice(moments), chance.choice(deeds)) for _ in range(chance.randrange(2, 16))]
    return faults


def _aim(chance: random.Random, moment: str, deed: str) -> Step:
    details = {
        "moment": moment,
        "skip": chance.choice([0, 0, 0, 1, 2, 5, 20]),
        "do": deed,
        "delay": chance.choice([0.0, 0.0, 0.001, 0.02, 0.2, 1.0, 2.5]) * chance.uniform(0.2, 1.5),
        "before": chance.random() < 0.3,
        "sharp": chance.random() < 0.7,
        "whose": chance.choice(["its", "its", "its", "placer", "owner", "other"]),
        "only": chance.random() < 0.5,
    }
    _, _, more = _fault(chance, deed)
    return round(chance.uniform(0.0, SPAN * 0.9), 4), "aim", more | details


# Scripts: some things that go wrong one after the other, at steps of the protocol.


def _gone(chance: random.Random, when: float, *, may_return: bool) -> Step:
    """A worker is away for so long that it is taken for dead."""
    what = chance.choice(["freeze", "cut"] if may_return else ["kill", "freeze", "cut"])
    more = {"lasts": 12.0, "again": None, "how": chance.choice(["both", "server"]), "away": 6.0}
    return when, what, more | {"which": chance.randrange(64)}


def _comes_back(chance: random.Random) -> list[Step]:
    when = round(chance.uniform(1.0, SPAN - 15), 4)
    slow = round(chance.uniform(0.1, 2.5), 4)
    at = {"moment": chance.choice(["deliver call.recipe orphan"] * 3 + ["call.recipe resent orphan", "unbind"])}
    back = at | {"do": "come back", "skip": 0, "delay": max(0.0, slow - chance.uniform(-0.2, 1.2)), "before": False}
    held = at | {"do": "slow", "skip": 0, "delay": 0.0, "before": False, "lasts": slow}
    faults: list[Step] = [_gone(chance, when, may_return=True), (when, "aim", back)]
    return [*faults, (when, "aim", held)] if chance.random() < 0.7 else faults


def _placers_change(chance: random.Random) -> list[Step]:
    when = round(chance.uniform(1.0, SPAN - 15), 4)
    moments = (
        "deliver call.recipe orphan", "call.recipe resent orphan", "call.recipe placed", "unbind", "bind",
        "mcp.session.lost", "call.started placed", "deliver call.started placed orphan", "ack call.recipe orphan",
    )  # fmt: skip
    faults = [_gone(chance, when, may_return=False)]
    for _ in range(chance.randrange(1, 4)):
        _, _, more = _aim(chance, chance.choice(moments), chance.choice(["kill", "cut", "freeze", "leave"]))
        faults.append((when, "aim", more | {"skip": chance.choice([0, 0, 1, 3]), "whose": "its"}))
    return faults


def _meanwhile(chance: random.Random) -> list[Step]:
    when = round(chance.uniform(1.0, SPAN - 15), 4)
    moments = ("deliver call.recipe orphan", "mcp.session.lost", "call.recipe placed", "call.recipe resent orphan")
    faults = [_gone(chance, when, may_return=False)]
    for _ in range(chance.randrange(2, 8)):
        deed = chance.choice(["start", "end", "close", "create", "create beside", "tool", "progress"])
        _, _, more = _aim(chance, chance.choice(moments), deed)
        faults.append((when, "aim", more | {"skip": chance.choice([0, 1, 2, 4])}))
    if chance.random() < 0.5:
        later = when + chance.uniform(-2.0, 4.0)
        faults += [(later + 0.1 * step, "do", {"do": "create beside", "which": step}) for step in range(8)]
    return faults


def _away_twice(chance: random.Random) -> list[Step]:
    when = round(chance.uniform(1.0, SPAN - 15), 4)
    away = chance.choice([0.0, 0.5, 1.0, 1.5, 2.0])
    more = {"which": chance.randrange(64), "how": chance.choice(["both", "server"]), "away": away}
    again = round(when + away + chance.uniform(0.2, 3.0), 4)
    lasts = round(chance.uniform(1.3, 4.0), 4)
    return [(when, "cut", more), (again, "freeze", {"lasts": lasts, "which": 0, "same": True})]


def _killed_telling(chance: random.Random) -> list[Step]:
    moments = (
        "call.recipe", "mcp.session.created", "mcp.session.closed", "mcp.session.expired", "ack call.recipe",
        "ack call.ended", "session.close.reply",
    )  # fmt: skip
    faults = []
    for _ in range(chance.randrange(2, 5)):
        when, what, more = _aim(chance, chance.choice(moments), chance.choice(["kill", "kill", "cut"]))
        faults.append((when, what, more | {"sharp": True, "whose": "its", "delay": chance.choice([0.0, 0.0, 0.002])}))
    return faults


def _end_breaks(chance: random.Random) -> list[Step]:
    moments = (
        "call.ended", "ack raw event", "deliver raw event", "deliver call.ended", "ack call.ended", "worker.endings",
        "call.ended.reply", "mcp.session.closed",
    )  # fmt: skip
    faults = []
    for _ in range(chance.randrange(2, 5)):
        moment = chance.choice(moments)
        when, what, more = _aim(chance, moment, chance.choice(["kill", "cut", "leave", "freeze"]))
        more |= {"delay": chance.choice([0.0, 0.01, 0.1, 0.5]), "skip": chance.choice([0, 1, 3])}
        faults += [(when, what, more), (when, what, more | {"do": "start", "delay": chance.uniform(0.0, 3.0)})]
    return faults


def _tool_breaks(chance: random.Random) -> list[Step]:
    moments = (
        "tools.call placed", "deliver tools.call", "deliver tools.call placed", "ack tools.call", "tools.call resent",
        "ack tools.call placed", "tools.call.reply", "deliver tools.call again",
    )  # fmt: skip
    faults = []
    for _ in range(chance.randrange(2, 5)):
        when, what, more = _aim(chance, chance.choice(moments), chance.choice(["kill", "cut", "cut", "stall"]))
        faults.append((when, what, more | {"delay": chance.choice([0.0, 0.0, 0.01, 0.1]), "sharp": True}))
    return faults


def _early(chance: random.Random) -> list[Step]:
    when, what, more = _aim(chance, "bind", "slow")
    faults = [(when, what, more | {"whose": "its", "delay": 0.0, "lasts": chance.uniform(0.05, 0.4)})]
    for _ in range(chance.randrange(1, 4)):
        deed = chance.choice(["progress", "end", "start", "close", "tool", "create"])
        faults.append((when, what, more | {"do": deed, "delay": chance.uniform(0.0, 0.2)}))
    return faults


def _leaves(chance: random.Random) -> list[Step]:
    when = round(chance.uniform(1.0, SPAN - 10), 4)
    faults: list[Step] = [(when, "leave", {"which": chance.randrange(64), "placer": chance.random() < 0.5})]
    moments = ("call.recipe returned", "call.recipe placed", "ack call.recipe", "mcp.session.closed", "unbind", "bind")
    for _ in range(chance.randrange(1, 6)):
        deed = chance.choice(["progress", "end", "start", "tool", "create", "close", "kill", "cut", "slow", "leave"])
        _, _, more = _aim(chance, chance.choice(moments), deed)
        faults.append((when, "aim", more | {"skip": chance.choice([0, 1, 2]), "delay": chance.uniform(0.0, 0.3)}))
    return faults


SCRIPTS = {
    "comes back": _comes_back, "placers change": _placers_change, "meanwhile": _meanwhile, "away twice": _away_twice,
    "killed telling": _killed_telling, "end breaks": _end_breaks, "tool breaks": _tool_breaks, "early": _early,
    "leaves": _leaves,
}  # fmt: skip
_LONG = ("long", "worked", "reopened", "two", "beside")
STYLES_OF = {
    "comes back": _LONG, "placers change": _LONG, "meanwhile": _LONG, "away twice": _LONG, "leaves": _LONG,
    "killed telling": ("plain", "closed", "two", "brief", "hasty"),
    "end breaks": ("again", "hasty", "repeated", "plain"),
    "tool breaks": ("asked", "keyed often", "worked", "commanded"),
    "early": ("repeated", "beside", "commanded", "swapped"),
}  # fmt: skip
"""Calls that a script has something to break of."""


def _drawn(chance: random.Random, among: tuple[tuple[str, int], ...]) -> str:
    return chance.choices([name for name, _ in among], [weight for _, weight in among])[0]


def _fault(chance: random.Random, kind: str = "") -> Step:
    when = round(chance.uniform(0.5, SPAN), 4)
    what = kind or _drawn(chance, FAULTS)
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
        case "slow":
            more = {"lasts": round(chance.uniform(0.02, 1.0), 4), "both": chance.random() < 0.3}
        case "alarm":
            more = {"lasts": chance.choice([0.5, 3.0, 8.0])}
        case _:
            more = {}
    return when, what, which | more


def _life(chance: random.Random, style: str = "") -> tuple[Step, ...]:  # noqa: PLR0915 - one case after the other
    began = chance.uniform(0.0, SPAN * 0.8)
    lasts = chance.choice([0.05, 0.5, 3.0, 10.0, 20.0]) * chance.uniform(0.5, 1.5)
    style = style or _drawn(chance, STYLES)
    to = {"two": "2", "brief": "3", "once": "4", "rings": "5", "beside": "2"}.get(style, "1")
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
        case "again":
            steps += [(began + lasts + chance.uniform(0.0, 3.0), "start", {"to": to}) for _ in range(2)]
        case "swapped":
            end = (began - chance.uniform(0.3, 3.0), "end", {})
        case "worked":
            end = (began + max(lasts, 12.0), "end", {})
            steps += [(began + 12.0 * chance.random(), "tool", {"takes": chance.choice([0.01, 1.0])}) for _ in range(9)]
        case "beside":
            end = (began + max(lasts, 15.0), "end", {})
            for _ in range(5):
                more = {"service": chance.choice(["echo", "second", "brief"])}
                steps.append((began + 12.0 * chance.random(), "create", more))
        case "reopened":
            end = (began + max(lasts, 12.0), "end", {})
            steps += [(began + 8.0 * chance.random(), "close", {}), (began + 10.0 * chance.random(), "create", {})]
            steps += [(began + 10.0 * chance.random(), "start", {"to": to})]
        case "keyed often":
            end = (began + max(lasts, 12.0), "end", {})
            for key in ("k", "l"):
                at = began + 5.0 * chance.random()
                steps += [(at + 6.0 * chance.random() ** 2, "tool", {"key": key}) for _ in range(4)]
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
