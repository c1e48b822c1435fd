# SPDX-License-Identifier: Apache-2.0
"""One connection to a Ceph cluster, for one call of the driver: what its monitors and its placement groups are asked.

Texts are made here from the kind of an error, never from a library's message, so no secret can be in one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from vmhad.drivers.storage.ceph_groups import NAMESPACE, RJENKINS, names

# Asked at a time; a monitor or an OSD has more to do than to answer us.
GROUPS_AT_ONCE = 256
NO_SUCH_OBJECT = -2
# Nothing of Ceph's own goes to our standard error, or to a file.
QUIET = {"log_to_stderr": "false", "err_to_stderr": "false", "log_file": "", "admin_socket": ""}


class Unsaid(Exception):
    """Ceph did not say what was asked. refused: it understood and declined, or we did not ask at all."""

    def __init__(self, words: str, refused: bool = False) -> None:
        super().__init__(words)
        self.refused = refused


class Session:
    def __init__(self, conf_file: str, user: str, limit_s: float) -> None:
        """limit_s: of each thing asked. Raises Unsaid."""
        try:
            import rados
        except ImportError:
            raise Unsaid("Ceph's Python binding cannot be imported: install python3-rados", refused=True) from None
        self._rados = rados
        limit = str(max(1, round(limit_s)))
        limits = dict.fromkeys(("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"), limit)
        try:
            self._cluster: Any = rados.Rados(conffile=conf_file, rados_id=user, conf={**QUIET, **limits})
            self._cluster.connect()
        except Exception as error:
            raise _unsaid("the connection", error) from None

    def close(self) -> None:
        self._cluster.shutdown()

    def ask(self, prefix: str, target: str = "", **arguments: object) -> Any:
        """What a monitor answers, as JSON where it says any. target: that one monitor."""
        command = json.dumps({"prefix": prefix, "format": "json", **arguments})
        try:
            code, said, _ = self._cluster.mon_command(command, b"", **({"target": target} if target else {}))
        except Exception as error:
            raise _unsaid(f"«{prefix}»", error) from None
        if code:
            raise _unsaid(f"«{prefix}»", OSError(abs(code), ""))
        try:
            return json.loads(said) if said.strip() else None
        except ValueError:
            raise Unsaid(f"«{prefix}» was answered with garbage") from None

    def own_addresses(self) -> frozenset[str]:
        return frozenset(ip_of(one) for one in self._cluster.get_addrs().strip("[]").split(",")) - {""}

    def clients(self, address: str) -> frozenset[str]:
        """The clients at this address that have a session with a monitor, as address:0/nonce."""
        found: set[str] = set()
        try:
            for mon in self.ask("quorum_status")["quorum_names"]:
                for session in self.ask("sessions", target=mon):
                    if session["con_type"] == "client":
                        there = [one for one in session["addrs"]["addrvec"] if ip_of(one["addr"]) == address]
                        found.update(instance(address, one["nonce"]) for one in there)
        except (KeyError, TypeError):
            raise Unsaid("«sessions» was answered with garbage") from None
        return frozenset(found)

    def pass_through(self, pool: str, groups: int) -> None:
        """Every placement group of the pool has handled a request of ours that told it the newest map, behind all that
        it had taken on before. Raises Unsaid.

        The request removes an object that is not there: nothing is changed, but unlike a read it waits for the writes
        before it. An OSD's own word for the epoch of its map would not do: it hands a map on to its groups later.
        """
        try:
            self._cluster.wait_for_latest_osdmap()
            objects = self._cluster.open_ioctx(pool)
        except Exception as error:
            raise _unsaid(f"pool {pool}", error) from None
        try:
            objects.set_namespace(NAMESPACE)
            # A full pool is asked as well.
            objects.set_osdmap_full_try()
            asked = names(groups)
            for first in range(0, groups, GROUPS_AT_ONCE):
                self._remove(objects, pool, first, asked[first : first + GROUPS_AT_ONCE])
        finally:
            objects.close()

    def _remove(self, objects: Any, pool: str, first: int, absent: Sequence[str]) -> None:
        sent = [objects.aio_remove(name) for name in absent]
        for number, one in enumerate(sent, first):
            one.wait_for_complete()
            code = one.get_return_value()
            if code not in (0, NO_SUCH_OBJECT):
                raise _unsaid(f"placement group {number:x} of pool {pool}", OSError(abs(code), ""))


def _unsaid(what: str, error: Exception) -> Unsaid:
    """Not permitted, or no such thing: it understood. Anything else may have come too late only."""
    number = abs(getattr(error, "errno", None) or 0)
    kind = os.strerror(number) if number else type(error).__name__
    return Unsaid(f"{what}: {kind}", refused=number in (1, 2, 13, 22))


def ip_of(address: str) -> str:
    """Of Ceph's ways to write an address: v2:10.0.0.1:0/3, [fd00::1]:6800, 10.0.0.1; '' of what is none."""
    bare = address.removeprefix("v1:").removeprefix("v2:").partition("/")[0]
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ip_address(bare))
    except ValueError:
        return ""


def instance(address: str, nonce: int = 0) -> str:
    """One client at the address, as Ceph's blocklist has it; all of them for nonce 0."""
    return f"[{address}]:0/{nonce}" if ":" in address else f"{address}:0/{nonce}"


def network_of(entry: str) -> IPv4Network | IPv6Network:
    """Of Ceph's way to write a range: cidr:10.0.0.0:0/24."""
    address, _, length = entry.removeprefix("cidr:").rpartition("/")
    return ip_network(f"{ip_of(address)}/{length}", strict=False)


def addresses_in(said: Any) -> frozenset[str]:
    """Every address that stands anywhere in what a monitor said of its daemons."""
    if isinstance(said, Mapping):
        here = ip_of(said["addr"]) if isinstance(said.get("addr"), str) else ""
        return frozenset({here} - {""}).union(*map(addresses_in, said.values()))
    return frozenset().union(*map(addresses_in, said)) if isinstance(said, list) else frozenset()


def hashes_as_known(pool: Mapping[str, Any]) -> bool:
    return bool(pool["object_hash"] == RJENKINS)
