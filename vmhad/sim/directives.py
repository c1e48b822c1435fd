# SPDX-License-Identifier: Apache-2.0
"""The language of stories, one method a directive; each docstring shows how it is written.

Declaring: pace, segment, group, backend, host, vm, engine. The first directive that lets something happen builds the
world.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from vmhad.ports import Nudge
from vmhad.sim import rules_of_certificates, users
from vmhad.sim.agent_words import AgentWords
from vmhad.sim.datacentre import Bmc
from vmhad.sim.draft import Draft, StoryError, seconds, with_pace
from vmhad.sim.gate_words import GateWords
from vmhad.sim.guests import befall, end_on, slip
from vmhad.sim.hands import Ear
from vmhad.sim.inbox import order
from vmhad.sim.nova import GroupRow
from vmhad.sim.policy_words import PolicyWords
from vmhad.sim.show import SHOWS, spoken
from vmhad.sim.storage_words import StorageWords
from vmhad.sim.world import World

HOST_FAULTS = ("cut", "unplug", "crash", "stop-compute", "isolate", "reboot", "restore")


class Stage:
    """Takes directives one at a time and answers with lines of output."""

    def __init__(self) -> None:
        self.draft = Draft()
        self._world: World | None = None
        self._spoken = 0
        self._breaches_expected = False
        self._directives: dict[str, Callable[[list[str]], Sequence[str] | None]] = {
            "pace": self._pace,
            "seed": self._seed,
            "segment": self._segment,
            "group": self._group,
            "host": self._host,
            "vm": self._vm,
            "engine": self._engine,
            "run": self._run,
            "show": self._show,
            "hang": self._hang,
            "bmc": self._bmc,
            "nova": self._nova,
            "store": self._store,
            "kill": self._kill,
            "freeze": self._freeze,
            "forbid": self._forbid,
            "user": self._user,
            "domains": self._domains,
            "guest": self._guest,
            "nudge": self._nudge,
            "order": self._order,
            "expect": self._expect,
            "heal": self._heal,
            "plane": self._plane,
            "switch": self._switch,
            "wan": self._wan,
            "nudges": self._nudges,
            "ring": self._ring,
            "hands": self._hands,
            **AgentWords(self).directives,
            **StorageWords(self).directives,
            **PolicyWords(self).directives,
            **GateWords(self).directives,
            **{fault: self._fault(fault) for fault in HOST_FAULTS},
        }

    @property
    def world(self) -> World:
        if self._world is None:
            self._world = self.draft.build()
        return self._world

    @property
    def is_built(self) -> bool:
        return self._world is not None

    def perform(self, line: str) -> Sequence[str]:
        """Raises StoryError, or a KeyError, ValueError or IndexError of what the line says wrongly."""
        name, *words = shlex.split(line, comments=True)
        if name not in self._directives:
            raise StoryError(f"there is no directive {name}; there are {', '.join(sorted(self._directives))}")
        return self._directives[name](words) or ()

    def end(self) -> None:
        """Whatever was never run is a mistake of the story."""
        if self._world is None:
            raise StoryError("the story never runs")
        rules_of_certificates.tell(self._world)

    def unexpected_breaches(self) -> tuple[str, ...]:
        if self._world is None or self._breaches_expected:
            return ()
        return tuple(self._world.checkers.breaches)

    # Declaring.

    def _pace(self, words: list[str]) -> None:
        """pace nova_poll_s=1s power_poll_s=2s call_timeout_s=5s bmc_timeout_s=3s storage_timeout_s=3s lease_s=15s"""
        self._declaring("pace")
        self.draft.pace = with_pace(self.draft.pace, _options(words))

    def _seed(self, words: list[str]) -> None:
        """seed 7 -- draws how long each spawn takes"""
        self._declaring("seed")
        self.draft.seed = int(words[0])

    def _segment(self, words: list[str]) -> None:
        """segment east policy silent_means=fence failed_share_max=0.4"""
        self._declaring("segment")
        self.draft.add_segment(words[0], _options(words[1:]))

    def _group(self, words: list[str]) -> None:
        """group g1 policy=anti-affinity max_per_host=2"""
        self._declaring("group")
        options = _options(words[1:])
        self.draft.groups[words[0]] = GroupRow(words[0], options["policy"], [], int(options.get("max_per_host", "1")))

    def _host(self, words: list[str]) -> None:
        """host h1 h2 h3 rack=r1 room=64vcpu zone=az1 has=gpu,ssd boot=40s off=0.8s cut_storage=never"""
        self._declaring("host")
        for name in _plain(words):
            self.draft.add_host(name, _options(words))

    def _vm(self, words: list[str]) -> None:
        """vm web-1 web-2 on h1 state=stopped locked group=g1 vcpus=4 local-disk zone-pinned key=value
        refused='400: vTPM' needs=gpu backend=ceph also=nfs unlisted unplaced -- also: it has a volume there, too;
        unlisted: nobody says where its disks are; unplaced: its volume is known, and not where that is"""
        self._declaring("vm")
        at = words.index("on")
        for name in words[:at]:
            self.draft.add_vm(name, words[at + 1], set(_plain(words[at + 2 :])), _options(words[at + 2 :]))

    def _engine(self, words: list[str]) -> None:
        """engine e1 e2 | engine e3 offset=100s -- without one there is e1; one named later starts then"""
        offset_s = seconds(_options(words).get("offset", "0"))
        for name in _plain(words):
            if self._world is None:
                self.draft.engines.append((name, offset_s))
            elif name in self._world.nodes and not self._world.nodes[name].life.dead:
                raise StoryError(f"engine {name} runs already: no two processes have one name")
            else:
                self._world.add_engine(name, offset_s)

    def _declaring(self, what: str) -> None:
        if self._world is not None:
            raise StoryError(f"{what} comes too late: the world runs already")

    # Time and looking.

    def _run(self, words: list[str]) -> list[str]:
        """run 60s | run 60s silently -- the latter says nothing of what happened meanwhile"""
        self.world.run(seconds(words[0]))
        new = self.world.said[self._spoken :]
        self._spoken = len(self.world.said)
        if "silently" in words:
            return []
        return spoken(new, with_engine=len(self.world.nodes) > 1)

    def _show(self, words: list[str]) -> list[str]:
        """show vms | hosts | incidents | fences | migrations | verdicts -- verdicts: as the owners have them"""
        return SHOWS[words[0]](self.world)

    def _expect(self, words: list[str]) -> None:
        """expect breach -- the story shows what happens when its BMC lies: a checker will cry, and has to"""
        if words != ["breach"]:
            raise StoryError("only a breach can be expected")
        self._breaches_expected = True

    # Faults of hosts.

    def _fault(self, fault: str) -> Callable[[list[str]], None]:
        """cut h1 h2 | unplug h1 | crash h1 | stop-compute h1 | isolate h1 | reboot h1 | restore h1"""

        def befall(words: list[str]) -> None:
            act: Callable[[str], None] = getattr(self.world.datacentre, fault.replace("-", "_"))
            for name in words:
                act(name)

        return befall

    def _hang(self, words: list[str]) -> None:
        """hang h1 | hang h1 30s"""
        self.world.datacentre.hang(words[0], seconds(words[1]) if len(words) > 1 else None)

    def _domains(self, words: list[str]) -> None:
        """domains -- from now on every engine is told once a second what each hypervisor says of its guests"""
        self.world.add_guest_words()

    def _guest(self, words: list[str]) -> None:
        """guest web-1 dies | shuts-down | panics | freezes | io-pauses | falls-silent | pauses | recovers -- of the
        first two Nova hears from its nova-compute after a while, whoever else does; guest web-1 slips-to h2 | ends-on
        h2 -- a live migration brought it there and Nova does not know; somebody ends it there"""
        if words[1] == "slips-to":
            slip(self.world.nova, words[0], words[2])
        elif words[1] == "ends-on":
            end_on(self.world.nova, words[0], words[2])
        else:
            befall(self.world.nova, words[0], words[1])

    def _hands(self, words: list[str]) -> None:
        """hands h1 gone | hangs | loses-answers | ok -- how its agent takes orders; hands web-1 in-vain -- it pauses
        again as soon as it is resumed"""
        acts = self.world.acts
        if words[1] == "in-vain":
            acts.in_vain.add(words[0])
        else:
            acts.ears[words[0]] = Ear(words[1])

    def _bmc(self, words: list[str]) -> None:
        """bmc h1 lies | dead | ok | stuck | wrong-password | other h2 | garbage | refuses | loses-answers | slow |
        blips 0.5s, which is OFF for that long | bmc h1 lies excused -- nobody can tell a host
        that is silent and reads OFF from a dead one: two writers are then no breach"""
        if words[1] == "blips":
            self.world.datacentre.hosts[words[0]].blips_until = self._lasting(words[2])
            return
        bmc = Bmc(words[1])
        self.world.datacentre.set_bmc(words[0], bmc, words[2] if bmc is Bmc.OTHER else "")
        if "excused" in words:
            self.world.checkers.excused.add(words[0])

    def _plane(self, words: list[str]) -> None:
        """plane h1 management off | plane h1 storage off 60s | plane h1 tenant on | plane r1 storage off 60s -- the
        links of one host, or of each host of a domain"""
        plane, to = words[1], words[2] == "on"
        datacentre = self.world.datacentre
        hosts = [words[0]] if words[0] in datacentre.hosts else datacentre.in_domain(words[0])
        attribute = {"management": "network", "storage": "storage", "tenant": "tenant"}[plane]

        def turn(on: bool) -> None:
            for host in hosts:
                if attribute == "storage":
                    datacentre.set_storage(host, on)
                else:
                    setattr(datacentre.hosts[host], attribute, on)

        turn(to)
        if len(words) > 3:
            self.world.agenda.after(seconds(words[3]), lambda: turn(not to))

    def _switch(self, words: list[str]) -> None:
        """switch r1 off 60s | switch r1 off 60s with-bmc | switch r1 on -- the management plane of a whole domain is
        lost, with its BMCs where it is said; the hosts live on"""
        name, datacentre = words[0], self.world.datacentre
        if words[1] == "on":
            datacentre.unsilence(name)
            return
        datacentre.silence(name, datacentre.in_domain(name), "with-bmc" in words)
        if len(words) > 2 and words[2] != "with-bmc":
            self.world.agenda.after(seconds(words[2]), lambda: datacentre.unsilence(name))

    def _wan(self, words: list[str]) -> None:
        """wan s2 off 60s | wan s2 off with-bmc | wan s2 on -- as a switch, but what is behind it sees each other, and
        nobody else on any plane"""
        self.world.datacentre.wans.add(words[0])
        self._switch(words)

    # Faults of the rest.

    def _nova(self, words: list[str]) -> None:
        """nova down 30s | heartbeats-lost 90s | error-after-effect evacuate 1 | error-before-effect evacuate 1 |
        slow 4s 60s | affinity-check off | finishes 8s late | hides h2 h3 60s | spoils 1 | moves 20s late -- finishes: a
        target that has a guest running says so that much later; hides: their cell is down, Nova lists them not; spoils:
        so many live migrations leave their server in error; moves: each takes that much longer"""
        world, fault = self.world, words[0]
        if fault == "down":
            world.nova_faults.down_until = self._lasting(words[1])
        elif fault == "heartbeats-lost":
            world.nova.heartbeats_lost_until = self._lasting(words[1])
        elif fault == "error-after-effect":
            world.nova_faults.errors_after_effect[words[1]] = int(words[2])
        elif fault == "error-before-effect":
            world.nova_faults.errors_before_effect[words[1]] = int(words[2])
        elif fault == "slow":
            world.nova_faults.slow_s = seconds(words[1])
            world.nova_faults.slow_until = self._lasting(words[2])
        elif fault == "hides":
            world.nova.hidden_until.update(dict.fromkeys(words[1:-1], self._lasting(words[-1])))
            world.nova.hidden_from.update(dict.fromkeys(words[1:-1], world.agenda.now))
        elif fault == "finishes":
            world.rebuilds.finish_s = seconds(words[1])
        elif fault == "spoils":
            world.migrations.spoils = int(words[1])
        elif fault == "moves":
            world.migrations.slow_s = seconds(words[1])
        elif fault == "affinity-check":
            world.nova.affinity_check_off = words[1] == "off"
        else:
            raise StoryError(f"Nova knows no fault {fault}")

    def _store(self, words: list[str]) -> None:
        """store down 20s | store cut-off e1 20s | store deaf e1 20s | store late e1 8s -- deaf: its commits land, the
        answers are lost; late: so is the answer to its next decision, and that lands so much later"""
        faults = self.world.store_faults
        if words[0] == "down":
            faults.down_until = self._lasting(words[1])
        elif words[0] == "late":
            faults.late_s[words[1]] = seconds(words[2])
        elif words[0] == "deaf":
            faults.deaf[words[1]] = self._lasting(words[2])
        else:
            faults.cut_off[words[1]] = self._lasting(words[2])

    def _ring(self, words: list[str]) -> None:
        """ring down 20s | ring apart e1 20s -- nobody sees it; or one engine is alone on its side of it"""
        ring = self.world.ring
        if words[0] == "down":
            ring.unseen_until = self._lasting(words[1])
        else:
            ring.apart[words[1]] = self._lasting(words[2])

    def _nudges(self, words: list[str]) -> None:
        """nudges lose 50% 60s | nudges double 60s | nudges shuffle 60s -- notifications that are on their way"""
        queue = self.world.nudges
        if words[0] == "lose":
            queue.loses, queue.loses_until = float(words[1].rstrip("%")) / 100, self._lasting(words[2])
        elif words[0] == "double":
            queue.doubles_until = self._lasting(words[1])
        else:
            queue.shuffles_until = self._lasting(words[1])

    def _lasting(self, text: str) -> float:
        """When a fault that lasts this long ends. Until then the world is not at rest."""
        until = self.world.agenda.now + seconds(text)
        self.world.agenda.at(until, lambda: None)
        return until

    def _kill(self, words: list[str]) -> None:
        """kill engine e1"""
        self.world.kill_engine(words[1])

    def _freeze(self, words: list[str]) -> None:
        """freeze engine e1 20s | freeze engine e1 20s in evacuate | freeze engine e1 20s before evacuate -- in:
        between the
        check and the send; before: between what was written and the check"""
        if "before" in words:
            self.world.nodes[words[1]].life.freeze_before = (words[words.index("before") + 1], seconds(words[2]))
        elif "in" in words:
            self.world.nodes[words[1]].life.freeze_in_act = (words[words.index("in") + 1], seconds(words[2]))
        else:
            self.world.freeze_engine(words[1], seconds(words[2]))

    def _forbid(self, words: list[str]) -> None:
        """forbid h1 it is alive -- a power_off of h1 is from here on a breach"""
        self.world.checkers.off_limits[words[0]] = " ".join(words[1:])

    # People.

    def _heal(self, words: list[str]) -> None:
        """heal -- whatever was broken is repaired: hosts, BMCs, Nova, store; where no engine lives a new one starts"""
        self.world.heal()

    def _user(self, words: list[str]) -> None:
        """user stops web-1 | starts | reboots | pauses | resizes | snapshots | migrates | opts-out | deletes -- as far
        as Nova and its host let them"""
        users.act(self.world.nova, words[0], words[1])

    def _nudge(self, words: list[str]) -> None:
        """nudge h1 service.update"""
        self.world.nudges.put(Nudge(words[0], "", " ".join(words[1:])))

    def _order(self, words: list[str]) -> None:
        """order pause east 60s new switches | order resume east | order retry h1 | order close h1 | order confirm_down
        h1 seen on the spot | order retry
        h1/libvirtd | order retry stuck -- the last for every incident of a host that is STUCK"""
        order(self.world, words)


def _options(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _plain(words: Sequence[str]) -> list[str]:
    return [word for word in words if "=" not in word]
