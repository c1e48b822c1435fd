# SPDX-License-Identifier: Apache-2.0
"""What the policies of VMs say of a simulated VM, for the rules that hold it against what was done to that VM."""

from __future__ import annotations

from vmhad.journal import codec, keys
from vmhad.kernel.vm_policy import NOTHING_SAID, VmPolicies, VmSettings
from vmhad.kernel.vm_resolve import Surroundings, settings_of
from vmhad.ports import Store
from vmhad.sim.nova import SimNova


def settings_in(nova: SimNova, store: Store, server_id: str) -> VmSettings:
    """As the journal has them now."""
    raw, server = store.get(keys.vm_policies()), nova.server(server_id)
    if raw is None or server is None:
        return NOTHING_SAID
    held = codec.decode(VmPolicies, keys.vm_policies(), raw)
    groups = {member: (row.id,) for row in nova.groups.values() for member in row.members}
    return settings_of(held.ranked, server, Surroundings(groups=groups))
