# SPDX-License-Identifier: Apache-2.0
"""The resumption of a guest that libvirt paused on an I/O error of its disk, and of no other one.

Rule kept: a guest that its user paused stays so. libvirt has no «resume it if»: between the look and the resumption a
user may pause it still, within milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from vmhad.agent.guest_states import level
from vmhad.agent.guests import KEEPALIVE_S, KEEPALIVES, binding, serve_events
from vmhad.kernel.beat import DISK_PAUSED
from vmhad.ports import Refused, Unanswered


class ResumeGuest:
    """An act of the agent. uri: of this host's libvirt. Each order has a connection of its own, so that one that hangs
    holds no eye."""

    def __init__(self, uri: str) -> None:
        """Raises guests.LibvirtMissing."""
        self._libvirt = binding()
        self._uri = uri

    def __call__(self, args: Mapping[str, str]) -> tuple[str, str]:
        libvirt, server = self._libvirt, args.get("server", "")
        serve_events(libvirt)
        try:
            link = libvirt.open(self._uri)
        except libvirt.libvirtError as error:
            raise Refused(f"libvirt cannot be asked: {error.get_error_message()}") from None
        try:
            return "", self._resume(link, server)
        except libvirt.libvirtError as error:
            raise Unanswered(f"libvirt failed: {error.get_error_message()}") from None
        finally:
            try:
                link.close()
            except libvirt.libvirtError:
                # It was broken before.
                pass

    def _resume(self, link: object, server: str) -> str:
        libvirt = self._libvirt
        try:
            link.setKeepAlive(KEEPALIVE_S, KEEPALIVES)  # type: ignore[attr-defined]
        except libvirt.libvirtError:
            # A driver inside this process has no connection that could break.
            pass
        try:
            domain = link.lookupByUUIDString(server)  # type: ignore[attr-defined]
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                raise Refused(f"guest {server} is not there") from None
            raise
        state, detail = level(*domain.state())
        if not detail.startswith(DISK_PAUSED):
            raise Refused(f"guest {server} is {state.value} ({detail}), not paused by an I/O error")
        domain.resume()
        return f"guest {server} was resumed"
