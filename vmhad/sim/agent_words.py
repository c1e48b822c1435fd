# SPDX-License-Identifier: Apache-2.0
"""The words of stories about agents, the bus that carries their beats, and the storage that they beat on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vmhad.kernel.beat import Plane
from vmhad.sim.agents import Agents
from vmhad.sim.draft import StoryError, seconds

if TYPE_CHECKING:
    from vmhad.sim.directives import Stage


class AgentWords:
    """One method a directive, as in directives.py."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.directives: dict[str, Callable[[list[str]], Sequence[str] | None]] = {
            "agents": self._agents,
            "agent": self._agent,
            "bus": self._bus,
            "libvirtd": self._libvirtd,
            "service": self._service,
            "dump": self._dump,
        }

    @property
    def _there(self) -> Agents:
        if self._stage.world.agents is None:
            raise StoryError("no host has an agent: the story does not say agents")
        return self._stage.world.agents

    def _agents(self, words: list[str]) -> None:
        """agents | agents storage=none planes=management | agents storage=site watchers=2 self-fence=40s -- every host
        has one; self-fence: a watchdog that has reset it when its record stood still for so long;
        storage: the shared storage that they have a record on (ceph), none, or one a site; planes: those they watch"""
        if self._stage.is_built:
            raise StoryError("agents come too late: the world runs already")
        options = dict(word.split("=", 1) for word in words)
        storage = options.get("storage", "ceph")
        planes = tuple(Plane(name) for name in options["planes"].split(",")) if "planes" in options else tuple(Plane)
        self._stage.draft.self_fence_s = seconds(options.get("self-fence", "0"))
        self._stage.draft.agents = "" if storage == "none" else storage, int(options.get("watchers", "4")), planes

    def _agent(self, words: list[str]) -> None:
        """agent h1 stops | agent h1 starts | agent h1 leaves 10s | agent h1 freezes 5s | agent h1 wrong-clock 60s |
        agent h1 late 3s 60s | agent h1 unheard 60s | agent h1 complains fan 3 stands still -- leaves: it is upgraded,
        says so, and is back then; wrong-clock: its beats are outside the replay window; late: they wait in the broker
        for so long; unheard: they do not reach it; complains: its hardware does, of nothing where nothing is said"""
        name, does = words[0], words[1]
        agents = self._there
        agent = agents.agents[name]
        if does == "stops":
            agents.stop(name)
        elif does == "starts":
            agents.start(name)
        elif does == "leaves":
            agents.leave(name)
            self._after(words[2:], lambda: agents.start(name))
        elif does == "freezes":
            agents.freeze(name, True)
            self._after(words[2:], lambda: agents.freeze(name, False))
        elif does in ("wrong-clock", "late", "unheard"):
            agents.set_right(name)
            agent.refused = "its clock is 300 s ahead" if does == "wrong-clock" else ""
            agent.late_s = seconds(words[2]) if does == "late" else 0.0
            agent.unheard = does == "unheard"
            self._after(words[3:] if does == "late" else words[2:], lambda: agents.set_right(name))
        elif does == "complains":
            agents.set_complaints(name, (" ".join(words[2:]),) if words[2:] else ())
        else:
            raise StoryError(f"an agent does not {does}")

    def _bus(self, words: list[str]) -> None:
        """bus down 20s -- no beat is heard, and none of that time ever will be"""
        self._there.set_bus(True)
        self._after(words[1:], lambda: self._there.set_bus(False))

    def _libvirtd(self, words: list[str]) -> None:
        """libvirtd h1 stops | libvirtd h1 starts -- as service h1 libvirtd dies, and starts"""
        self._service([words[0], "libvirtd", "dies" if words[1] == "stops" else words[1]])

    def _service(self, words: list[str]) -> None:
        """service h1 nova-compute dies | dies 5s | dies again | hangs | hangs again | stops | starts | is-masked |
        is-gone | is-mended -- dies 5s: its systemd starts it again after that; again: whenever it is started; stops:
        somebody stopped it; is-mended: it dies and hangs no more, and is not started by that"""
        name, service, does = words[:3]
        agents, services = self._there, self._stage.world.datacentre.services
        if words[3:] == ["again"]:
            services.doomed[name, service] = does
        if does == "dies":
            later = [seconds(word) for word in words[3:] if word != "again"]
            services.dies(name, service, *later)
        elif does == "hangs" and service == "nova-compute":
            services.hangs(name)
        elif does in ("stops", "starts"):
            getattr(services, does)(name, service)
        elif does in ("is-masked", "is-gone"):
            getattr(services, does.replace("-", "_"))(name, service)
        elif does == "is-mended":
            services.mend(name)
        else:
            raise StoryError(f"a service does not {does}, or not {service}")
        agents.tell(name)

    def _dump(self, words: list[str]) -> None:
        """dump h1 40s | dump h1 40s forged -- the crash kernel of a host that crashed is up, answers on the management
        plane, and says for so long that it writes a dump; forged: somebody else says so of it"""
        name = words[0]
        self._there.dump(name, forged=words[2:] == ["forged"])
        self._after(words[1:2], lambda: self._there.end_dump(name))

    def _after(self, words: Sequence[str], call: Callable[[], None]) -> None:
        """For ever, where no time is said."""
        if words:
            self._stage.world.agenda.after(seconds(words[0]), call)
