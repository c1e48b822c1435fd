# SPDX-License-Identifier: Apache-2.0
"""The storages of the segments file: which can cut off which hosts, and which disks of VMs each of them holds.

Rules kept: a disk is on one storage, so what two storages claim to hold for one host ends the start; and one address is
one host's, for whoever is cut off by it loses its disks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vmhad.conf.settings import StorageAccess
from vmhad.conf.yaml_file import Field
from vmhad.kernel.beat import Plane
from vmhad.kernel.topology import OF_CINDER, OF_NOVA, VOLUMES, Backend, Segment

FIELDS = (["name", "driver", "holds"], ["settings", "clients"])


def storages_of(entry: Field, segments: Sequence[Segment]) -> tuple[StorageAccess, ...]:
    """Raises ConfigError."""
    planes = {host.name: host.planes for segment in segments for host in segment.hosts}
    found: dict[str, StorageAccess] = {}
    for row in entry.items():
        fields = row.mapping(*FIELDS)
        name = fields["name"].text()
        if name in found or "/" in name or "," in name:
            raise fields["name"].wrong("must be a name of its own, without «/» and «,»")
        are_named = "clients" in fields
        clients = _clients(fields, planes) if are_named else _by_plane(row, planes)
        _refuse_shared_clients(row, clients)
        holds, driver = _holds(fields["holds"]), fields["driver"].text()
        storage = StorageAccess(name, driver, holds, _plain(fields), clients, are_named)
        _refuse_held_twice(row, storage, found.values())
        found[name] = storage
    return tuple(found.values())


def with_backends(segment: Segment, storages: Iterable[StorageAccess]) -> Segment:
    """The segment with all storages, and with those of their clients that are its hosts: what one holds that knows none
    of them is held by no other."""

    def backend(one: StorageAccess) -> Backend:
        clients = frozenset(one.clients) & set(segment.names)
        return Backend(one.name, one.holds, clients, clients if one.are_named else frozenset())

    return replace(segment, backends=tuple(map(backend, storages)))


def names_backends(storages: Iterable[StorageAccess]) -> bool:
    """Whether it has to be known of a volume on which backend of Cinder it is."""
    return any(held.startswith(OF_CINDER) for one in storages for held in one.holds)


def storage_rows(storages: Iterable[StorageAccess]) -> list[dict[str, Any]]:
    """As the file has them, for an export."""
    rows = []
    for one in storages:
        row: dict[str, Any] = {"name": one.name, "driver": one.driver, "holds": sorted(one.holds)}
        row |= {"settings": dict(one.settings)} if one.settings else {}
        named = {host: list(known) for host, known in sorted(one.clients.items())} if one.are_named else {}
        rows.append(row | ({"clients": named} if named else {}))
    return rows


def _holds(entry: Field) -> frozenset[str]:
    for one in entry.items():
        text = one.text()
        if text not in (OF_NOVA, VOLUMES) and not text.removeprefix(OF_CINDER) != text:
            raise one.wrong(f"must be «{OF_NOVA}», «{VOLUMES}», or «{OF_CINDER}» and a backend of Cinder")
    return frozenset(entry.texts())


def _clients(fields: Mapping[str, Field], planes: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    clients = {}
    for host, known in fields["clients"].entries().items():
        if host not in planes:
            raise known.wrong("names a host of no segment")
        clients[host] = known.texts()
    return clients


def _by_plane(row: Field, planes: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """By their addresses on the storage plane."""
    found = {host: (told[Plane.STORAGE.value],) for host, told in planes.items() if Plane.STORAGE.value in told}
    if not found:
        raise row.wrong("needs clients, for no host has a storage address in its planes")
    return found


def _refuse_shared_clients(row: Field, clients: Mapping[str, Sequence[str]]) -> None:
    of: dict[str, str] = {}
    for host, known in sorted(clients.items()):
        for one in known:
            if of.setdefault(one, host) != host:
                raise row.wrong(f"knows {of[one]!r} and {host!r} both by {one}: to cut one off would cut the other")


def _refuse_held_twice(row: Field, storage: StorageAccess, others: Iterable[StorageAccess]) -> None:
    for other in others:
        both = sorted(storage.holds & other.holds)
        shared = sorted(storage.clients.keys() & other.clients.keys())
        if both and shared:
            raise row.wrong(f"holds {both[0]} of {shared[0]!r}, and so does {other.name!r}")


def _plain(fields: Mapping[str, Field]) -> Mapping[str, object]:
    """The driver's own settings; it says itself what is wrong with them."""
    return {key: one.value for key, one in fields["settings"].entries().items()} if "settings" in fields else {}
