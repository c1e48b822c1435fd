# SPDX-License-Identifier: Apache-2.0
"""What the users of VMs do to them, through the same API as everybody."""

from __future__ import annotations

from vmhad.kernel.cloud import ServerState
from vmhad.sim.nova import LIVE, SimNova
from vmhad.sim.records import ServerRow

UPLOADING = "image_uploading"
SNAPSHOT_S = 200.0


def act(nova: SimNova, wish: str, server_id: str) -> None:
    """stops, starts, reboots, pauses, resizes, snapshots, migrates, opts out or deletes, as far as the API lets them: a
    busy VM is refused, what is gone is not found. A resize is under way for ever, a snapshot for SNAPSHOT_S."""
    row = nova.servers.get(server_id)
    if row is None or (wish != "deletes" and (row.task_state or not nova.datacentre.hosts[row.host].serves)):
        return
    if wish == "deletes":
        nova.delete(server_id)
    elif wish == "opts-out":
        row.metadata = {**row.metadata, "vmhad": "false"}
    elif row.state in (ServerState.STOPPED, ServerState.ACTIVE):
        nova.wished[server_id] = ServerState.STOPPED if wish == "stops" else ServerState.ACTIVE
        nova.wished_at[server_id] = nova.agenda.now
        if wish == "stops":
            nova.stopped_by_nova.discard(server_id)
            nova.acted(server_id, "stop")
            nova.stopped(row)
        elif wish == "pauses":
            nova.taken.add(server_id)
            nova.acted(server_id, "pause")
            row.state = ServerState.PAUSED
        elif wish == "migrates":
            nova.acted(server_id, LIVE)
            _migrated(nova, row)
        elif wish == "resizes":
            nova.taken.add(server_id)
            nova.acted(server_id, "resize")
            row.task_state = "resize_prep"
        elif wish == "snapshots":
            nova.acted(server_id, "createImage")
            row.task_state = UPLOADING
            nova.agenda.after(SNAPSHOT_S, lambda: _uploaded(row))
        elif wish == "reboots":
            nova.reboot(server_id)
        elif row.state is ServerState.STOPPED:
            nova.start(server_id)


def _uploaded(row: ServerRow) -> None:
    if row.task_state == UPLOADING:
        row.task_state = ""


def _migrated(nova: SimNova, row: ServerRow) -> None:
    """At once, to the first other host that serves."""
    guests, was_on = nova.datacentre.vms[row.id].guests, row.host
    row.host = next(one for one in sorted(nova.services) if one != was_on and nova.datacentre.hosts[one].serves)
    runs = was_on in guests
    guests.discard(was_on)
    if runs:
        guests.add(row.host)
    for held in (nova.allocations, nova.copies):
        held.discard((row.id, was_on))
        held.add((row.id, row.host))
