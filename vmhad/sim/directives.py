# SPDX-License-Identifier: Apache-2.0
"""The language of stories, one method a directive; each docstring shows how it is written.

Declaring: pace, segment, group, host, vm, engine. The first directive that lets something happen builds the world.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from vmhad.ports import Nudge
from vmhad.sim.datacentre import Bmc
from vmhad.sim.draft import Draft, StoryError, seconds, with_pace
from vmhad.sim.inbox import order
from vmhad.sim.nova import GroupRow
from vmhad.sim.show import SHOWS, spoken
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
            "nudge": self._nudge,
            "order": self._order,
            "expect": self._expect,
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

    def unexpected_breaches(self) -> tuple[str, ...]:
        if self._world is None or self._breaches_expected:
            return ()
        return tuple(self._world.checkers.breaches)

    # Declaring.

    def _pace(self, words: list[str]) -> None:
        """pace nova_poll_s=1s power_poll_s=2s call_timeout_s=5s bmc_timeout_s=3s lease_s=15s"""
        self._declaring("pace")
        self.draft.pace = with_pace(self.draft.pace, _options(words))

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
        """host h1 h2 h3 rack=r1 room=64vcpu zone=az1 has=gpu,ssd boot=40s"""
        self._declaring("host")
        for name in _plain(words):
            self.draft.add_host(name, _options(words))

    def _vm(self, words: list[str]) -> None:
        """vm web-1 web-2 on h1 state=stopped locked group=g1 vcpus=4 local-disk zone-pinned key=value
        refused='400: vTPM' needs=gpu"""
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
        """show vms | hosts | incidents | fences | migrations"""
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

    def _bmc(self, words: list[str]) -> None:
        """bmc h1 lies | dead | ok | stuck | wrong-password | other h2"""
        host = self.world.datacentre.hosts[words[0]]
        host.bmc = Bmc(words[1])
        host.bmc_of = words[2] if host.bmc is Bmc.OTHER else ""
        if host.bmc in (Bmc.LIES, Bmc.OTHER):
            self.world.datacentre.bmc_ever_lied = True

    # Faults of the rest.

    def _nova(self, words: list[str]) -> None:
        """nova down 30s | heartbeats-lost 90s | error-after-effect evacuate 1 | error-before-effect evacuate 1 |
        affinity-check off"""
        world, fault = self.world, words[0]
        if fault == "down":
            world.nova_faults.down_until = world.agenda.now + seconds(words[1])
        elif fault == "heartbeats-lost":
            world.nova.heartbeats_lost_until = world.agenda.now + seconds(words[1])
        elif fault == "error-after-effect":
            world.nova_faults.errors_after_effect[words[1]] = int(words[2])
        elif fault == "error-before-effect":
            world.nova_faults.errors_before_effect[words[1]] = int(words[2])
        elif fault == "affinity-check":
            world.nova.affinity_check_off = words[1] == "off"
        else:
            raise StoryError(f"Nova knows no fault {fault}")

    def _store(self, words: list[str]) -> None:
        """store down 20s | store cut-off e1 20s"""
        faults, now = self.world.store_faults, self.world.agenda.now
        if words[0] == "down":
            faults.down_until = now + seconds(words[1])
        else:
            faults.cut_off[words[1]] = now + seconds(words[2])

    def _kill(self, words: list[str]) -> None:
        """kill engine e1"""
        self.world.kill_engine(words[1])

    def _freeze(self, words: list[str]) -> None:
        """freeze engine e1 20s | freeze engine e1 20s in evacuate -- the latter between the check and the send"""
        if "in" in words:
            self.world.nodes[words[1]].life.freeze_in_act = (words[words.index("in") + 1], seconds(words[2]))
        else:
            self.world.freeze_engine(words[1], seconds(words[2]))

    def _forbid(self, words: list[str]) -> None:
        """forbid h1 it is alive -- a power_off of h1 is from here on a breach"""
        self.world.checkers.off_limits[words[0]] = " ".join(words[1:])

    # People.

    def _user(self, words: list[str]) -> None:
        """user stops web-1 | user deletes web-1"""
        world, vm = self.world, words[1]
        if words[0] == "stops":
            world.nova.stopped(world.nova.server_row(vm))
        else:
            world.nova.delete(vm)

    def _nudge(self, words: list[str]) -> None:
        """nudge h1 service.update"""
        self.world.nudges.put(Nudge(words[0], "", " ".join(words[1:])))

    def _order(self, words: list[str]) -> None:
        """order pause east 60s new switches | order resume east | order retry h1 | order close h1"""
        order(self.world, words)


def _options(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _plain(words: Sequence[str]) -> list[str]:
    return [word for word in words if "=" not in word]
