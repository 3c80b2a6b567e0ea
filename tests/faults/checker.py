"""The checker: reads everything that was told of a run, and asserts what must be true of every run.

1. Every accepted start has a life or a ``rejected``; every life has exactly one terminal event.
2. Every end closes its call: nothing of it is alive afterwards.
3. No two workers live one session at the same time, but for one that was cut off: it was reported ``lost``, or says
   itself that it was ``superseded``.
4. Nothing is left: no process, no folder, no message, no recipe, no binding of a call, and no queue but the shared ones
   and inboxes that expire, which their workers said when they left that they still needed.
5. The dead-letter queue holds only what was poison.
"""

import asyncio
import itertools
import json
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import psutil

from consumer.broker.link import Link
from consumer.broker.message import Delivery
from consumer.broker.topology import Queue, cluster_topology
from schemas.events import TERMINAL, CloudEvent
from schemas.ids import WorkerId
from tests.faults.stage import Stage
from tests.harness import worker_id_of

TERMINAL_WORDS = {kind.value for kind in TERMINAL}
EXPECTED_REASONS = {"unrecognised", "invalid_message", "unknown_type"}
NEEDED_FOR = {"calls", "events", "recipes"}
"""What a worker that leaves keeps its inbox for (``worker.inbox_left``)."""
LIBRARIES = ("aiormq", "aio_pika")
CLOCK = 0.05
"""Times of different processes on one machine: an event's time is taken a moment after what it tells of."""


def word(event: CloudEvent) -> str:
    return event.type.rpartition(".")[2]


@dataclass
class Life:
    """One life of a session on one worker."""

    session_id: str
    worker_id: str
    created: CloudEvent
    terminals: list[CloudEvent] = field(default_factory=list)

    @property
    def began(self) -> float:
        return self.created.time.timestamp()

    @property
    def ended(self) -> float:
        return min((event.time.timestamp() for event in self.terminals), default=float("inf"))

    @property
    def reasons(self) -> list[str]:
        return [str(event.data.get("reason")) for event in self.terminals]


@dataclass
class Report:
    """The counts of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return told + ("\n  " + "\n  ".join(self.problems) if self.problems else "")


def lives_of(stage: Stage, report: Report) -> dict[str, list[Life]]:
    """Put terminal events to the lives that they end: a worker lives a session id one life after the other."""
    lives: dict[str, list[Life]] = defaultdict(list)
    orphans: list[CloudEvent] = []
    for event in stage.events:
        if not event.type.startswith("mcp.session."):
            continue
        session_id, worker_id = str(event.subject), str(event.data["worker_id"])
        what = word(event)
        report.counts[what] += 1
        if what == "created":
            lives[session_id].append(Life(session_id, worker_id, event))
        elif what in TERMINAL_WORDS:
            report.counts[f"reason:{event.data.get('reason')}"] += 1
            own = [life for life in lives[session_id] if life.worker_id == worker_id]
            # A worker's own events come in order; what others report of it may come before its own are sent.
            life = next((life for life in own if not life.terminals), own[-1] if own else None)
            if life is None:
                orphans.append(event)
            else:
                life.terminals.append(event)
    for event in orphans:  # reported lost before its own `created` came
        own = [life for life in lives[str(event.subject)] if life.worker_id == event.data["worker_id"]]
        if own:
            own[0].terminals.append(event)
        else:
            report.problems.append(f"{event.subject}: {word(event)} of {event.data['worker_id']} without a created")
    return lives


def check_lives(stage: Stage, report: Report) -> None:
    lives = lives_of(stage, report)
    rejected = {str(event.data["call_id"]) for event in stage.of("rejected")}
    for call in sorted(stage.accepted):
        if call not in rejected and not any(s.partition("#")[0] == call for s in lives):
            # An end that came before its start opens nothing, and that is right.
            if call in stage.ended:
                report.counts["ended before it began"] += 1
            else:
                report.problems.append(f"{call}: its start was accepted, and nothing became of it")
    for session_id, several in lives.items():
        for life in several:
            check_terminals(stage, life, report)
        several.sort(key=lambda life: life.began)
        for one, other in itertools.pairwise(several):
            if one.worker_id == other.worker_id or one.ended <= other.began + CLOCK:
                continue
            cut_off = {one.worker_id, other.worker_id} & stage.frozen
            if cut_off or {"superseded", "worker_gone"} & set(one.reasons + other.reasons):
                report.counts["overlaps of a worker that was cut off"] += 1
            else:
                report.problems.append(
                    f"{session_id}: lived on {one.worker_id} and {other.worker_id} at the same time: {one.reasons} "
                    f"at {one.ended:.3f}, began {other.began:.3f}"
                )


def how_it_went(stage: Stage, life: Life) -> str:
    """Tell what is known of a life that has no end, in lines.

    The last events of its session, what was done to its worker and to the broker, and what workers logged of its call.
    """
    session = [event for event in stage.events if event.subject == life.session_id]
    told = [f"{event.time:%T.%f} {word(event)} {event.data.get('reason') or ''}" for event in session[-6:]]
    since, until = life.created.time - timedelta(seconds=15), life.created.time + timedelta(seconds=60)
    done = [
        f"{when:%T.%f} {what}"
        for when, what in stage.done
        if life.worker_id in what or (what.startswith("broker") and since <= when <= until)
    ]
    logged = [
        f"{record.get('timestamp')} {record.get('event')} {record.get('type') or ''} {record.get('outcome') or ''}"
        for worker in stage.workers
        for record in worker.records
        if record.get("call_id") == life.session_id.partition("#")[0]
    ]
    return "".join(f"\n    {line}" for line in (*told, *done, *sorted(logged)[-12:]))


def check_terminals(stage: Stage, life: Life, report: Report) -> None:
    where = f"{life.session_id!r} on {life.worker_id} from {life.created.time.isoformat()}"
    reasons = life.reasons
    report.counts["lives"] += 1
    if len(reasons) == 1:
        return
    if not reasons:
        report.problems.append(f"{where}: no terminal event{how_it_went(stage, life)}")
    else:
        report.problems.append(f"{where}: {len(reasons)} terminal events: {reasons}")


async def peek(stage: Stage, queue: str, report: Report) -> list[Delivery]:
    """The ready messages of a queue, as the queue itself says; ``rabbitmqctl`` tells what was seconds ago.

    One whose caller waits no longer counts as ready until it would be delivered, and then it is not.
    """
    columns = ("name", "type", "messages_ready", "messages_unacknowledged", "consumers", "state", "policy")
    link = Link(stage.url, "checker")
    await link.open()
    found: list[Delivery] = []
    try:
        channel = await link.channel()
        ready = await channel.declare_queue(Queue(queue, ""), passive=True)
        if ready:
            await channel.consume(queue, found.append)
            seen = -1
            try:
                async with asyncio.timeout(30):
                    while ready or seen < len(found):
                        seen = len(found)
                        await asyncio.sleep(0.3)
                        ready = await channel.declare_queue(Queue(queue, ""), passive=True)
            except TimeoutError:
                told = await asyncio.to_thread(stage.broker.rabbitmqctl, "list_queues", *columns, "--silent")
                told = "; ".join(line for line in told.splitlines() if line.startswith(f"{queue}\t"))
                report.problems.append(f"{ready} messages are ready and not delivered ({', '.join(columns)}): {told}")
    finally:
        await link.close()  # nothing was acknowledged: all of it stays
    return found


async def check_dead_letters(stage: Stage, report: Report) -> None:
    letters = await peek(stage, stage.names.dead_letters, report)
    for delivery in list(letters):
        reason = delivery.message.headers.get("x-mcp-reason")
        if reason is None and delivery.message.headers.get("x-first-death-reason") == "expired":
            # Its caller's timeout (the property ``expiration``) ended while no worker was the placer.
            report.counts["requests that expired while nobody was there"] += 1
            letters.remove(delivery)
        elif reason not in EXPECTED_REASONS:
            report.problems.append(
                f"a dead letter, and no poison: {delivery.type} reason={reason} {delivery.message.headers} "
                f"{delivery.message.body[:200]!r}"
            )
    report.counts["dead_letters"] = len(letters)
    # A worker that dies between publishing it to the dead letters and acknowledging leaves the message to become a dead
    # letter once more.
    most = stage.poison + stage.poison_repeated + len(stage.killed | stage.frozen) * 10 + 10 * stage.outages
    if not stage.poison <= len(letters) <= most:
        report.problems.append(f"{stage.poison} poisonous messages were sent, {len(letters)} became dead letters")


def broker_lists(stage: Stage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The queues of the stage's prefix with their arguments, and the bindings of its calls."""
    queues = json.loads(stage.broker.rabbitmqctl("list_queues", "name", "arguments", "--formatter", "json", "--silent"))
    bindings = json.loads(
        stage.broker.rabbitmqctl(
            "list_bindings", "source_name", "destination_name", "routing_key", "--formatter", "json", "--silent"
        )
    )
    exchanges = {stage.names.sessions, stage.names.requests}
    return (
        {queue["name"]: queue["arguments"] for queue in queues if queue["name"].startswith(f"{stage.prefix}.")},
        [binding for binding in bindings if binding["source_name"] in exchanges],
    )


async def until_nothing_is_open(stage: Stage) -> dict[str, Any]:
    """Wait until no session is open; returns those that stay open. One that was cut off learns late of an end."""
    opened: dict[str, Any] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(45):
            while stage.alive:
                opened = await stage.sessions()
                if not opened:
                    break
                await asyncio.sleep(0.5)
    return opened


async def until_all_is_handled(stage: Stage, report: Report) -> None:
    """Wait until no call event and no unowned message is ready or in anybody's hands."""
    names = stage.names
    watched = {names.calls, names.unowned, names.orphans}
    seen_at = asyncio.get_running_loop().time()
    busy: dict[str, int] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while True:
                told = await asyncio.to_thread(
                    stage.broker.rabbitmqctl, "list_queues", "name", "messages", "--formatter", "json", "--silent"
                )
                queues = {queue["name"]: queue["messages"] for queue in json.loads(told)}
                busy = {name: queues[name] for name in watched if queues.get(name)}
                now = asyncio.get_running_loop().time()
                if busy:
                    seen_at = now
                elif now - seen_at >= stage.statistics_age:
                    return
                await asyncio.sleep(0.3)
    report.problems.append(f"messages that nobody settles: {busy}")


def inboxes_left(stage: Stage) -> dict[str, str]:
    """The inboxes whose workers said when they left that they are still needed, and what for."""
    return {
        record["queue"]: record["reason"]
        for worker in stage.workers
        for record in worker.records
        if record.get("event") == "worker.inbox_left" and record["reason"] in NEEDED_FOR
    }


async def check_broker(stage: Stage, report: Report) -> None:
    queues, bindings = await asyncio.to_thread(broker_lists, stage)
    shared = {queue.name for queue in cluster_topology(stage.names).queues} | {stage.log.queue.name}
    own = {f"{stage.prefix}.replies.", f"{stage.prefix}.following."}
    unclean = {stage.names.inbox(WorkerId(worker)) for worker in stage.killed | stage.frozen}
    needed = inboxes_left(stage)
    for name, arguments in queues.items():
        if name in (stage.names.dead_letters, stage.log.queue.name) or any(name.startswith(start) for start in own):
            continue
        left = await peek(stage, name, report)
        if left:
            told = [f"{one.type} {one.message.headers}" for one in left[:3]]
            report.problems.append(f"{len(left)} messages are left in {name}: {told}")
        if name in unclean:  # cut off, it may have left without a link
            report.counts["inboxes of killed workers, which the broker will remove"] += 1
        elif (reason := needed.get(name)) and "x-expires" in str(arguments):
            report.counts[f"inboxes left for {reason}, which the broker will remove"] += 1
        elif name not in shared:
            report.problems.append(f"a queue is left: {name}")
    # A worker that is killed leaves the bindings of the calls that it remembers as ended; they go with its inbox.
    bindings = [one for one in bindings if one["destination_name"] not in unclean]
    if bindings:
        report.problems.append(f"{len(bindings)} bindings are left: {bindings[:3]}")


async def check_processes(stage: Stage, report: Report) -> None:
    _, alive = await asyncio.to_thread(partial(psutil.wait_procs, list(stage.servers.values()), timeout=5))
    report.counts["processes seen"] = len(stage.servers)
    report.problems += [f"a process is left: {process}" for process in alive]
    left = list((stage.folder / "sandbox").glob("*"))
    report.problems += [f"a folder is left: {path}" for path in left[:5]]


def check_logs(stage: Stage, report: Report) -> None:
    for worker in stage.workers:
        for record in worker.records:
            if str(record.get("logger", "")).startswith(LIBRARIES):
                continue  # that a connection was lost is an error to them, and what is tested to us
            if record.get("level") in ("error", "critical") or record.get("event") in (
                "delivery.defect",
                "lane.defect",
            ):
                told = {key: value for key, value in record.items() if key not in ("timestamp", "exception")}
                last = str(record.get("exception", "")).strip().splitlines()[-1:]
                report.problems.append(f"{worker_id_of(worker)} logged {told} {last}")
    report.counts["workers"] = len(stage.workers)


def everything_is_over(stage: Stage) -> bool:
    """Whether every life that began has ended, as far as the log tells."""
    began: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for event in stage.events:
        life = f"{event.subject}\0{event.data.get('worker_id')}"
        if word(event) == "created":
            began[life] += 1
        elif event.type.startswith("mcp.session.") and word(event) in TERMINAL_WORDS:
            ended[life] += 1
    return all(ended[life] >= count for life, count in began.items())


async def check(stage: Stage, title: str, *, leave: bool = True) -> Report:
    """Wait until the run is over, send the workers home, and assert every invariant; prints the counts."""
    report = Report()
    try:
        await stage.until(lambda: everything_is_over(stage), within=60)
    except AssertionError:
        report.problems.append("some lives did not end")
    if stage.alive:
        await until_all_is_handled(stage, report)
    open_sessions = await until_nothing_is_open(stage)
    report.problems += [f"{one!r} is open, though its call has ended" for one in list(open_sessions)[:10]]
    if leave:
        if stage.killed and stage.alive:
            await stage.start()  # it sweeps away what killed workers have left on this machine
        codes = await stage.leave()
        if any(codes):
            report.problems.append(f"workers left with {codes}")
        check_lives(stage, report)
        await check_dead_letters(stage, report)
        await check_broker(stage, report)
        await check_processes(stage, report)
        check_logs(stage, report)
    report.counts["requests"] = len(stage.counting.answers)
    tool_calls, others = stage.counting.tool_calls_answered_twice, stage.counting.commands_answered_twice
    report.counts["tool calls answered twice"], report.counts["commands answered twice"] = len(tool_calls), others
    report.counts["duplicates of events"] = stage.log.duplicates
    report.counts["calls"] = len(stage.accepted)
    report.problems += [f"a tool call was answered with {answers}" for answers in tool_calls]
    if others and not (stage.killed | stage.frozen or stage.outages or stage.deposed):
        report.problems.append(f"{others} commands were answered twice")
    print(f"\n[{title}] {report}")  # noqa: T201
    assert not report.problems, f"{title}: {len(report.problems)} problems\n" + "\n".join(report.problems[:30])
    return report
