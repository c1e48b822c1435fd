# SPDX-License-Identifier: Apache-2.0
"""vmhad-ganesha: runs beside NFS-Ganesha, carries out the orders that it reads, and says what came of each.

A line of JSON comes in: id, act (read, cut, cuts or restore), exports (their ids), addresses (of one host), limit_s,
and which cuts to restore; one goes out: id with access and words, cuts, done, refused or failed. Which files and which
bus it works on is said by who installs it, so that the sender of an order can do nothing else here. It has to be the
user that may talk to Ganesha (root, as Ganesha's D-Bus policy is shipped).

An order ends within limit_s: then its process ends itself, wherever it hangs.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jeepney import DBusErrorResponse

from vmhad.drivers.storage import ganesha_files as files
from vmhad.drivers.storage import ganesha_locks as locks
from vmhad.drivers.storage.ganesha_bus import Bus, Export
from vmhad.kernel.signal import Access
from vmhad.ports import Refused

LIMIT_MAX_S = 60.0


class Anew(Exception):
    """What was to be taken back is a newer cut than the one that was meant."""


class Server:
    def __init__(self, bus: Bus, pattern: str) -> None:
        self._bus = bus
        self._pattern = pattern

    def read(self, ids: Sequence[int], addresses: Sequence[str]) -> tuple[Access, str]:
        """The order of the looks matters: who is shut out already when it has no request in hand has none any more."""
        named = [self._export(number) for number in ids]
        open_at = [export for export in named if not _all_out(export, addresses)]
        if open_at:
            return Access.OPEN, f"NFS-Ganesha shows {_names(open_at)} not closed to {_and(addresses)}"
        forgotten = [export for export in named if not set(addresses) <= set(files.shut_out(self._file(export.id)))]
        if forgotten:
            return Access.UNKNOWN, f"a restart of NFS-Ganesha would open {_names(forgotten)}: not closed in its file"
        beside = [export for export in self._beside(named) if not _all_out(export, addresses)]
        if beside:
            return Access.UNKNOWN, f"{_names(beside)} of other settings leads to the same files and is not closed"
        left = self._bus.lingering(addresses)
        if left:
            return Access.UNKNOWN, f"closed, but NFS-Ganesha still has requests, open files or locks of {_and(left)}"
        return Access.CUT, f"NFS-Ganesha shows {_names(named)} closed to {_and(addresses)}, and nothing of it left"

    def cut(self, ids: Sequence[int], addresses: Sequence[str]) -> None:
        """Files first: what is done already when this is cut short lasts. Locks last: no new one can be got then."""
        name = secrets.token_hex(8)
        self._change(ids, lambda out: out | dict.fromkeys(addresses, name))
        for address in addresses:
            try:
                locks.let_go(address)
            except (OSError, locks.NoLocks):
                # Where there are locks they stay, and read() shows it.
                continue

    def cuts(self, ids: Sequence[int], addresses: Sequence[str]) -> list[str]:
        """The names of those that keep these addresses out."""
        found = [self._shut_out(number) for number in ids]
        return sorted({name for out in found for address, name in out.items() if address in addresses})

    def restore(self, ids: Sequence[int], addresses: Sequence[str], cuts: Sequence[str]) -> None:
        """These cuts. Raises Anew where there is a newer one."""
        self._change(
            ids, lambda out: {one: name for one, name in out.items() if one not in addresses or name not in cuts}
        )
        if self.cuts(ids, addresses):
            raise Anew("it was cut off anew meanwhile")

    def _change(self, ids: Sequence[int], changed: Callable[[dict[str, str]], Mapping[str, str]]) -> None:
        """Nothing of it is begun where a part of it has to be refused."""
        for number in ids:
            self._shut_out(number)
        for number in ids:
            with _alone(self._file(number)):
                files.change(self._file(number), changed)
                self._bus.reread(number, str(self._file(number)))

    def _shut_out(self, number: int) -> dict[str, str]:
        self._export(number)
        return files.shut_out(self._file(number))

    def _export(self, number: int) -> Export:
        try:
            return self._bus.export(number)
        except KeyError:
            raise Refused(f"NFS-Ganesha has no export {number}") from None

    def _beside(self, named: Sequence[Export]) -> list[Export]:
        """Exports that are not named and share files with one that is. 0 is the root of NFSv4's names, of no files."""
        known = {export.id for export in named}
        found = []
        for number in self._bus.export_ids():
            if number == 0 or number in known:
                continue
            try:
                export = self._bus.export(number)
            except KeyError:
                continue
            if any(_meet(export.path, other.path) for other in named):
                found.append(export)
        return found

    def _file(self, number: int) -> Path:
        return Path(self._pattern.replace("{id}", str(number)))


def _all_out(export: Export, addresses: Sequence[str]) -> bool:
    return bool(addresses) and all(export.shuts_out(address) for address in addresses)


def _meet(one: str, other: str) -> bool:
    first, second = Path(one).parts, Path(other).parts
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _names(exports: Sequence[Export]) -> str:
    return _and(f"export {export.id} ({export.path})" for export in exports)


def _and(words: Iterable[str]) -> str:
    return ", ".join(words)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two engines may cut two hosts at once."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


class _NoBus(Exception):
    """D-Bus cannot be reached, which is no refusal of anybody's."""


def _bus(address: str) -> Bus:
    try:
        return Bus(address)
    except Exception as error:
        raise _NoBus(f"D-Bus of NFS-Ganesha cannot be reached: {type(error).__name__}") from None


def _done(server: Server, order: Mapping[str, Any], ids: list[int], addresses: list[str]) -> dict[str, object]:
    match order["act"]:
        case "read":
            access, words = server.read(ids, addresses)
            return {"access": access.value, "words": words}
        case "cuts":
            return {"cuts": server.cuts(ids, addresses)}
        case "cut":
            server.cut(ids, addresses)
        case "restore":
            server.restore(ids, addresses, [str(name) for name in order["cuts"]])
    return {"done": order["act"]}


def answer(order: Mapping[str, Any], bus_address: str, pattern: str) -> dict[str, object]:
    """Never raises: what went wrong is an answer too."""
    try:
        act, ids = order["act"], [int(one) for one in order["exports"]]
        addresses = [str(ipaddress.ip_address(one)) for one in order["addresses"]]
        if act not in ("read", "cut", "cuts", "restore"):
            raise ValueError(f"{act} is no order")
        return _done(Server(_bus(bus_address), pattern), order, ids, addresses)
    except (_NoBus, Anew) as error:
        return {"failed": str(error)}
    except (Refused, files.NoPlace) as error:
        return {"refused": str(error)}
    except FileNotFoundError as error:
        return {"refused": f"there is no {error.filename}"}
    except DBusErrorResponse as error:
        return {"failed": f"NFS-Ganesha said {error.name}"}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def serve(bus_address: str, pattern: str) -> None:
    """Until nobody is left who could send an order. Each is a process of its own, so that one that hangs holds no
    other; nobody waits for it to end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            try:
                _carry_out(line, bus_address, pattern)
            finally:
                os._exit(1)


def _carry_out(line: str, bus_address: str, pattern: str) -> None:
    order: Mapping[str, Any] = {}

    def say(answer: Mapping[str, object]) -> None:
        # One write, so that it is one line among those of others.
        os.write(sys.stdout.fileno(), (json.dumps({**answer, "id": order.get("id")}) + "\n").encode())
        os._exit(0)

    try:
        order = json.loads(line)
        limit_s = min(max(float(order["limit_s"]), 0.01), LIMIT_MAX_S)
    except (ValueError, TypeError, KeyError, AttributeError):
        order = {}
        say({"failed": "an order that is none"})
    signal.signal(signal.SIGALRM, lambda *_: say({"failed": "no answer from NFS-Ganesha in time"}))
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    said = answer(order, bus_address, pattern)
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(said)


def main() -> int:
    parser = argparse.ArgumentParser(prog="vmhad-ganesha", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dbus-address", default="unix:path=/run/dbus/system_bus_socket")
    parser.add_argument("--files", required=True, help="the export's file, {id} for its number")
    told = parser.parse_args()
    serve(told.dbus_address, told.files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
