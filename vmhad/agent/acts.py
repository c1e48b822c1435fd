# SPDX-License-Identifier: Apache-2.0
"""What this agent does by an order, one act a verb. Each one is harmless when it comes late, by what the order says."""

from __future__ import annotations

from collections.abc import Mapping

from vmhad.agent.orders import Act
from vmhad.agent.power_proxy import PowerProxy
from vmhad.agent.resume import ResumeGuest
from vmhad.agent.services import Systemd, Unheard, restart
from vmhad.conf.agent_settings import AgentSettings
from vmhad.ports import Power, Refused, Unanswered


def acts_of(told: AgentSettings, power: Power | None = None) -> dict[str, Act]:
    """Verb -> act, of those that this agent was told that it may do. power: of its peers, None where it may not ask
    their BMCs. Raises guests.LibvirtMissing."""
    acts: dict[str, Act] = {"restart_service": RestartService(told.units)}
    if told.libvirt_uri:
        acts["resume_guest"] = ResumeGuest(told.libvirt_uri)
    if power is not None:
        acts["power"] = PowerProxy(power, told.host)
    return acts


class RestartService:
    """units: service, as a beat calls it -> unit. bus: as Systemd has it."""

    def __init__(self, units: Mapping[str, str], bus: str = "SYSTEM") -> None:
        self._units = units
        self._bus = bus

    def __call__(self, args: Mapping[str, str]) -> tuple[str, str]:
        service, known = args.get("service", ""), args.get("known", "")
        unit = self._units.get(service)
        if unit is None:
            raise Refused(f"this agent knows no unit of {service!r}")
        systemd = Systemd(self._bus)
        try:
            declined = restart(systemd, unit, known)
        except Unheard as error:
            raise Unanswered(str(error)) from None
        finally:
            systemd.close()
        if declined:
            raise Refused(declined)
        return "", f"systemd restarts {unit}"
