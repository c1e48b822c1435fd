# SPDX-License-Identifier: Apache-2.0
"""What of the network hangs on one server: its ports, as Neutron tells Nova, and its addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from vmhad.drivers.compute.calls import Calls, Missing
from vmhad.ports import Unanswered

# From 2.70 on Nova would read the tag of each port beside.
INTERFACES_AT = "2.69"
SERVER_AT = "2.96"


def port_states(calls: Calls, server_id: str) -> Mapping[str, str] | None:
    """Port -> its status; None where there is no such server. One request, and Nova's one to Neutron."""
    try:
        answer = calls.ask("interfaces", "GET", f"/servers/{quote(server_id, safe='')}/os-interface", INTERFACES_AT)
    except Missing:
        return None
    rows = answer.get("interfaceAttachments")
    if not isinstance(rows, list):
        raise Unanswered("interfaces: the answer has no list of ports")
    return dict(calls.parsed("interfaces", lambda row: (str(row["port_id"]), str(row["port_state"])), rows))


def addresses(calls: Calls, server_id: str) -> tuple[tuple[str, bool], ...] | None:
    """Each with whether it is a floating one; None where there is no such server."""
    try:
        answer = calls.ask("server", "GET", f"/servers/{quote(server_id, safe='')}", SERVER_AT)
    except Missing:
        return None
    return tuple(one for row in calls.parsed("server", _addresses_of, [answer]) for one in row)


def _addresses_of(answer: Mapping[str, Any]) -> list[tuple[str, bool]]:
    rows = [row for network in answer["server"]["addresses"].values() for row in network]
    return [(str(row["addr"]), row.get("OS-EXT-IPS:type") == "floating") for row in rows]
