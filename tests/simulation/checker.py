"""What has to be true of every simulated world: the guarantees of the README and of the concepts.

Time enters twice: while things happen, what was told must be in order and nothing may be done twice; and when the
faults are over, everything must be as it should be within a bound.
"""

import itertools
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from consumer.worker.exit_codes import WorkerExit
from schemas.ids import SessionId
from tests.simulation.broker.node import DEAD_LETTER_AGAIN
from tests.simulation.world.loop import BEGINNING, EPOCH
from tests.simulation.world.people import EVENTS, REPLIES, Asked
from tests.simulation.world.world import SimulatedWorker, World

FINAL = {"process_exit", "idle", "requested", "crash_loop"}
"""Reasons after which a call may have no session, though nobody has ended it."""

UNTRIED = {"CAPACITY", "DEADLINE_EXCEEDED", "INVALID_MESSAGE", "SESSION_DIED", "SESSION_NOT_FOUND", "TOOL_NOT_FOUND"}
"""Errors that promise that nothing was executed."""

LATE_START = 4.0
"""A start that the broker has so long (s) after the end may find no tombstone any more."""

INSTANT = 1.0
"""How long (s) before it is disturbed a worker may tell of an end that is then told once more, as ``lost``."""

AT_ONCE = 0.5
"""How long (s) after ``created`` the end of a session is told that has ended while its worker was cut off."""

HELD_BACK = DEAD_LETTER_AGAIN - 40.0
"""How long (s) an end waits at least whose recipe RabbitMQ holds back. Clocks differ by less, and a session may end
while its recipe is held back."""


def word(event: dict[str, Any]) -> str:
    return str(event["type"]).rpartition(".")[2]


class Lives:
    """What was told of sessions, life by life."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._heard = 0
        self.created: dict[str, tuple[float, dict[str, Any]]] = {}
        self.ends: dict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
        self.of_session: dict[str, list[str]] = defaultdict(list)
        self.restored: dict[str, set[bool]] = defaultdict(set)
        """What the events of a life say of it, repeated ones too: whether its session was restored."""
        self.rejected: dict[str, list[tuple[float, str]]] = defaultdict(list)
        """Of each call, when a start of it was rejected, and why."""
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._seen: set[tuple[str, str, str]] = set()

    def heard(self) -> "Lives":
        """These lives, with what was told since."""
        events = self._world.people.events
        for when, event in events[self._heard :]:
            if not event["type"].startswith("mcp.session."):
                continue
            what = word(event)
            if "restored" in event["data"]:
                self.restored[str(event["id"]).removesuffix(".created")].add(event["data"]["restored"])
            known = (event["source"], event["id"], what)
            if known in self._seen:
                self.counts["told again"] += 1
                continue
            self._seen.add(known)
            self.counts[what] += 1
            self._take(when, event, what)
        self._heard = len(events)
        return self

    def _take(self, when: float, event: dict[str, Any], what: str) -> None:
        if what == "created":
            life = str(event["id"]).removesuffix(".created")
            if life in self.ends:
                self.problems.append(f"{event['subject']}: created after its end ({self.reasons(life)})")
            self.created[life] = when, event
            self.of_session[event["subject"]].append(life)
        elif what == "rejected":
            self.rejected[str(event["data"]["call_id"])].append((when, str(event["data"]["reason"])))
        elif what in ("closed", "expired", "died", "lost"):
            life = str(event["id"])
            self.ends[life].append((when, event))
            if life not in self.created:
                self.problems.append(f"{event['subject']}: {what} ({event['data']['reason']}) without a created")

    def reasons(self, life: str) -> list[str]:
        return [str(event["data"]["reason"]) for _, event in self.ends.get(life, ())]

    def began_at(self, life: str) -> float:
        """When a life began at the latest (s on the world's clock), as its worker's clock says.

        A restored session keeps its ``created_at``. Whoever tells ``created`` from a recipe gives it the recipe's time.
        """
        told, created = self.created[life]
        return min(told, _made_at(created))

    def last_ends(self, session_id: str) -> list[tuple[float, dict[str, Any]]]:
        """The ends of a session, each with the time at which it was told: none if its last life has not ended.

        They are those of the last life, and of the lives that were still open when that one had ended: the last life
        may be an older one that was told late.
        """
        ends = [self.ends.get(life) for life in self.of_session.get(session_id, ())]
        if not ends or not (last := ends[-1]):
            return []
        return [last[-1], *(told[-1] for told in ends[:-1] if told and told[-1][0] > last[-1][0])]


def _disturbed(world: World, worker_id: str, when: float, since: float | None = None) -> bool:
    """Whether a worker was killed, stood still or was cut off at that time, or ``since``, or was about to be."""
    since = when if since is None else since
    for one in world.workers:
        if one.worker_id == worker_id:
            return any(began - INSTANT <= when and since <= until + 8.0 for began, until, _ in one.disturbed)
    return False


def _may_be_told_twice(world: World, life: str, told: list[tuple[float, dict[str, Any]]]) -> bool:
    """Whether an end may be told twice: by its worker, and then by a placer on its behalf.

    A connection of the worker had the recipe when the worker published the event, and RabbitMQ did not get the
    acknowledgement.
    """
    by_placer = [event["data"]["reason"] in ("worker_gone", "crash_loop") for _, event in told]
    return by_placer == [False, True] and world.recipe_was_held[life]


def _told_late(lives: Lives, life: str) -> bool:
    """Whether ``created`` of a life was told when it had ended, and a start may have opened the next one.

    By a worker that was cut off when it opened the session: it tells ``created`` when it is back, and the end when it
    has the recipe, whether the session has ended meanwhile or ends because the call is another's. Or by a placer, when
    the worker is dead.
    """
    began, ends = lives.created[life][0], lives.ends.get(life, [])
    told_with_it = any(min(when, _made_at(event)) - began <= AT_ONCE for when, event in ends)
    return told_with_it or not {"superseded", "worker_gone"}.isdisjoint(lives.reasons(life))


def _was_held_back(lives: Lives, life: str) -> bool:
    """Whether the end of a life was told when RabbitMQ gave its recipe out that it had held back for minutes.

    By the owner, which has kept the event of a session that had ended, or else as ``worker_gone``: the session has gone
    on with a new life.
    """
    ends = lives.ends.get(life, [])
    kept = any(when - _made_at(event) >= HELD_BACK for when, event in ends)
    return kept or lives.reasons(life) == ["worker_gone"]


def _made_at(event: dict[str, Any]) -> float:
    """When an event was made (s on the world's clock), as its worker's clock says."""
    return _on_our_clock(event["time"])


def _on_our_clock(told: str) -> float:
    """A time that a worker tells, in s on the world's clock."""
    return datetime.fromisoformat(told).timestamp() - EPOCH + BEGINNING


def check_lives(world: World, lives: Lives) -> list[str]:
    """Each life ends once, and the lives of one session come one after the other."""
    problems = list(lives.problems)
    for life, (_, created) in lives.created.items():
        reasons = lives.reasons(life)
        where = f"{created['subject']} on {created['data']['worker_id']}"
        if not reasons:
            problems.append(f"{where}: no terminal event")
        elif len(reasons) > 1:
            if _may_be_told_twice(world, life, lives.ends[life]):
                lives.counts["told twice in the instant of a fault"] += 1
            else:
                problems.append(f"{where}: {len(reasons)} terminal events: {reasons}")
    for session_id, several in lives.of_session.items():
        for one, other in itertools.pairwise(several):
            ended = lives.ends.get(one)
            began = lives.created[other][0]
            if ended and ended[0][0] <= began:
                continue
            holder, next_holder = (lives.created[life][1]["data"]["worker_id"] for life in (one, other))
            late = any(
                _told_late(lives, life) and _disturbed(world, worker_id, lives.created[life][0], lives.began_at(life))
                for life, worker_id in ((one, holder), (other, next_holder))
            )
            held_back = world.late_letters and _was_held_back(lives, one)
            if late or held_back or _disturbed(world, holder, began):
                lives.counts["overlaps of a worker that was cut off"] += 1
            else:
                problems.append(f"{session_id}: lives on {holder} beside its next life ({lives.reasons(one)})")
    return problems


def check_restored(world: World, lives: Lives) -> list[str]:
    """A life is restored if its session has had one before: all its events say so, whoever publishes them.

    A session keeps its ``created_at`` as long as it is restored. Of its first life nothing is told if its worker was
    cut off before RabbitMQ had the recipe, and the session had a new life when the worker was back.
    """
    problems = []
    going_on: dict[tuple[str, str], list[str]] = defaultdict(list)
    for life, (_, created) in lives.created.items():
        going_on[created["subject"], created["data"]["created_at"]].append(life)
        if len(lives.restored[life]) > 1:
            problems.append(f"{created['subject']} on {created['data']['worker_id']}: restored, and not restored")
    for (session_id, created_at), several in going_on.items():
        first = sum(False in lives.restored[life] for life in several)
        if first > 1:
            problems.append(f"{session_id}: {first} of its {len(several)} lives since {created_at} are its first")
        began, created = lives.created[several[0]]
        if not first and _disturbed(world, created["data"]["worker_id"], began):
            lives.counts["first lives that were not told"] += 1
        elif not first:
            problems.append(f"{session_id}: none of its {len(several)} lives since {created_at} is its first")
    return problems


def check_executions(world: World) -> list[str]:
    """No tool call is executed twice, and who was told that nothing was executed can believe it."""
    problems = []
    by_number: dict[str, list[Asked]] = defaultdict(list)
    for asked in world.people.asked:
        if asked.what == "tools.call":
            by_number[asked.number].append(asked)
    for number, several in by_number.items():
        done = world.books.executed.get(number, [])
        if len(done) > 1 and (len(several) == 1 or len({worker for _, worker, _ in done}) < len(done)):
            problems.append(f"tool call {number} was executed {len(done)} times: {done}")
        codes = {asked.code for asked in several}
        if "ok" in codes and not done:
            problems.append(f"tool call {number} was answered and never executed")
        if done and codes <= UNTRIED:
            problems.append(f"tool call {number} was executed and answered {codes}")
        for asked in several:
            if len({repr(answer) for _, answer in asked.answers}) > 1:
                problems.append(f"tool call {number} was answered with this and with that: {asked.answers}")
            if any(session.partition("#")[0] != asked.call for _, _, session in done):
                problems.append(f"tool call {number} was executed in another session: {done}")
    return problems


def check_commands(world: World, lives: Lives) -> list[str]:
    """What a request without a reply address opened, or that it was refused, is told by an event."""
    opened = {session_id.partition("#")[0] for session_id in lives.of_session}
    return [
        f"nobody heard of what became of a {one.what} of {one.call}"
        for one in world.people.asked
        if not one.hears and one.call not in opened | lives.rejected.keys()
    ]


def check_answers(world: World) -> list[str]:
    """Where nothing broke, everybody was answered, and in time."""
    if world.faults.done or world.plan.conditions.unconfirmed:
        return []
    unanswered = [one for one in world.people.asked if one.hears and not one.answers]
    problems = [f"{one.what} of {one.call} was not answered" for one in unanswered]
    late = [one for one in world.people.asked if one.answers and one.answers[0][0] > one.until + 1.0]
    return problems + [f"{one.what} of {one.call} was answered late" for one in late]


def _is_over(world: World, call: str) -> bool | None:
    """Whether a call has ended; None where a start or a command came too late to say."""
    ended = world.people.ended.get(call)
    if not ended:
        return False
    opened = world.people.opening.get(call)
    if world.people.commanded(call) > max(ended) - 1.0:
        return None
    return True if not opened or max(opened) - max(ended) < LATE_START else None


def open_problems(world: World, lives: Lives) -> list[str]:
    """What is open and should not be, and what is not and should be."""
    problems = busy_queues(world)
    alive = world.alive()
    lives.heard()
    for session_id, holders in alive.items():
        if len(holders) > 1:
            problems.append(f"{session_id} lives on {holders}")
        call = session_id.partition("#")[0]
        if _is_over(world, call) and _is_known_to_be_over(world, call):
            problems.append(f"{session_id} is open on {holders}, though its call has ended")
        elif _is_over(world, call) and call not in world.passed_on:
            problems.append(f"{session_id} is open on {holders}, and the end of its call was lost")
        if call in world.closes and any(_was_closed(world, session_id, one) for one in holders):
            problems.append(f"{session_id} is open on {holders}, though it was closed by command")
    sessions: dict[str, list[str]] = defaultdict(list)
    for session_id in lives.of_session:
        sessions[session_id.partition("#")[0]].append(session_id)
    for call in world.plan.calls:
        if _is_over(world, call) is not False or call in world.closes or call in lives.rejected:
            continue
        for session_id in sessions[call]:
            if session_id in alive:
                continue
            ends = lives.last_ends(session_id)
            if not any(_may_be_gone(world, call, *end) for end in ends):
                last = str(ends[0][1]["data"]["reason"]) if ends else None
                problems.append(f"{session_id} is not open, its last end was {last}")
        if not sessions[call] and call in world.people.started and not _rings(world, call):
            problems.append(f"{call}: its start was accepted, and nothing became of it")
    if world.people.unsaid:
        problems.append("something has not been published yet")
    return problems + bound_twice(world)


def _is_known_to_be_over(world: World, call: str) -> bool:
    """Whether anybody is left who knows it: who was away tells all that it knows when it is back.

    Everybody was told who was there and undisturbed since the end came, if the others were undisturbed just then.
    """
    ended = max(world.people.ended[call])
    calm = not any(
        began <= ended + 3.0 and until >= ended - 8.0 for one in world.workers for began, until, _ in one.disturbed
    ) and not any(one.leaving_since is not None and one.leaving_since <= ended + 3.0 for one in world.workers)
    at_least = ended - BEGINNING + EPOCH + max(world.plan.conditions.skews)
    if any(
        _has_heard(world, when, process)
        for when, at, process in world.heard_of_ends.get(call, ())
        if at >= at_least and at > world.lifted_at.get(call, 0.0)
    ):
        return True
    witnesses = (one for one in world.workers if one.running and one.started_at < ended - 3.0)
    if calm and any(all(until < ended for _, until, _ in one.disturbed) for one in witnesses):
        return True
    return any(
        one.running and one.worker is not None and one.worker._parts.endings.ended_at(call) is not None
        for one in world.workers
    )


def _was_closed(world: World, session_id: str, holder: SimulatedWorker) -> bool:
    """Whether an open session is older than a command that closed it, of which a worker that is there has heard."""
    assert holder.worker is not None
    call = session_id.partition("#")[0]
    told = holder.worker._parts.sessions.sessions[SessionId(session_id)].created_at
    created = _on_our_clock(told.isoformat()) + max(abs(skew) for skew in world.plan.conditions.skews)
    heard = [one for one in world.heard_of_closings.get(call, ()) if one[1] >= told.timestamp()]
    return any(
        asked.at > created and any(when > asked.at and _has_heard(world, when, process) for when, _, process in heard)
        for asked in world.people.asked
        if (asked.what, asked.call, asked.code) == ("session.close", call, "ok")
        and asked.answers[0][1]["result"]["closed"]
    )


def _has_heard(world: World, when: float, process: object) -> bool:
    """Whether a process that is there was undisturbed when RabbitMQ had a report for it, and has been since."""
    return any(
        one.process is process and one.running and all(until < when for _, until, _ in one.disturbed)
        for one in world.workers
    )


def _ended_meanwhile(world: World, when: float, end: dict[str, Any]) -> bool:
    """Whether a session may have ended at a worker that was cut off when it was told lost.

    It was idle for its timeout, or its server died. The worker has come back, and has nothing to go on with.
    """
    data = end["data"]
    has_ended = data["service_name"] == "brief" or end["id"] in world.lost_server
    if data["reason"] != "worker_gone" or not has_ended:
        return False
    holder = next(one for one in world.workers if one.worker_id == data["worker_id"])
    died = any(what == "kill" and began <= when for began, _, what in holder.disturbed)
    return not died and _disturbed(world, data["worker_id"], when)


def _may_be_gone(world: World, call: str, when: float, end: dict[str, Any]) -> bool:
    """Whether a session of a call that goes on need not be open after this end of it."""
    reason = str(end["data"]["reason"])
    if reason == "worker_shutdown" and not _could_hand_over(world, end["data"]["worker_id"], when):
        return True
    return reason in FINAL or _not_restored(world, call, reason) or _ended_meanwhile(world, when, end)


def _could_hand_over(world: World, worker_id: str, when: float) -> bool:
    """Whether another worker was there and undisturbed all the time while a worker left, and told an end."""
    leaving = next(one for one in world.workers if one.worker_id == worker_id)
    since = leaving.leaving_since
    if since is None:
        return False
    there = [one for one in world.workers if one.was_up and one.started_at < since - 4.0 and one is not leaving]
    staying = [one for one in there if one.leaving_since is None or one.leaving_since > when + 15.0]
    disturbed = [[(a, b) for a, b, what in one.disturbed if what != "alarm"] for one in staying]
    return any(all(a > when + 15.0 or b < since - 15.0 for a, b in one) for one in disturbed)


def _not_restored(world: World, call: str, reason: str) -> bool:
    return reason in ("worker_gone", "worker_shutdown") and any(
        more.get("to") == "4" for _, _, more in world.plan.calls[call]
    )


def _rings(world: World, call: str) -> bool:
    return any(more.get("to") == "5" for _, _, more in world.plan.calls[call])


def bound_twice(world: World) -> list[str]:
    """Calls that are bound to two inboxes: a call belongs to the worker whose inbox is bound to it."""
    sessions = world.node.exchanges.get(world.names.sessions)
    bound: dict[str, set[str]] = defaultdict(set)
    for queue, key, _ in sessions.bindings if sessions is not None else ():
        bound[key].add(queue)
    return [f"{key} is bound to {sorted(queues)}" for key, queues in bound.items() if len(queues) > 1]


def bound_still(world: World) -> list[str]:
    """Calls that are bound to a worker when all have ended, and their tombstones are over; and recipes of theirs."""
    problems = []
    inboxes = {world.names.inbox(one.worker_id) for one in world.workers if one.running}  # type: ignore[arg-type]
    sessions = world.node.exchanges.get(world.names.sessions)
    for queue, key, _ in sessions.bindings if sessions is not None else ():
        if queue in inboxes:
            problems.append(f"{key} is bound to {queue} still")
    held = {name: len(world.node.queues[name].held) for name in inboxes if name in world.node.queues}
    return problems + [f"{name} has {count} held" for name, count in held.items() if count]


def busy_queues(world: World) -> list[str]:
    """Shared queues in which something waits, or is in somebody's hands."""
    names = world.names
    watched = (names.calls, names.unowned, names.orphans, names.queries)
    found = []
    for name in watched:
        queue = world.node.queues.get(name)
        if queue is not None and (queue.message_count or queue.held or queue.leaving):
            found.append(
                f"{name} has {queue.message_count} ready, {len(queue.held)} held, {len(queue.leaving)} leaving"
            )
    return found


def none_open(world: World) -> list[str]:
    """What is still there when every call has ended."""
    problems = [f"{session_id} is open on {holders}" for session_id, holders in world.alive().items()]
    for one in world.workers:
        if one.running and one.worker is not None and one.worker._parts.sessions.count():
            problems.append(f"{one.process.name} holds {one.worker._parts.sessions.count()} places")
        if one.running and one.worker is not None and one.worker._parts.ownership.owned_calls.pending_events:
            problems.append(f"{one.process.name} has not told of all ends")
    if world.people.unsaid:
        problems.append("something has not been published yet")
    for name, queue in world.node.queues.items():
        if queue.leaving or (queue.message_count and name != world.names.dead_letters):
            problems.append(f"{name} has {queue.message_count} ready, {len(queue.leaving)} leaving")
    return problems + busy_queues(world) + bound_still(world)


def all_gone(world: World) -> list[str]:
    return [f"{one.process.name} has not left" for one in world.workers if one.running]


def check_left(world: World) -> list[str]:
    """Nothing is left at the broker when all workers have gone, but inboxes of those that were cut off.

    Nor of those that left before they had come: RabbitMQ deletes them, because they expire.
    """
    problems = []
    names = world.names
    unclean = {names.inbox(one.worker_id) for one in world.workers if one.disturbed or not one.was_up}  # type: ignore[arg-type]
    shared = {names.calls, names.unowned, names.orphans, names.queries, names.dead_letters, EVENTS, REPLIES}
    for name, queue in world.node.queues.items():
        waiting = [stored.message for stored in [*queue.returned, *queue.ready, *queue.held, *queue.leaving]]
        if name == names.unowned:  # the last one who leaves has nobody to tell which calls have ended
            waiting = [one for one in waiting if one.properties.message_type != "call.ended"]
        if waiting:
            told = [(one.properties.message_type, one.routing_key, one.headers) for one in waiting[:3]]
            problems.append(f"{len(waiting)} messages are left in {name}: {told}")
        if name not in shared | unclean:
            problems.append(f"a queue is left: {name}")
    for exchange in (names.sessions, names.requests):
        known = world.node.exchanges.get(exchange)
        left = [(queue, key) for queue, key, _ in known.bindings if queue not in unclean] if known is not None else []
        if left:
            problems.append(f"{len(left)} bindings are left at {exchange}: {left[:3]}")
    return problems


def check_workers(world: World) -> list[str]:
    """Workers end as they should, and log no error."""
    problems = []
    for one in world.workers:
        if one.failure is not None:
            problems.append(f"{one.process.name} failed: {one.failure!r}")
        elif one.exit is not None and one.exit is not WorkerExit.DRAINED and not one.disturbed:
            in_time = one.worker is None or not one.worker._parts.owner._handover.cut  # a request did not end in time
            if in_time or one.exit is not WorkerExit.DRAIN_TIMED_OUT:
                problems.append(f"{one.process.name} exited with {one.exit!r}")
    return problems
