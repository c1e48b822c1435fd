# SPDX-License-Identifier: Apache-2.0
"""Failure domains for anti-affinity groups: another rack, power feed or room, as policy says (spread_over).

Rule kept: no member goes into a domain that holds another one while a domain that holds none has room for it; it waits
there for its turn, too. Where no such domain is left it is recovered all the same: this prefers, and never refuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmhad.guards.hosts.board import Board
from vmhad.kernel.cloud import Group

FREE, UNKNOWN, HELD = range(3)
APART = ("anti-affinity", "soft-anti-affinity")


class Domains:
    """How the failure domain of a host suits one server: FREE holds no other member of its groups, HELD holds one, and
    of an UNKNOWN one nobody says which it is. A member on a host whose VMs are all to go elsewhere holds none."""

    def __init__(self, server_id: str, groups: Sequence[Group], at: Board) -> None:
        apart = [group for group in groups if group.policy in APART] if at.case.policy.spread_over else []
        members = {one for group in apart for one in group.members} - {server_id}
        self.count = bool(members)
        if self.count:
            self._of = at.domains
            leaving = at.case.busy_hosts | {at.case.incident.host, ""}
            self._homes = {host for one in members if (host := at.host_of(one)) not in leaving}
            self._held = {self._of.get(host, "") for host in self._homes} - {""}

    def suit(self, host: str) -> int:
        """Less is better; FREE for all where nothing is to be kept apart."""
        if not self.count:
            return FREE
        if domain := self._of.get(host, ""):
            return HELD if domain in self._held else FREE
        return HELD if host in self._homes else UNKNOWN
