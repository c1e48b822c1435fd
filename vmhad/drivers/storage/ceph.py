# SPDX-License-Identifier: Apache-2.0
"""Cuts hosts off a Ceph cluster: the blocklist of its monitors, by the hosts' addresses.

The rules kept. A host is CUT when each of its addresses is blocked, and after that every placement group of the pools
has handled a request of ours that told it so: a group that has not yet got the map takes writes on, and one that does
not answer may. That a host has no client to be seen proves nothing. No address is blocked that is also one of the
cluster's own daemons, or ours: its daemon, or this engine, would be cut off with the host.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from itertools import chain
from typing import Any

from vmhad.drivers.storage.ceph_blocklist import at_once, block, block_clients, blocked_until, unblock
from vmhad.drivers.storage.ceph_daemons import refuse_to_block
from vmhad.drivers.storage.ceph_session import Session, Unsaid, hashes_as_known
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered

LOG = logging.getLogger(__name__)
DAY_S = 86400
# Longer than any host stays away. Ceph keeps 32 bits of seconds, so until 2106.
EXPIRE_S = 10 * 365 * DAY_S
EXPIRE_MAX_S = 20 * 365 * DAY_S
# A blocking that ends sooner is somebody else's, and no cut: librbd blocks for an hour whom it takes a lock from.
LASTING_S = DAY_S
# How long the clients that a host had when it was cut off are blocked one by one; none is left in memory by then.
FORMER_CLIENTS_S = 90 * DAY_S
# Within this the monitors have to say who the clients are.
LOOK_S = 1.0
# Calls under way at a time, with those that hang; each has a client of Ceph with its threads.
CALLS_MAX = 16
KNOWN = ("conf_file", "user", "pools", "expire_s", "hyperconverged")


class Ceph:
    """ports.Storage. Every call has a connection of its own, so calls for any hosts may run at the same time."""

    def __init__(
        self, name: str, settings: Mapping[str, object], clients: Mapping[str, tuple[str, ...]], timeout_s: float
    ) -> None:
        """settings: conf_file and user, as of client.USER; pools: those in which the hosts have their disks; expire_s;
        hyperconverged: whether hosts may have OSDs and monitors of the cluster. clients: the addresses from which each
        host reaches this cluster, all of them."""
        self._name = name
        self._conf_file = _text(settings, "conf_file")
        self._user = _text(settings, "user")
        self._pools = _pools(settings)
        self._expire_s = _expire_s(settings)
        self._hyperconverged = _hyperconverged(settings)
        for key in sorted(settings):
            if key not in KNOWN:
                raise ValueError(f"{key} is no setting of the driver ceph; it knows {', '.join(KNOWN)}")
        self._addresses = {host: _addresses(host, known) for host, known in clients.items()}
        _of_one_host_each(self._addresses)
        self._timeout_s = timeout_s
        self._free = threading.BoundedSemaphore(CALLS_MAX)

    def read(self, host: str) -> tuple[Access, str]:
        addresses = self._addresses.get(host)
        if not addresses:
            return Access.UNKNOWN, f"no address of {host} at {self._name} is known"
        try:
            seen: tuple[Access, str] = self._within_limit(lambda session: self._seen(session, host, addresses))
            return seen
        except Unsaid as error:
            return Access.UNKNOWN, f"{self._name} does not say: {error}"

    def cut(self, host: str) -> None:
        addresses = self._of_client(host)

        def close(session: Session) -> None:
            refuse_to_block(session, host, addresses, self._hyperconverged)
            at_once(
                *[partial(block, session, address, self._expire_s) for address in addresses],
                partial(self._block_clients, session, addresses),
            )

        self._change(close)

    def restore(self, host: str) -> None:
        """The clients that it had, as far as they are known, stay blocked: one that still runs would write on where it
        was."""
        addresses = self._of_client(host)

        def reopen(session: Session) -> None:
            dump = session.ask("osd dump")
            if any(blocked_until(dump, address) for address in addresses):
                self._block_clients(session, addresses)
                at_once(*[partial(unblock, session, dump, address) for address in addresses])

        self._change(reopen)

    def _seen(self, session: Session, host: str, addresses: tuple[str, ...]) -> tuple[Access, str]:
        refuse_to_block(session, host, addresses, self._hyperconverged)
        before = session.ask("osd dump")
        open_ones = [one for one in addresses if not blocked_until(before, one)]
        if open_ones:
            return Access.OPEN, f"{', '.join(open_ones)} not blocked in the map of epoch {before['epoch']}"
        ends = min(blocked_until(before, one) for one in addresses)
        if ends < time.time() + LASTING_S:
            return Access.UNKNOWN, f"{', '.join(addresses)} blocked for a while only, until {_date(ends)}"
        groups = self._groups(before)
        for pool, count in groups.items():
            session.pass_through(pool, count)
        after = session.ask("osd dump")
        if self._groups(after) != groups or not all(blocked_until(after, one) for one in addresses):
            return Access.UNKNOWN, "the map was changed while it was read"
        asked = ", ".join(f"{count} of {pool}" for pool, count in groups.items())
        return Access.CUT, (
            f"{', '.join(addresses)} blocked until {_date(ends)}; the placement groups have epoch "
            f"{before['epoch']} or newer: {asked}"
        )

    def _groups(self, dump: Mapping[str, Any]) -> dict[str, int]:
        """The number of placement groups of each of our pools."""
        there = {pool["pool_name"]: pool for pool in dump["pools"]}
        for name in self._pools:
            if name not in there:
                raise Unsaid(f"there is no pool {name}")
            if not hashes_as_known(there[name]):
                raise Unsaid(f"pool {name} hashes names in a way that is not known")
        return {name: int(there[name]["pg_num"]) for name in self._pools}

    def _of_client(self, host: str) -> tuple[str, ...]:
        addresses = self._addresses.get(host)
        if not addresses:
            raise Refused(f"no address of {host} at {self._name} is known")
        return addresses

    def _change(self, call: Callable[[Session], object]) -> None:
        try:
            self._within_limit(call)
        except Unsaid as error:
            raise (Refused if error.refused else Unanswered)(f"{self._name}: {error}") from None

    def _within_limit(self, call: Callable[[Session], Any]) -> Any:
        """Raises Unsaid. The call runs in a thread that is left alone when it does not end in time: what hangs in
        Ceph's library ends by the library's own limits, or when the cluster is back."""
        until = time.monotonic() + self._timeout_s
        if not self._free.acquire(timeout=self._timeout_s):
            raise Unsaid(f"{CALLS_MAX} earlier calls have not ended")
        ended = threading.Event()
        came: list[Any] = []

        def run() -> None:
            try:
                came.append(self._asked(call))
            except Unsaid as error:
                came.append(error)
            except Exception as error:
                # Its text may be the library's.
                came.append(Unsaid(f"an answer that makes no sense ({type(error).__name__})"))
            finally:
                self._free.release()
                ended.set()

        threading.Thread(target=run, name=f"storage-{self._name}", daemon=True).start()
        if not ended.wait(max(0.0, until - time.monotonic())):
            raise Unsaid(f"no answer within {self._timeout_s:g} s")
        if isinstance(came[0], Unsaid):
            raise came[0]
        return came[0]

    def _asked(self, call: Callable[[Session], Any], limit_s: float = 0.0) -> Any:
        session = Session(self._conf_file, self._user, limit_s or self._timeout_s)
        try:
            return call(session)
        finally:
            session.close()

    def _block_clients(self, session: Session, addresses: tuple[str, ...]) -> None:
        """Each by itself, as far as they can be known soon: the addresses are blocked all the same."""
        try:
            clients = self._asked(lambda other: frozenset(chain(*map(other.clients, addresses))), LOOK_S)
        except Unsaid as error:
            LOG.warning("%s: the clients of %s are not known one by one: %s.", self._name, ", ".join(addresses), error)
            return
        block_clients(session, clients, FORMER_CLIENTS_S)


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _text(settings: Mapping[str, object], key: str) -> str:
    value = settings.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} of the driver ceph must be a text")
    return value


def _pools(settings: Mapping[str, object]) -> tuple[str, ...]:
    value = settings.get("pools")
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError("pools of the driver ceph must be a list of names of pools")
    return tuple(dict.fromkeys(value))


def _expire_s(settings: Mapping[str, object]) -> int:
    value = settings.get("expire_s", EXPIRE_S)
    if type(value) is not int or not 2 * LASTING_S <= value <= EXPIRE_MAX_S:
        raise ValueError(f"expire_s of the driver ceph must be a number from {2 * LASTING_S} to {EXPIRE_MAX_S}")
    return value


def _hyperconverged(settings: Mapping[str, object]) -> bool:
    value = settings.get("hyperconverged", False)
    if type(value) is not bool:
        raise ValueError("hyperconverged of the driver ceph must be true or false")
    return value


def _addresses(host: str, known: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(sorted({str(ip_address(one)) for one in known}))
    except ValueError:
        raise ValueError(f"clients of {host} must be addresses for the driver ceph") from None


def _of_one_host_each(addresses: Mapping[str, tuple[str, ...]]) -> None:
    """To cut off the one would cut off the other."""
    first: dict[str, str] = {}
    for host in sorted(addresses):
        for address in addresses[host]:
            if first.setdefault(address, host) != host:
                raise ValueError(f"clients of {first[address]} and of {host} have the address {address} together")
