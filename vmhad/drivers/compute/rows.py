# SPDX-License-Identifier: Apache-2.0
"""Nova's JSON rows as the core's values. Pure; a row that cannot be read raises KeyError, TypeError or ValueError.

A server in a cell whose database is down has few keys: it becomes state OTHER on no host, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vmhad.kernel.cloud import OVER, Action, ComputeService, Group, Migration, Server, ServerState
from vmhad.kernel.topology import OF_NOVA, UNPLACED

STATES = frozenset(state.value for state in ServerState)


def server_of(row: Mapping[str, Any]) -> Server:
    """A row of GET /servers/detail or /servers/{id} at 2.96.

    volume_backed only where Nova says so: no answer counts as a disk that could be lost.
    disk_gib: what Placement is asked for, so without the root disk of a volume-backed server.
    """
    state = row.get("OS-EXT-STS:vm_state")
    flavor = row.get("flavor") or {}
    volume_backed = "image" in row and not row["image"]
    pinned = row.get("pinned_availability_zone")
    return Server(
        id=_text(row["id"]),
        name=str(row.get("name") or ""),
        host=str(row.get("OS-EXT-SRV-ATTR:host") or ""),
        state=ServerState(state) if state in STATES else ServerState.OTHER,
        task_state=str(row.get("OS-EXT-STS:task_state") or ""),
        locked=bool(row.get("locked", False)),
        volume_backed=volume_backed,
        vcpus=int(flavor.get("vcpus", 1)),
        ram_mib=int(flavor.get("ram", 0)),
        disk_gib=_disk_gib(flavor, volume_backed),
        zone=str(pinned or row.get("OS-EXT-AZ:availability_zone") or ""),
        zone_pinned=bool(pinned),
        metadata={str(key): str(value) for key, value in (row.get("metadata") or {}).items()},
        fault=str((row.get("fault") or {}).get("message") or ""),
        updated_at=str(row.get("updated") or ""),
        disks=_disks(row, flavor, volume_backed),
        project=str(row.get("tenant_id") or ""),
        flavor=str(flavor.get("original_name") or ""),
        image=str((row.get("image") or {}).get("id") or ""),
        tags=tuple(sorted(str(tag) for tag in row.get("tags") or ())),
    )


def _disks(row: Mapping[str, Any], flavor: Mapping[str, Any], volume_backed: bool) -> tuple[str, ...]:
    """Every server has a root disk; where it is no volume, or more is kept beside it, the computes keep that."""
    volumes = sorted(UNPLACED + _text(one["id"]) for one in row.get("os-extended-volumes:volumes_attached") or ())
    kept = not volume_backed or _disk_gib(flavor, volume_backed) > 0
    return (*((OF_NOVA,) if kept else ()), *volumes)


def _disk_gib(flavor: Mapping[str, Any], volume_backed: bool) -> int:
    root = 0 if volume_backed else int(flavor.get("disk", 0))
    swap_mib = int(flavor.get("swap") or 0)
    return root + int(flavor.get("OS-FLV-EXT-DATA:ephemeral") or flavor.get("ephemeral") or 0) + -(-swap_mib // 1024)


def service_of(row: Mapping[str, Any]) -> ComputeService | None:
    """A row of GET /os-services at 2.69; None for one whose cell does not answer (status UNKNOWN, no state)."""
    if "state" not in row:
        return None
    return ComputeService(
        host=_text(row["host"]),
        up=row["state"] == "up",
        enabled=row["status"] == "enabled",
        disabled_reason=str(row.get("disabled_reason") or ""),
        forced_down=bool(row["forced_down"]),
        updated_at=str(row.get("updated_at") or ""),
    )


def migration_of(row: Mapping[str, Any]) -> Migration:
    """A row of GET /os-migrations at 2.59 or later."""
    return Migration(
        id=_text(row["uuid"]),
        server=_text(row["instance_uuid"]),
        kind=str(row.get("migration_type") or ""),
        status=_text(row["status"]),
        source=str(row.get("source_compute") or ""),
        target=str(row.get("dest_compute") or ""),
        created_at=_text(row["created_at"]),
        updated_at=str(row.get("updated_at") or ""),
    )


def action_of(row: Mapping[str, Any]) -> Action:
    """A row of GET /servers/{id}/os-instance-actions. What Nova does by itself has no user."""
    return Action(id=_text(row["request_id"]), kind=_text(row["action"]), by_user=bool(row.get("user_id")))


def age_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """Sorts migration rows by age: created_at has whole seconds only, so Nova's row number decides between equals."""
    return _text(row["created_at"]), int(row["id"])


def group_of(row: Mapping[str, Any]) -> Group:
    """A row of GET /os-server-groups at 2.64 or later."""
    return Group(
        id=_text(row["id"]),
        policy=str(row.get("policy") or ""),
        members=tuple(str(member) for member in row.get("members") or ()),
        max_per_host=int((row.get("rules") or {}).get("max_server_per_host") or 1),
        name=str(row.get("name") or ""),
    )


def is_unfinished(migration: Migration) -> bool:
    return migration.status not in OVER


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"a text was expected, not {value!r}")
    return value
