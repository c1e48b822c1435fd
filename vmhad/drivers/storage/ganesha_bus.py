# SPDX-License-Identifier: Apache-2.0
"""What NFS-Ganesha itself shows over D-Bus, and the one call that makes it read an export anew.

For a process of its own that is ended when its time is over (ganesha_server.py): no call here has a limit.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

_NAME = "org.ganesha.nfsd"
_EXPORTS = DBusAddress(f"/{_NAME.replace('.', '/')}/ExportMgr", _NAME, f"{_NAME}.exportmgr")
_CLIENTS = DBusAddress(f"/{_NAME.replace('.', '/')}/ClientMgr", _NAME, f"{_NAME}.clientmgr")
# Ganesha's bits of what an entry may do: read, write, and both for metadata alone.
_ACCESS = 0x1E0
_ANYBODY = "*"
# What RemoveClient answers; all else is not understood.
_GONE = ("OK", "Client with that address not found")
_BUSY = "Client with that address is in use (busy)"
# A client that is shut out may go on asking. Each time it is there for a moment, which proves nothing.
_LOOKS, _LOOK_S = 50, 0.01


class Garbled(Exception):
    """Ganesha answered what it should not."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One of those that an export's CLIENT blocks name. may: whether it may do anything; None: as its export says."""

    name: str
    may: bool | None

    def fits(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool | None:
        """None: by its name alone it cannot be told (a netgroup, a host's name with wildcards)."""
        if self.name == _ANYBODY:
            return True
        try:
            return address in ipaddress.ip_network(self.name, strict=False)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Export:
    """id, the directory that it exports, and its entries in the order in which Ganesha tries them."""

    id: int
    path: str
    entries: tuple[Entry, ...]

    def shuts_out(self, address: str) -> bool:
        """True only where Ganesha is sure to refuse it everything. What the export says of those whom no entry fits is
        not shown, so that is never sure."""
        at = ipaddress.ip_address(address)
        for entry in self.entries:
            fits = entry.fits(at)
            if fits is False:
                continue
            if entry.may is not False:
                return False
            if fits:
                return True
        return False


class Bus:
    def __init__(self, address: str) -> None:
        """Raises OSError and ValueError where there is no such bus."""
        self._link = open_dbus_connection(address)

    def export_ids(self) -> tuple[int, ...]:
        _, rows = self._call(_EXPORTS, "ShowExports")
        return tuple(sorted(int(row[0]) for row in rows))

    def export(self, number: int) -> Export:
        """Raises KeyError where Ganesha has no such export."""
        try:
            found, path, _, _, rows = self._call(_EXPORTS, "DisplayExport", "q", (number,))
        except DBusErrorResponse as error:
            if error.name == "org.freedesktop.DBus.Error.InvalidArgs":
                raise KeyError(number) from None
            raise
        if found != number:
            raise Garbled(f"asked for export {number}, Ganesha shows {found}")
        return Export(number, path, tuple(_entry(row) for row in rows))

    def reread(self, number: int, path: str) -> None:
        """Raises DBusErrorResponse where Ganesha finds no such export in the file, or does not like it."""
        self._call(_EXPORTS, "UpdateExport", "ss", (path, f"EXPORT(Export_Id={number})"))

    def lingering(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """Those of which Ganesha still has a request in hand, or keeps open files or locks.

        RemoveClient is refused as long as it has. Where it is not, what is lost are a client's statistics.
        """
        left = sorted(set(addresses))
        for look in range(_LOOKS):
            left = [one for one in left if any(self._is_there(name) for name in _names(one))]
            if not left:
                break
            if look + 1 < _LOOKS:
                time.sleep(_LOOK_S)
        return tuple(left)

    def _is_there(self, address: str) -> bool:
        _, said = self._call(_CLIENTS, "RemoveClient", "s", (address,))
        if said not in (*_GONE, _BUSY):
            raise Garbled(f"RemoveClient of {address}: {said}")
        return bool(said == _BUSY)

    def _call(self, to: DBusAddress, method: str, types: str = "", values: Sequence[object] = ()) -> tuple[Any, ...]:
        message = new_method_call(to, method, types, tuple(values))
        return tuple(unwrap_msg(self._link.send_and_get_reply(message)))


def _names(address: str) -> tuple[str, ...]:
    """What Ganesha may know it by: one that listens to IPv6, too, sees IPv4's mapped addresses."""
    return (address, f"::ffff:{address}") if ipaddress.ip_address(address).version == 4 else (address,)


def _entry(row: Sequence[Any]) -> Entry:
    name, options, given = row[0], row[8], row[9]
    return Entry(name, bool(options & _ACCESS) if given & _ACCESS else None)
