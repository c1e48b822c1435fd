# SPDX-License-Identifier: Apache-2.0
"""Which services of a compute host are guarded, and what each needs: nothing is restarted for what its need broke."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmhad.kernel.beat import Unit, UnitState


@dataclass(frozen=True, slots=True)
class Service:
    """name: as a beat calls it. needs: what has to run first, on the same host. reports: Nova hears its heartbeat."""

    name: str
    needs: tuple[str, ...] = ()
    reports: bool = False


# What is needed stands before what needs it.
CATALOG = (Service("libvirtd"), Service("nova-compute", needs=("libvirtd",), reports=True))
BY_NAME: Mapping[str, Service] = {one.name: one for one in CATALOG}


def broken(service: str, units: Mapping[str, Unit]) -> str:
    """'' or the first of its needs that does not run. What nobody tells of is not called broken."""
    needs = BY_NAME[service].needs
    down = (one for one in needs if one in units and units[one].state not in (UnitState.RUNS, UnitState.OTHER))
    return next(down, "")
