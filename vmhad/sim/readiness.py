# SPDX-License-Identifier: Apache-2.0
"""ports.Readiness in virtual time: one engine's look at what the simulated VMs are there for."""

from __future__ import annotations

from vmhad.kernel.cloud import ServerState
from vmhad.kernel.gate import Gate, Kind, Ready
from vmhad.sim.clock import SimClock
from vmhad.sim.compute import READ_S, NovaFaults
from vmhad.sim.life import Life
from vmhad.sim.nova import SimNova

PROBE_S = 0.02
PROBE_LIMIT_S = 3.0


class SimReadiness:
    """timeout_s: how long Nova is waited for; a probe of the VM itself is given up after PROBE_LIMIT_S."""

    def __init__(self, life: Life, clock: SimClock, nova: SimNova, faults: NovaFaults, timeout_s: float) -> None:
        self._life, self._clock, self._nova, self._faults, self._timeout_s = life, clock, nova, faults, timeout_s

    def read(self, server_id: str, gate: Gate) -> tuple[Ready, str]:
        self._life.count_call()
        if gate.kind is Kind.AGENT:
            return Ready.UNKNOWN, "beats tell of guest agents"
        if not gate.address:
            if not self._nova_answers():
                return Ready.UNKNOWN, "Nova did not answer"
            if server_id not in self._nova.servers:
                return Ready.READY, "there is no such VM any more"
        return self._probe(server_id, gate)

    def _nova_answers(self) -> bool:
        now = self._nova.agenda.now
        takes_s = self._timeout_s if now < self._faults.down_until else READ_S + self._faults.late_s(now)
        self._clock.spend(min(takes_s, self._timeout_s))
        return takes_s < self._timeout_s

    def _probe(self, server_id: str, gate: Gate) -> tuple[Ready, str]:
        """Ports have their word from Neutron; who asks a VM on a host that hangs waits in vain."""
        now, datacentre = self._nova.agenda.now, self._nova.datacentre
        vm, row = datacentre.vms.get(server_id), self._nova.servers.get(server_id)
        hosts = [datacentre.hosts[name] for name in sorted(vm.guests)] if vm is not None else []
        answers = any(host.powered and host.alive and not host.hung for host in hosts)
        is_silent = vm is None or now < vm.service.silent_until
        if is_silent or not (answers or gate.kind is Kind.PORT):
            self._clock.spend(PROBE_LIMIT_S)
            return Ready.UNKNOWN, f"{gate} does not answer"
        self._clock.spend(PROBE_S)
        is_off = row is None or row.state is not ServerState.ACTIVE
        if vm is None or is_off or not vm.service.is_ready(now):
            return Ready.NOT_READY, f"{gate} is refused" if gate.kind is not Kind.PORT else "a port of it is DOWN"
        return Ready.READY, f"{gate} answers"
