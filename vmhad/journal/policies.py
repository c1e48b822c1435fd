# SPDX-License-Identifier: Apache-2.0
"""The policies of VMs in the journal: one value, so that whoever reads it has all of one version.

Operators write it, engines read it. Each change is a compare-and-swap of the whole: of two operators who looked at one
version the second is told to look again.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmhad.journal import codec, keys
from vmhad.journal.change import PART_BYTES_MAX, Contended
from vmhad.kernel.vm_policy import VmPolicies, VmPolicy, ties
from vmhad.ports import Compare, Conflict, Refused, Store


class PolicyShelf:
    """Belongs to one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest = (-1, VmPolicies())

    def newest(self) -> VmPolicies:
        """Cheap while nothing changes. Raises Unanswered, JournalUnreadable."""
        revision = self._store.revision(keys.VM_POLICIES)
        if revision != self._newest[0]:
            self._newest = (revision, self._read()[1])
        return self._newest[1]

    def replace(self, looked_at: int, policies: Iterable[VmPolicy]) -> VmPolicies:
        """All of them by these. looked_at: the version that they were made from.

        Raises Contended where another version is there by now; Refused, with a sentence for each, where some are a tie,
        or where they are too many for one value; Unanswered, after which it may have landed.
        """
        new = VmPolicies(looked_at + 1, tuple(sorted(policies, key=lambda one: one.name)))
        if found := list(ties(new.policies)):
            raise Refused("; ".join(found))
        value = codec.encode(new)
        if len(value) > PART_BYTES_MAX:
            raise Refused(f"{len(new.policies)} policies take {len(value)} bytes, more than {PART_BYTES_MAX}")
        raw, there = self._read()
        if there.version == looked_at:
            try:
                self._store.commit([Compare(keys.vm_policies(), raw)], {keys.vm_policies(): value})
                return new
            except Conflict:
                there = self._read()[1]
        raise Contended(
            f"the policies are at version {there.version} now, and this was made from version {looked_at}: look again"
        )

    def _read(self) -> tuple[bytes | None, VmPolicies]:
        key = keys.vm_policies()
        raw = self._store.get(key)
        return raw, VmPolicies() if raw is None else codec.decode(VmPolicies, key, raw)


def known(there: VmPolicies, name: str) -> VmPolicy:
    """Raises Refused."""
    if (found := there.named(name)) is None:
        names = ", ".join(one.name for one in there.policies) or "none"
        raise Refused(f"there is no policy {name!r}; there are: {names}")
    return found


# All of them with one change, as replace takes them. Each raises Refused.


def created(there: VmPolicies, policy: VmPolicy) -> tuple[VmPolicy, ...]:
    if there.named(policy.name) is not None:
        raise Refused(f"there is a policy {policy.name!r} already")
    return there.with_one(policy)


def changed(there: VmPolicies, policy: VmPolicy) -> tuple[VmPolicy, ...]:
    """This one in place of the one of its name."""
    known(there, policy.name)
    return there.with_one(policy)


def deleted(there: VmPolicies, name: str) -> tuple[VmPolicy, ...]:
    known(there, name)
    return there.without(name)
