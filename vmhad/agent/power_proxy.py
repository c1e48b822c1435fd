# SPDX-License-Identifier: Apache-2.0
"""The power of a peer, read or switched at its BMC by an engine's order, where only this site reaches that BMC."""

from __future__ import annotations

from collections.abc import Mapping

from vmhad.ports import Power, Refused


class PowerProxy:
    """An act of the agent. own: this host, whose word of its own power is worth nothing."""

    def __init__(self, power: Power, own: str) -> None:
        self._power = power
        self._own = own

    def __call__(self, args: Mapping[str, str]) -> tuple[str, str]:
        host, what = args.get("host", ""), args.get("do", "")
        if host == self._own:
            raise Refused("a host is no proxy for itself")
        if what == "read":
            reading, text = self._power.read(host)
            return reading.value, text
        if what == "off":
            self._power.off(host)
        elif what == "on":
            self._power.on(host)
        else:
            raise Refused(f"no BMC can do {what!r}")
        return "", f"the BMC of {host} accepted {what}"
