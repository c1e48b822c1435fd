# SPDX-License-Identifier: Apache-2.0
"""ports.Readiness: ports are asked of Nova, which asks Neutron; TCP and HTTP are asked of the VM itself, from here.

Which addresses: the one that the gate names; else the VM's floating ones, else its fixed ones, as Nova has them. Who
owns a VM chooses its fixed addresses, so those that would be this machine, or every machine, are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from vmhad.drivers.readiness.probes import probe
from vmhad.kernel.gate import Gate, Kind, Ready
from vmhad.ports import Refused, Unanswered

LIMIT_S = 3.0
ADDRESSES_MAX = 4
ACTIVE = "ACTIVE"
GONE = (Ready.READY, "there is no such VM any more")


class Cloud(Protocol):
    """What is asked of Nova. None: there is no such server."""

    def port_states(self, server_id: str) -> Mapping[str, str] | None:
        """Port -> its status in Neutron."""

    def addresses(self, server_id: str) -> Sequence[tuple[str, bool]] | None:
        """Each with whether it is a floating one."""


class GateProbes:
    """Safe in many threads. limit_s: of all probes of one read together; Nova has its own limit before that."""

    def __init__(self, cloud: Cloud, limit_s: float = LIMIT_S) -> None:
        self._cloud, self._limit_s = cloud, limit_s

    def read(self, server_id: str, gate: Gate) -> tuple[Ready, str]:
        if gate.kind is Kind.AGENT:
            return Ready.UNKNOWN, "beats tell of guest agents"
        if gate.address:
            return self._ask([gate.address], gate)
        try:
            return self._ports(server_id) if gate.kind is Kind.PORT else self._own(server_id, gate)
        except Refused as error:
            return Ready.UNKNOWN, f"Nova will not tell: {error}"
        except Unanswered:
            return Ready.UNKNOWN, "Nova does not answer"

    def _ports(self, server_id: str) -> tuple[Ready, str]:
        states = self._cloud.port_states(server_id)
        if states is None:
            return GONE
        for port, state in sorted(states.items()):
            if state != ACTIVE:
                return Ready.NOT_READY, f"its port {port} is {state}"
        return Ready.READY, "all of its ports are ACTIVE" if states else "it has no ports"

    def _own(self, server_id: str, gate: Gate) -> tuple[Ready, str]:
        told = self._cloud.addresses(server_id)
        if told is None:
            return GONE
        found = meant(told)
        return self._ask(found, gate) if found else (Ready.UNKNOWN, "Nova has no address of it that can be asked")

    def _ask(self, addresses: Sequence[str], gate: Gate) -> tuple[Ready, str]:
        """One that is ready is enough. Each has its share of the time that those before it left."""
        until = time.monotonic() + self._limit_s
        seen: dict[Ready, str] = {}
        for number, address in enumerate(addresses):
            left_s = (until - time.monotonic()) / (len(addresses) - number)
            ready, words = probe(address, gate, max(left_s, 0.01))
            if ready is Ready.READY:
                return ready, words
            seen.setdefault(ready, words)
        ready = Ready.NOT_READY if Ready.NOT_READY in seen else Ready.UNKNOWN
        return ready, seen[ready]


def meant(told: Iterable[tuple[str, bool]]) -> tuple[str, ...]:
    """Those that are asked, in order."""
    usable = [(address, floating) for address, floating in told if _is_somewhere(address)]
    floating = [address for address, is_floating in usable if is_floating]
    return tuple(sorted(set(floating or [address for address, _ in usable])))[:ADDRESSES_MAX]


def _is_somewhere(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return False
    nowhere = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return not (nowhere or address.is_reserved)
