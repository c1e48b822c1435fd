# SPDX-License-Identifier: Apache-2.0
"""A shared storage that is a pool of Ceph: an object per host, written and read by Ceph's own client.

The client has no cache: what it says is written is on the OSDs, and what it reads comes from there. A cluster that does
not answer ends each call by a time limit; a client that was cut off gets errors for ever, so after an error the next
round begins with a new one.
"""

from __future__ import annotations

import logging
from typing import Any

from vmhad.agent.record import BLOCK
from vmhad.agent.storage import Unfit

LOG = logging.getLogger(__name__)
MARKER = "vmhad-storage"
RECORD = "vmhad-beat."
CALL_S = 3
LIMITS = {"rados_osd_op_timeout": CALL_S, "rados_mon_op_timeout": CALL_S, "client_mount_timeout": CALL_S}


class RadosPool:
    """storage.Store over a pool. user: as in client.USER."""

    def __init__(self, pool: str, conf_file: str, user: str) -> None:
        self._pool = pool
        self._conf_file = conf_file
        self._user = user
        self._cluster: Any = None
        self._objects: Any = None

    def marker(self) -> str:
        return (self._read(MARKER) or b"").decode(errors="replace").strip()

    def write(self, host: str, block: bytes) -> None:
        self._call(lambda objects: objects.write_full(RECORD + host, block))

    def read(self, host: str) -> bytes | None:
        return self._read(RECORD + host)

    def _read(self, name: str) -> bytes | None:
        """None where there is no such object."""

        def look(objects: Any) -> bytes | None:
            import rados

            try:
                return bytes(objects.read(name, BLOCK))
            except rados.ObjectNotFound:
                return None

        found: bytes | None = self._call(look)
        return found

    def _call(self, call: Any) -> Any:
        """Raises OSError, whose text is Ceph's."""
        try:
            import rados
        except ImportError:
            raise Unfit("Ceph's Python binding cannot be imported: install python3-rados") from None
        try:
            if self._objects is None:
                self._connect(rados)
            return call(self._objects)
        except rados.Error as error:
            self._drop(rados)
            raise OSError(getattr(error, "errno", 0) or 0, f"{type(error).__name__}: {error}", self._pool) from None

    def _connect(self, rados: Any) -> None:
        conf = {name: str(limit) for name, limit in LIMITS.items()}
        self._cluster = rados.Rados(conffile=self._conf_file, rados_id=self._user, conf=conf)
        self._cluster.connect(timeout=CALL_S)
        self._objects = self._cluster.open_ioctx(self._pool)

    def _drop(self, rados: Any) -> None:
        """A client that gave an error may have been cut off from the cluster, and would not notice its return."""
        objects, cluster = self._objects, self._cluster
        self._objects = self._cluster = None
        try:
            if objects is not None:
                objects.close()
            if cluster is not None:
                cluster.shutdown()
        except rados.Error as error:
            LOG.debug("closing a client of Ceph: %s", error)
