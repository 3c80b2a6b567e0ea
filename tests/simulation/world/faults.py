"""What breaks in a simulated world. Each fault is done at its moment, and what it leads to is its own affair."""

import signal
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any

from tests.simulation.broker.client import SimulatedConnection
from tests.simulation.world.aims import DEEDS_OF_PEOPLE, Aims
from tests.simulation.world.people import EVENTS
from tests.simulation.world.plan import Step

if TYPE_CHECKING:
    from tests.simulation.world.world import SimulatedWorker, World


class Faults:
    """Breaks things."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._loop = world.loop
        self._node = world.node
        self._drawn = world.drawn
        self.aims = Aims(world, self)
        self.done: Counter[str] = Counter()
        self.first_at = inf
        """When the first of them was done."""
        self.finished = False
        self._last: SimulatedWorker | None = None

    def do(self, step: Step) -> None:
        """Do what a plan says."""
        _, what, more = step
        if getattr(self, f"_{what.replace(' ', '_')}")(more):
            self.done[what] += 1
            self.first_at = min(self.first_at, self._loop.time())

    def _do(self, more: dict[str, Any]) -> bool:
        """Somebody does something of a call that is open."""
        if calls := sorted({session_id.partition("#")[0] for session_id in self._world.alive()}):
            self._world.do(calls[more["which"] % len(calls)], (0.0, *DEEDS_OF_PEOPLE[more["do"]]))
        return False

    def _aim(self, more: dict[str, Any]) -> bool:
        self.aims.add(more)
        return False

    def _later(self, seconds: float, callback: Any, *args: Any) -> None:
        self._loop.at(self._loop.time() + seconds, None, callback, *args)

    def _victim(self, more: dict[str, Any]) -> "SimulatedWorker | None":
        fit = [one for one in self._world.workers if one.running and not one.process.frozen and one.worker is not None]
        if "victim" in more:
            return more["victim"] if more["victim"] in fit else None
        if more.get("same") and self._last in fit:
            return self._last
        if more.get("placer") and (placers := [one for one in fit if one.places]):
            self._last = placers[0]
        else:
            self._last = fit[more["which"] % len(fit)] if fit else None
        return self._last

    def _connections(self, victim: "SimulatedWorker") -> list[SimulatedConnection]:
        return [one for one in self._node.clients if one.owner is victim.process and not one.closed]

    def _ensure_one(self) -> None:
        if not any(one.serving for one in self._world.workers):
            self._world.start_worker()

    # Workers.

    def _kill(self, more: dict[str, Any]) -> bool:
        victim = self._victim(more)
        if victim is None:
            return False
        self._world.tell(victim.process.name, "is killed")
        victim.killed_at = self._loop.time()
        victim.disturbed.append((self._loop.time(), float("inf"), "kill"))
        for connection in self._connections(victim):
            if more.get("sharp"):  # nothing of it arrives after this
                connection.cut(client_after=None, server_after=0.0)
            else:
                connection.cut(client_after=None, server_after=0.002 + 0.02 * self._drawn(), tail=0.003 * self._drawn())
        self._loop.kill(victim.process)
        self._later(more["again"] if more["again"] is not None else 1.0, self._after_kill, more["again"] is not None)
        return True

    def _after_kill(self, again: bool) -> None:
        if self.finished:
            return
        if again:
            self._world.start_worker()
        else:
            self._ensure_one()

    def _stop(self, more: dict[str, Any]) -> bool:
        victim = self._victim(more)
        if victim is None:
            return False
        lasts = more["lasts"]
        began = self._loop.time()
        self._world.tell(victim.process.name, f"stands still for {lasts} s")
        victim.disturbed.append((began, began + lasts, "freeze"))
        victim.frozen_since = began
        self._loop.freeze(victim.process)
        for connection in self._connections(victim):
            self._later(connection.heartbeat * (2 + self._drawn()), self._given_up, victim, connection, began)
        self._later(lasts, self._thaw, victim, began)
        return True

    _freeze = _stop
    _stall = _stop

    def _given_up(self, victim: "SimulatedWorker", connection: SimulatedConnection, since: float) -> None:
        if victim.process.frozen and victim.frozen_since == since and connection.server is not None:
            connection.broken("missed heartbeats")
            connection.server.end()

    def _thaw(self, victim: "SimulatedWorker", since: float) -> None:
        if not victim.process.dead and victim.process.frozen and victim.frozen_since == since:
            self._world.tell(victim.process.name, "goes on")
            self._loop.thaw(victim.process)

    def _leave(self, more: dict[str, Any]) -> bool:
        victim = self._victim(more)
        if victim is None or victim.leaving_since is not None:
            return False
        if sum(one.serving for one in self._world.workers) < 2 and not more.get("alone"):
            self._world.start_worker()
        self.send_home(victim)
        return True

    def send_home(self, victim: "SimulatedWorker") -> None:
        """SIGTERM."""
        self._world.tell(victim.process.name, "is told to leave")
        victim.leaving_since = self._loop.time()
        self._loop.at(self._loop.time(), victim.process, self._tell_to_leave, victim)

    def _tell_to_leave(self, victim: "SimulatedWorker") -> None:
        assert victim.worker is not None, "it has started, because what comes for a process comes in order"
        victim.worker.leave(signal.SIGTERM)

    def _add(self, more: dict[str, Any]) -> bool:
        if sum(one.running for one in self._world.workers) < 5:
            self._world.start_worker()
        return True

    def _server_dies(self, more: dict[str, Any]) -> bool:
        victim = self._victim(more)
        clients = [one for one in victim.servers.clients if one.is_alive] if victim is not None else []
        if victim is None or not clients:
            return False
        client = clients[int(self._drawn() * len(clients))]
        self._world.tell(victim.process.name, "loses a server")
        assert victim.worker is not None, "it has servers"
        sessions = victim.worker._parts.sessions.sessions.values()
        self._world.lost_server.update(one.life for one in sessions if one.process is client)
        self._loop.at(self._loop.time(), victim.process, client.die, 3)
        return True

    # Links.

    def _cut(self, more: dict[str, Any]) -> bool:
        victim = self._victim(more)
        if victim is None:
            return False
        how, away = more["how"], more["away"]
        connections = self._connections(victim)
        if not connections:
            return False
        if more.get("connection") in connections:
            connections = [more["connection"]]
        chosen = (
            connections
            if self._drawn() < 0.5 or more.get("sharp")
            else [connections[int(self._drawn() * len(connections))]]
        )
        now = self._loop.time()
        self._world.tell(victim.process.name, f"loses its link ({how} notice it), away for {away} s")
        latest = 0.0
        for connection in chosen:
            late = connection.heartbeat * (2 + self._drawn())
            soon = 0.05 * self._drawn()
            client = late if how == "server" else soon
            server = late if how == "client" else soon
            latest = max(latest, client, server)
            if more.get("sharp"):
                connection.cut(client_after=client, server_after=0.0)
            else:
                connection.cut(client_after=client, server_after=server, tail=0.005 * self._drawn())
        if away:
            self._node.unreachable[victim.process] = now + away
        victim.disturbed.append((now, now + latest + away + 1.0, "cut"))
        return True

    def _slow(self, more: dict[str, Any]) -> bool:
        """What its links carry from now on arrives late."""
        victim = self._victim(more)
        if victim is None:
            return False
        until = self._loop.time() + more["lasts"]
        self._world.tell(victim.process.name, f"has slow links for {more['lasts']} s")
        victim.disturbed.append((self._loop.time(), until, "slow"))
        for connection in self._connections(victim):
            connection.to_server.hold(until)
            if more.get("both"):
                connection.from_server.hold(until)
        return True

    def _come_back(self, more: dict[str, Any]) -> bool:
        """Who stood still goes on, and who was away can be reached."""
        self._node.unreachable.clear()
        for one in self._world.workers:
            if one.process.frozen and one.frozen_since is not None:
                self._thaw(one, one.frozen_since)
        return True

    # The broker.

    def _restart_broker(self, more: dict[str, Any]) -> bool:
        if not self._node.up:
            return False
        self._world.tell("broker", f"goes down for {more['down']} s")
        now = self._loop.time()
        for one in self._world.workers:
            one.disturbed.append((now, now + more["down"] + 5.0, "outage"))
        self._world.outages.append(now)
        self._node.stop()
        self._later(more["down"], self._broker_up, more)
        return True

    def _broker_up(self, more: dict[str, Any]) -> None:
        names = sorted(name for name in self._node.queues if name.startswith("mcp."))
        late: dict[str, float] = {}
        if isinstance(more["late"], dict):
            late = more["late"]
        elif more["late"]:
            late = {name: 2 * self._drawn() for name in names if self._drawn() < 0.3}
        self._world.tell("broker", f"is up again, late: {sorted(late)}")
        self._world.late_letters = self._world.late_letters or bool(late)
        self._node.start(late)

    def _events_wait(self, more: dict[str, Any]) -> bool:
        self._world.tell("broker", f"the queue of who hears events has no leader for {more['lasts']} s")
        self._node.leaderless[EVENTS] = self._loop.time() + more["lasts"]
        return True

    def _alarm(self, more: dict[str, Any]) -> bool:
        if not self._node.up or self._node.alarm:
            return False
        self._world.tell("broker", f"has an alarm for {more['lasts']} s")
        now = self._loop.time()
        for one in self._world.workers:
            one.disturbed.append((now, now + more["lasts"] + 1.0, "alarm"))
        self._node.set_alarm(on=True)
        self._later(more["lasts"], self._no_alarm)
        return True

    def _no_alarm(self) -> None:
        self._node.set_alarm(on=False)

    async def over(self) -> None:
        """Have everything work again."""
        self.finished = True
        self.aims.stop()
        self._node.unreachable.clear()
        if self._node.alarm:
            self._node.set_alarm(on=False)
        if not self._node.up:
            self._node.start()
        for one in self._world.workers:
            if one.process.frozen and not one.process.dead:
                self._loop.thaw(one.process)
