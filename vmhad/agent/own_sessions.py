# SPDX-License-Identifier: Apache-2.0
"""Disks that a guest's QEMU opens by iSCSI itself: each has a session, and so a nexus, that nobody outside of QEMU can
register. On a LUN that is reserved for registrants such a guest cannot write; the operator is told of it once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from xml.etree import ElementTree

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OwnSession:
    """initiator: by its iSCSI name; '' where QEMU has one of its own making."""

    target: str
    number: int
    initiator: str = ""


def own_sessions(text: str) -> list[OwnSession]:
    """Of a domain, by libvirt's text."""
    found = []
    # libvirt wrote this text, not a stranger.
    for source in ElementTree.fromstring(text).iterfind("devices/disk/source[@protocol='iscsi']"):  # noqa: S314
        name = source.get("name", "")
        target, _, number = name.rpartition("/")
        initiator = source.find("initiator/iqn")
        said = initiator.get("name", "") if initiator is not None else ""
        # Without a number it is the LUN 0.
        where = (target, int(number)) if number.isdigit() and target else (name, 0)
        found.append(OwnSession(*where, said))
    return found


class OwnSessions:
    """luns: those that this host is registered on, by target and number. Asked by one thread."""

    def __init__(self, luns: Collection[tuple[str, int]]) -> None:
        self._luns = frozenset(luns)
        self._told: dict[str, frozenset[OwnSession]] = {}

    def read(self, server: str, text: str) -> None:
        """The text of a guest that runs."""
        found = frozenset(one for one in own_sessions(text) if (one.target, one.number) in self._luns)
        for one in sorted(found - self._told.get(server, frozenset()), key=lambda one: (one.target, one.number)):
            LOG.warning(
                "guest %s opens LUN %d of %s by a session of QEMU's own%s, which is not registered and cannot be",
                server, one.number, one.target, f" ({one.initiator})" if one.initiator else "",
            )  # fmt: skip
        self._told[server] = found

    def keep(self, servers: Collection[str]) -> None:
        """Forgets those that do not run any more."""
        self._told = {server: one for server, one in self._told.items() if server in servers}
