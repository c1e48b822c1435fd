# SPDX-License-Identifier: Apache-2.0
"""Where the volumes of a dead host's servers are kept, by Cinder's word: each asked for on its own, anew every time.

Rules kept: what Cinder does not say plainly stays «volume/ID», so no storage that was cut covers it; and Cinder takes
from an inventory no more than its own time, and nothing that Nova has told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from keystoneauth1.exceptions import ConnectTimeout

from vmhad.drivers.compute.calls import CINDER, Calls
from vmhad.kernel.cloud import Server
from vmhad.kernel.topology import OF_CINDER, UNPLACED
from vmhad.ports import Unanswered

LOG = logging.getLogger(__name__)

VOLUMES_AT = "3.0"  # all that is read has been there since then; later ones add what is not needed
THREADS = 8
# The states in which a volume stays where it is. Not: retyping and maintenance, which move it, and errors.
AT_REST = frozenset(
    {"in-use", "available", "attaching", "detaching", "reserved", "extending", "uploading", "backing-up"}
)
SETTLED = frozenset({None, "success"})
# After a failover the backend is the same by name, and another array by its data.
REPLICATED = frozenset({None, "enabled", "enabling", "disabled", "disabling", "not-capable"})


class Unknown(Exception):
    """Why it is not known where a volume is kept."""


class Volumes:
    """Cinder's volumes, asked for side by side. timeout_s bounds all the questions of one inventory together."""

    def __init__(self, calls: Calls, timeout_s: float) -> None:
        self._calls = calls
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cinder-read")
        self._told = ""

    def ask(self, servers: Iterable[Server]) -> Asking:
        """Begins to ask, and returns at once."""
        ids = {disk.removeprefix(UNPLACED) for one in servers for disk in one.disks if disk.startswith(UNPLACED)}
        until = time.monotonic() + min(self._timeout_s, self._calls.limit.left())
        silent = threading.Event()
        return Asking(self, {one: self._pool.submit(self._read, one, until, silent) for one in sorted(ids)}, until)

    def _read(self, volume_id: str, until: float, silent: threading.Event) -> str:
        """The backend. Once a question was met with silence, the others of the same asking are not put."""
        if silent.is_set():
            raise Unknown("Cinder is silent")
        try:
            with self._calls.limit.same_as(until):
                answer = self._calls.ask(CINDER, "GET", f"/volumes/{quote(volume_id, safe='')}", VOLUMES_AT)
        except Unanswered as error:
            if isinstance(error.__cause__, ConnectTimeout):
                silent.set()
            raise
        backend: str = self._calls.parsed(CINDER, lambda row: backend_of(row["volume"], volume_id), [answer])[0]
        return backend

    def tell(self, unknown: Mapping[str, str], asked: int) -> None:
        """Once, until something else is to be told."""
        first = min(unknown, default="")
        told = f"{len(unknown)} of {asked} volumes, the first is {first}: {unknown[first]}" if unknown else ""
        if told and told != self._told:
            LOG.warning("Cinder does not say where a volume is kept, so no cut of a storage covers its VM: %s", told)
        self._told = told

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Asking:
    """The questions of one inventory, under way until a moment."""

    def __init__(self, volumes: Volumes, asked: Mapping[str, Future[str]], until: float) -> None:
        self._volumes = volumes
        self._asked = asked
        self._until = until

    def placed(self, servers: Sequence[Server]) -> tuple[Server, ...]:
        """The servers with «cinder/BACKEND» for every volume that Cinder has said that of. Never raises."""
        wait(self._asked.values(), max(0.0, self._until - time.monotonic()))
        known: dict[str, str] = {}
        unknown: dict[str, str] = {}
        for volume_id, future in self._asked.items():
            if not future.done():
                future.cancel()
                unknown[volume_id] = "Cinder is slow"
            elif error := future.exception():
                unknown[volume_id] = str(error)
            else:
                known[UNPLACED + volume_id] = OF_CINDER + future.result()
        self._volumes.tell(unknown, len(self._asked))
        return tuple(replace(one, disks=tuple(known.get(disk, disk) for disk in one.disks)) for one in servers)


def backend_of(row: Mapping[str, Any], volume_id: str) -> str:
    """The backend in HOST@BACKEND#POOL of a row of GET /volumes/{id} at 3.0. Raises Unknown, KeyError, TypeError.

    Only an administrator is shown host and migration_status; without them nothing is known. A volume that may be
    attached twice is written to by others, too, whatever storage it is on.
    """
    if row["id"] != volume_id:
        raise Unknown("Cinder answered of another volume")
    if row["multiattach"] is not False:
        raise Unknown("it may be attached more than once")
    if row["status"] not in AT_REST or row["migration_status"] not in SETTLED:
        raise Unknown(f"its status is {row['status']}, of its migration {row['migration_status']}")
    if row["replication_status"] not in REPLICATED:
        raise Unknown(f"its replication is {row['replication_status']}")
    _, _, backend = str(row["os-vol-host-attr:host"]).partition("#")[0].partition("@")
    if not backend:
        raise Unknown("Cinder names no backend of it")
    return backend
