# SPDX-License-Identifier: Apache-2.0
"""The cases of the VMs that fail alone, of one segment in one tick."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from vmhad.engine.book import Book
from vmhad.engine.evidence_store import Judged
from vmhad.engine.guests import Guests
from vmhad.guards.hosts.lift import was_lifted
from vmhad.guards.instances.fence import was_left_by_policy
from vmhad.guards.instances.judge import Guest, guest_of
from vmhad.journal import keys
from vmhad.kernel.case import VmCase
from vmhad.kernel.cloud import Server, Standing
from vmhad.kernel.incident import Incident, State, opened_of_vm
from vmhad.kernel.policy import OnIoError, Policy
from vmhad.kernel.topology import Segment
from vmhad.kernel.vm_resolve import policy_of

# What an incident is opened on, and decided from at once.
ASKED_LATELY_S = 15.0


@dataclass
class VmCases:
    """hosts: the open incidents of hosts, as they are after this tick's decisions. contested: as Cases has it. willing:
    the segment's policy, with every failure in it that it leaves alone and the policy of some VM does not."""

    segment: Segment
    policy: Policy
    book: Book
    judged: Judged
    guests: Guests
    contested: Collection[str]
    now: float
    willing: Policy
    hosts: Mapping[str, Incident] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ill = tuple(self.guests.ill(self.segment, self.willing, self.now))
        self.under_way = {one.id for one in self.book.open_of_vms() if one.state is State.RECOVERING}

    def fresh(self, alone: Collection[Server]) -> Iterator[Incident]:
        """New incidents. alone: those that Nova found gone one by one. What its hypervisor says failed is asked of Nova
        before anything is thought of it."""
        known = {one.vm for one in self.book.open_of_vms()}
        seen = [(one.id, one.host, "Nova found its guest gone and switched it off") for one in alone]
        seen += [(one.server, one.host, one.because) for one in self.ill]
        for server_id, host, because in seen:
            standing = self._lately(server_id)
            if standing is None or not self._is_free(server_id, host, known):
                continue
            if standing.server is None or self._was_left(standing):
                self._let(server_id, host)
            else:
                known.add(server_id)
                yield opened_of_vm(replace(standing.server, host=host), self.segment.name, self.now, because)

    def unasked(self, alone: Collection[Server]) -> tuple[str, ...]:
        """Those that Nova has to be asked about first."""
        known = {one.vm for one in self.book.open_of_vms()}
        seen = [*((one.id, one.host) for one in alone), *((one.server, one.host) for one in self.ill)]
        return tuple(one for one, host in seen if self._lately(one) is None and self._is_free(one, host, known))

    def spared(self) -> frozenset[str]:
        """Of the VMs that Nova found gone, those that its hypervisor says were shut down from inside, which is their
        user's wish, and those that are not protected."""
        return frozenset(
            server.id
            for host, fallen in self.book.fallen.items()
            for server in fallen.servers
            if server.why_left(self.policy.opt_out_key) or self._was_shut_down(server.id, host)
        )

    def _was_shut_down(self, server_id: str, host: str) -> bool:
        domain, _ = self.guests.of(server_id, host, self.now, self.policy.channel_stale_s)
        return guest_of(domain) is Guest.SHUT_DOWN

    def _lately(self, server_id: str) -> Standing | None:
        standing = self.book.standings.get(server_id)
        return standing if standing is not None and standing.at >= self.now - ASKED_LATELY_S else None

    def _was_left(self, standing: Standing) -> bool:
        """Nothing was done to it since it was found to be none of ours."""
        found = self.book.left.get(standing.id)
        return found is not None and found == _newest(standing)

    def _let(self, server_id: str, host: str) -> None:
        self.book.forget_fallen(host, server_id)
        self.guests.let(server_id, host)

    def _is_free(self, server_id: str, host: str, known: Collection[str]) -> bool:
        if server_id in known or keys.open_vm(server_id) in self.contested or self._owner(host):
            return False
        verdict = self.judged.verdicts.get(host)
        return verdict is not None and verdict.serves

    def _owner(self, host: str) -> str:
        return owner(host, self.hosts, self.judged, self.book)

    def of(self, incident: Incident) -> VmCase:
        now, stale_s = self.now, self.policy.channel_stale_s
        is_new = incident.state in (State.SUSPECTED, State.FENCING)
        domain, domain_at = self.guests.of(incident.vm, incident.host, now, stale_s)
        standing = self.book.standings.get(incident.vm)
        server = standing.server if standing is not None else None
        policy = policy_of(self.policy, server.settings) if server is not None else self.policy
        return VmCase(
            incident=incident,
            steps=self.book.steps_of(incident),
            policy=policy,
            verdict=self.judged.verdicts[incident.host],
            owner=self._owner(incident.host),
            standing=standing,
            domain=domain,
            domain_at=domain_at,
            beside=self.guests.beside(incident.vm, incident.host, now, stale_s),
            storage_down=self.guests.storage_down(incident.host, now, stale_s),
            starts=self.book.starts(incident.vm, now, policy.instance_window_s) if is_new else 0,
            resumes=self._resumes(incident.vm, policy),
            under_way=len(self.under_way - {incident.id}),
            hold=self.book.pause(incident.host, now) if is_new else "",
            orders=self.book.orders_for(incident),
        )

    def _resumes(self, server_id: str, policy: Policy) -> int:
        if policy.on_io_error is not OnIoError.RESUME:
            return 0
        return self.book.resumes(server_id, self.now, policy.instance_window_s)

    def take(self, incident: Incident) -> None:
        """What was decided of one is seen by those decided after it in the same tick."""
        (self.under_way.add if incident.state is State.RECOVERING else self.under_way.discard)(incident.id)
        if not incident.is_open:
            self._ended(incident)

    def _ended(self, incident: Incident) -> None:
        """What was found to be none of ours is not asked again while it stays so; what its host's incident has now is
        for that to start."""
        standing = self.book.standings.pop(incident.vm, None)
        if self._owner(incident.host):
            return
        self.book.forget_fallen(incident.host, incident.vm)
        if incident.state is State.DISMISSED and standing is not None:
            self.book.left[incident.vm] = _newest(standing)
            self.book.left_by_policy.pop(incident.vm, None)
            if standing.server is not None and was_left_by_policy(incident.because, standing.server):
                self.book.left_by_policy[incident.vm] = standing.server
            self.guests.let(incident.vm, incident.host)


def owner(host: str, hosts: Mapping[str, Incident], judged: Judged, book: Book) -> str:
    """'' or the open incident of the host, which has what fails there. One that is STUCK on a host which was taken
    back, and serves, has the VMs that it names, and those that Nova found gone: of all others it sees nothing, and
    nothing of its services."""
    mine = next((one for one in hosts.values() if one.host == host and one.is_open and one.is_of_host), None)
    if mine is None:
        return ""
    verdict = judged.verdicts.get(host)
    is_back = mine.state is State.STUCK and was_lifted(mine, book.steps_of(mine))
    return "" if is_back and verdict is not None and verdict.serves else mine.id


def _newest(standing: Standing) -> str:
    return standing.actions[0].id if standing.actions else ""
