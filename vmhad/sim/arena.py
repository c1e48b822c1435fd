# SPDX-License-Identifier: Apache-2.0
"""The smallest world in which everything can go wrong: two engines, a host that dies, two that could receive, one VM.

An adversary is asked whenever an engine is about to send an act, whenever one commits, and whenever the journal or the
truth has changed; its answers make the run. What must never be is watched by the checkers and the ledger, as in every
simulated world; two rules more are kept here: epochs only grow and each has one writer, and a power_off reaches only a
host whose fence is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from vmhad.engine.world import PROOF_REST_S
from vmhad.journal import keys
from vmhad.kernel.incident import State
from vmhad.kernel.policy import Policy, SilentMeans
from vmhad.kernel.topology import Host, Segment
from vmhad.ports import Refused, Unanswered
from vmhad.sim.adversary import CALM, ON_SEND, SLEEPS_S, Adversary, ContestedStore, seconds_in
from vmhad.sim.compute import Post
from vmhad.sim.datacentre import Bmc, SimHost
from vmhad.sim.life import Killed
from vmhad.sim.nova import ServerRow
from vmhad.sim.power import PowerOrder
from vmhad.sim.world import AT_REST, Node, Pace, World

SEGMENT = Segment("east", (Host("h1", {"rack": "r1"}), Host("h2", {"rack": "r2"}), Host("h3", {"rack": "r3"})))
OPENINGS = ("cut", "hang")
SETTLED_S = 6.0
HORIZON_S = 75.0
RESTARTS_AFTER_S = 3.0
ENGINES_MAX = 4
FENCE_OPEN = (State.FENCING, State.RECOVERING, State.STUCK, State.RECOVERED)

# After this long without a change a world in which nothing is under way has come to its end.
QUIET_S = 5.0
# How old the reading of a proof may be at the moment of the act that rests on it, and a margin.
READING_OLD_S = PROOF_REST_S + 0.1


class Arena(World):
    """opening: how the first host fails."""

    def __init__(self, adversary: Adversary, opening: str) -> None:
        silent = SilentMeans.FENCE if opening == "hang" else SilentMeans.HOLD
        policy = Policy(silent_means=silent, failed_share_max=0.7)
        super().__init__((SEGMENT,), {SEGMENT.name: policy}, Pace(lease_s=15.0))
        self.adversary, self.opening = adversary, opening
        adversary.now = lambda: round(self.agenda.elapsed_s, 3)
        self.contested = ContestedStore(adversary, self.agenda.after, self._sleep)
        self.contested.on_commit = self.store.on_commit
        self.store = self.ledger.store = self.contested
        self.contested.is_busy = self._is_busy
        self._aimed: dict[str, str] = {}
        self._seen: object = None
        self._changed_at = 0.0
        for host in SEGMENT.hosts:
            self.nova.add_host(SimHost(host.name, host.domains))
        self.nova.add_server(ServerRow("vm", "vm", "h1"))
        self.add_engine("e1")
        self.agenda.after(3.0, self._second_engine)

    def add_engine(self, name: str, offset_s: float = 0.0) -> Node:
        """A process that dies is started anew, under another name, as its supervisor does."""
        node = super().add_engine(name, offset_s)
        node.life.on_send = partial(self._on_send, node)
        node.life.on_kill = self._killed
        return node

    def _second_engine(self) -> None:
        self.add_engine("e2", offset_s=100.0)

    def _killed(self) -> None:
        self.agenda.after(RESTARTS_AFTER_S, self._restart)

    def _restart(self) -> None:
        if len(self.nodes) < ENGINES_MAX:
            self.add_engine(f"e{len(self.nodes) + 1}")

    def open(self) -> None:
        """Lets the engines settle; then the first host fails, and the adversary wakes."""
        self.run(SETTLED_S)
        if self.opening == "hang":
            self.datacentre.hang("h1")
            # Nova calls it down 60 s later; nothing happens in most of them.
            self.nova.services["h1"].last_seen -= 50.0
        else:
            self.datacentre.cut("h1")
        self._seen = self._changes()
        self.adversary.armed = True

    @property
    def broken(self) -> list[str]:
        return [*self.checkers.breaches, *self.contested.epochs.breaches]

    # The adversary's turns.

    def has_changed(self) -> bool:
        """Whether the journal, the truth or Nova's records have changed since last asked."""
        seen, self._seen = self._seen, self._changes()
        if seen == self._seen:
            return False
        self._changed_at = self.agenda.now
        return True

    @property
    def is_over(self) -> bool:
        """Nothing is under way, nobody sleeps, the owner lives, and the VM runs while every host serves or waits,
        recovered, for its return; or the world is calm in another way."""
        if self.agenda.restless or self.agenda.now - self._changed_at < QUIET_S or self._is_busy():
            return False
        if any(node.life.frozen and not node.life.dead for node in self.nodes.values()):
            return False
        owner = self.nodes.get(self.ledger.owner(SEGMENT.name))
        if owner is None or owner.life.dead:
            return False
        recovered = {one.host for one in self.ledger.incidents.values() if one.state is State.RECOVERED}
        hosts = self.datacentre.hosts.values()
        healthy = all(one.serves or (one.name in recovered and not one.powered) for one in hosts)
        return (healthy and bool(self.datacentre.writers(self.datacentre.vms["vm"]))) or self.is_calm

    def ask(self, state: int) -> None:
        """What befalls the world now? Until nothing more does."""
        while (chosen := self.adversary.choose("meanwhile", (CALM, *self._faults()), state)) != CALM:
            self._befall(chosen)
            state = 0
        self._seen = self._changes()

    def _is_busy(self) -> bool:
        return any(one.is_open and one.state not in AT_REST for one in self.ledger.incidents.values())

    def end(self) -> None:
        """Called where nothing is under way any more: the VM runs, or an incident says why not."""
        waiting = [one for one in self.ledger.incidents.values() if one.state in (State.STUCK, State.SUSPECTED)]
        if not self.datacentre.writers(self.datacentre.vms["vm"]) and not waiting:
            self.checkers.breach("vm vm", "nothing is under way, it runs nowhere, and no incident says why")

    def _changes(self) -> object:
        hosts, nova = self.datacentre.hosts.values(), self.nova
        return (
            self.store.revision(keys.ROOT + "incident/"),
            self.store.revision(keys.ROOT + "step/"),
            self.ledger.owner(SEGMENT.name),
            [(one.powered, one.alive, one.hung, one.compute, one.network) for one in hosts],
            [sorted(vm.guests) for vm in self.datacentre.vms.values()],
            [(one.host, one.state, one.task_state) for one in nova.servers.values()],
            [one.status for one in nova.migrations],
            [(one.forced_down, one.enabled, nova.is_up(one.host)) for one in nova.services.values()],
        )

    def _faults(self) -> Iterator[str]:
        for name, node in self.nodes.items():
            if node.life.runs:
                # One that only waits for its turn can but come too late to it.
                sleeps = SLEEPS_S if self.ledger.owner(SEGMENT.name) == name else SLEEPS_S[-1:]
                yield from (f"kill {name}", *(f"sleep {name} {seconds} s" for seconds in sleeps))
        for name in ("h1", "h2"):
            host = self.datacentre.hosts[name]
            if not host.powered or host.hung:
                yield f"restore {name}"
            if host.powered:
                yield f"cut {name}"
            if host.serves:
                yield from (f"hang {name}", f"hang {name} 25 s")
            if host.bmc is Bmc.OK:
                yield from (f"silence-bmc {name}", f"silence-bmc {name} 8 s")
        yield from ("cut-off e1 20 s", "nova-down 8 s")

    def _befall(self, fault: str) -> None:
        what, *words = fault.split()
        seconds = float(words[-2]) if words[-1] == "s" else 0.0
        truth, agenda = self.datacentre, self.agenda
        if what == "kill":
            self.kill_engine(words[0])
        elif what == "sleep":
            self.freeze_engine(words[0], seconds)
        elif what == "hang":
            truth.hang(words[0], seconds or None)
        elif what == "silence-bmc":
            truth.set_bmc(words[0], Bmc.DEAD)
            if seconds:
                agenda.after(seconds, lambda: truth.set_bmc(words[0], Bmc.OK))
        elif what == "cut-off":
            self.store_faults.cut_off[words[0]] = agenda.at(agenda.now + seconds, _nothing).at
        elif what == "nova-down":
            self.nova_faults.down_until = agenda.at(agenda.now + seconds, _nothing).at
        else:
            getattr(truth, what)(words[0])

    def _on_send(self, node: Node, verb: str, act: Callable[[], None]) -> None:
        """An engine's act, checked and about to leave."""
        life = node.life
        act = self._watched(verb, self._aimed.get(life.name, ""), act)
        chosen = self.adversary.choose(f"{life.name} sends {verb}", ON_SEND)
        if chosen == "is lost":
            raise Unanswered("the peer did not answer in time")
        if chosen == "dies before it leaves":
            life.kill()
            raise Killed(life.name)
        if chosen.startswith("sleeps"):
            self._sleep(life.name, seconds_in(chosen), lambda: _late(node, act))
            return
        if chosen.endswith("late"):
            self.agenda.after(seconds_in(chosen), lambda: _late(node, act))
            raise Unanswered("the peer did not answer in time")
        if chosen == "arrives":
            act()
            return
        with suppress(Refused):
            act()
        if chosen == "dies when it has left":
            life.kill()
            raise Killed(life.name)
        raise Unanswered("the peer did not answer in time")

    def _sleep(self, engine: str, seconds: float, then: Callable[[], None]) -> None:
        """The process stops; what it was about to do leaves when it goes on."""
        life = self.nodes[engine].life
        life.freeze(seconds)
        self.agenda.at(life.thaw_at, lambda: None if life.dead else then())

    # What must never be.

    def _on_evacuate(self, post: Post) -> None:
        """Stricter than the checkers, which do not blame a request for what was switched on seconds before it."""
        super()._on_evacuate(post)
        server = self.nova.servers.get(post.server)
        host = self.datacentre.hosts[server.host] if server else None
        if host is None or post.late or host.name == post.target:
            return
        if host.powered and self.agenda.now - host.powered_at > READING_OLD_S:
            self.checkers.breach(
                f"vm {post.server}", f"{host.name} has power, and was not read before it was evacuated"
            )

    def _on_power(self, order: PowerOrder) -> None:
        self._aimed[order.engine] = order.host
        super()._on_power(order)

    def _watched(self, verb: str, host: str, act: Callable[[], None]) -> Callable[[], None]:
        def reaches_its_host() -> None:
            states = [one.state for one in self.ledger.incidents.values() if one.host == host and one.is_open]
            if not any(state in FENCE_OPEN for state in states):
                self.checkers.breach(f"host {host}", f"a power_off reaches it while its fence is not open: {states}")
            act()

        return reaches_its_host if verb == "power_off" else act


def _late(node: Node, act: Callable[[], None]) -> None:
    """Whatever its peer answers, nobody reads it."""
    node.life.is_late = True
    try:
        act()
    except Exception:  # noqa: BLE001 - the peer's answer goes nowhere
        return
    finally:
        node.life.is_late = False


def _nothing() -> None:
    """The end of a fault that lasts: until then something is under way."""
