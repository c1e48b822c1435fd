# SPDX-License-Identifier: Apache-2.0
"""A password of a BMC is nowhere but in the driver's memory: a marker is planted as one, the drivers fail in every way,
and it is looked for in what they log, raise, show and hold on the stack, and in what the process shows of itself."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from between import GARBAGE, Babble, Between
from ipmi_sim import IpmiSim, present
from loopback import free_port
from redfish_sim import RedfishSim, certificate
from sushy import exceptions as of_sushy

from vmhad.drivers.power.by_host import ByHost, Polled
from vmhad.drivers.power.ipmi import Ipmi
from vmhad.drivers.power.redfish import Redfish
from vmhad.drivers.power.two_paths import TwoPaths
from vmhad.drivers.watch.bmc_power import BmcPowerWatch
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered
from vmhad.sim.clock import Agenda, SimClock

pytestmark = pytest.mark.skipif(not present(), reason="ipmi_sim is not installed")

MARKER = "mArKeR-0f-a-bMc"
USER = "operator"
LIMIT_S = 1.0
# As it is, in hex, and as HTTP carries it.
SPELLINGS = (
    MARKER,
    MARKER.encode().hex(),
    MARKER.encode().hex(" "),
    base64.b64encode(f"admin:{MARKER}".encode()).decode(),
)


def clean(text: str, where: str) -> None:
    for spelling in SPELLINGS:
        assert spelling not in text, where


@dataclass
class Planted:
    """driver: with the marker as its password, in front of something that fails."""

    name: str
    driver: Polled


FAILURES = ("silent", "nobody there", "wrong password", "garbage", "refused at the command", "broken")


@pytest.fixture(params=["ipmi", "redfish"])
def planted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Polled]]:
    with ExitStack() as ends:
        if request.param == "ipmi":
            yield lambda name: _ipmi(name, tmp_path, ends)
        else:
            service = request.getfixturevalue("redfish_service")
            service.reset()
            ends.callback(service.reset)
            yield lambda name: _redfish(name, service, ends, tmp_path)


def _ipmi(name: str, where: Path, ends: ExitStack) -> Polled:
    sim = IpmiSim(where / name, password=MARKER)
    ends.callback(sim.stop)
    sim.start()
    bmc = sim.bmc(password=MARKER[::-1] if name == "wrong password" else MARKER)
    if name == "silent":
        sim.hang()
    elif name == "nobody there":
        sim.stop()
    elif name == "garbage":
        bmc = replace(bmc, port=ends.enter_context(Between(GARBAGE["rmcp and noise"])).port)
    elif name in ("refused at the command", "broken"):
        bmc = replace(bmc, privilege="user")
    return Ipmi({"h": bmc}, LIMIT_S)
