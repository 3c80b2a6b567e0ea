"""What has to work where nothing breaks: requests before the first fault and after the last, and what is restored.

``checker`` checks what must never happen. A worker that refuses everything would pass it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import Any

from tests.simulation.checker import Lives
from tests.simulation.world.people import Asked
from tests.simulation.world.world import World

FULL = {"CAPACITY", "SERVICE_SESSION_LIMIT"}
"""Errors, and reasons of rejections, that say that there is no room."""

ENDS_LATE = 2.0
"""How long (s) an end is told at most, where nothing breaks, after the session has ended."""

ASK_EVERY = 4.0
"""How often (s) an open session is asked until it answers; a call that was cut off is asked for first."""

WAITS = 1.9
"""How long (s) a start waits at least before it is rejected because there is no room (``worker.admission_wait``)."""

PROBE = "probe"
"""What the tool calls of this module are called, which are no requests of the plan."""

MOST_DEATHS = 4
"""After how many deaths of its workers in a row a call is not restored."""


class Probe:
    """Asks every session that is open when the faults are over: each has to answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[str, list[Asked]] = defaultdict(list)
        self._last = -inf

    def unanswered(self) -> list[str]:
        """The open sessions that have not answered yet; they are asked."""
        silent = [
            session_id
            for session_id in self._world.alive()
            if not any(one.code == "ok" for one in self._asked[session_id])
        ]
        now = self._world.loop.time()
        if silent and now >= self._last + ASK_EVERY:
            self._last = now
            for session_id in silent:
                call = session_id.partition("#")[0]
                self._world.tell(session_id, "is asked whether it answers")
                body = {"session_id": session_id, "name": "note", "arguments": {}, "timeout": 5}
                self._asked[session_id].append(asked := self._world.people.ask("tools.call", call, body))
                asked.what = PROBE
        codes = {session_id: [one.code for one in self._asked[session_id]] for session_id in silent}
        return [f"{session_id} is open and does not answer: {told}" for session_id, told in codes.items()]


def check_undisturbed(world: World, lives: Lives) -> list[str]:
    """Before anything breaks, everybody gets what was asked for, and nothing is rejected while there is room."""
    held = world.plan.conditions
    until = world.faults.first_at
    has_room = held.room > len(world.plan.calls) * 2 * held.workers
    problems = []
    for asked in world.people.asked:
        if not asked.answers:
            if asked.hears and asked.until + 1.0 < until:
                problems.append(f"{asked.what} of {asked.call} was not answered, and nothing had broken")
        elif (answered := asked.answers[0][0]) + ENDS_LATE < until:
            if has_room and asked.code in FULL | {"DEADLINE_EXCEEDED"}:
                problems.append(f"{asked.what} of {asked.call} was answered {asked.code} where there was room")
            for session_id in _open_all_the_time(lives, asked.call, asked.at, answered + ENDS_LATE):
                if asked.what == "tools.call" and session_id == asked.call and asked.code != "ok":
                    problems.append(f"{session_id} is open, and answered {asked.code} to a tool call")
                if asked.what == "session.close":
                    problems.append(f"{session_id} is open, though it was closed and nothing had broken")
    for call, rejected in lives.rejected.items():
        for when, reason in rejected:
            if when >= until or reason not in FULL:
                continue
            if has_room:
                problems.append(f"a start of {call} was rejected ({reason}) where there was room")
            elif held.skews == (0.0,) and (waited := when - _asked_for(world, call)) < WAITS:
                problems.append(f"a start of {call} was rejected ({reason}) after {waited:.2f} s")
    return problems


def _asked_for(world: World, call: str) -> float:
    """When a call was first asked for, by an event or a request."""
    asked = (one.at for one in world.people.asked if one.call == call)
    return min([*world.people.opening.get(call, ()), *asked], default=-inf)


def _open_all_the_time(lives: Lives, call: str, since: float, until: float) -> Iterator[str]:
    """The sessions of a call with a life that was told as created ``since`` and had no end ``until`` then."""
    for session_id, several in lives.of_session.items():
        if session_id.partition("#")[0] == call and any(
            lives.created[life][0] < since and all(when > until for when, _ in lives.ends.get(life, ()))
            for life in several
        ):
            yield session_id


def check_kept(world: World, lives: Lives) -> list[str]:
    """A restored session has what it had before, and is not restored any more when four of its workers have died."""
    problems = []
    for session_id, several in lives.of_session.items():
        deaths = 0
        for life in several:
            told = lives.created[life][1]["data"]
            deaths = deaths if told["restored"] else 0
            if deaths >= MOST_DEATHS:
                problems.append(f"{session_id} was restored after {deaths} of its workers had died")
            if lives.reasons(life) == ["worker_gone"] and _was_killed(world, told["worker_id"]):
                deaths += 1
            if told["restored"]:
                recipes = _in_recipes(world, session_id, life)
                before = [one for one in recipes if one["created_at"] == told["created_at"]]  # the same session
                if before and not any(_has_all_of(told, one) for one in before):
                    problems.append(f"{session_id} was restored with less than it had: {told}, and not {before[-1]}")
    return problems


def _in_recipes(world: World, session_id: str, life: str) -> Iterator[dict[str, Any]]:
    """What the call's recipes say of other lives of a session."""
    for body in world.recipes.get(session_id.partition("#")[0], ()):
        for one in json.loads(body)["sessions"]:
            if one["session_id"] == session_id and one["life"] != life:
                yield one


def _has_all_of(told: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a session still has what it had; a start may have added to its metadata since."""
    same = all(told[name] == before[name] for name in ("service_name", "timeout"))
    return same and before["metadata"].items() <= told["metadata"].items()


def _was_killed(world: World, worker_id: str) -> bool:
    return any(one.worker_id == worker_id and one.killed_at is not None for one in world.workers)
