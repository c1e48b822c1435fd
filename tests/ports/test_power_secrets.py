# SPDX-License-Identifier: Apache-2.0
"""The password of a BMC is nowhere but in its driver's memory: the drivers fail in every way, and it is looked for in
what they log, say and raise, in all that hangs on what is raised, and in what the machine shows of its processes.

What a process that is stopped in mid-call has on its stack is not looked at: there the library holds what it sends.
That none of it is left in a core dump is shown by test_no_core_dump.py.
"""

from __future__ import annotations

import base64
import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import ipmi_sim
import pytest
import redfish_sim
from test_power_contract import IpmiBench, RedfishBench

from vmhad.drivers.power.all_of import AllOf
from vmhad.drivers.power.redfish import Redfish
from vmhad.drivers.power.two_paths import TwoPaths
from vmhad.ports import Refused, Unanswered

pytestmark = pytest.mark.skipif(not ipmi_sim.present(), reason="ipmi_sim is not installed")

MARKERS = (ipmi_sim.PASSWORD, redfish_sim.PASSWORD)
# As it is, in hex, and as HTTP carries it.
SPELLINGS = [
    spelling
    for marker in MARKERS
    for spelling in (
        marker,
        marker.encode().hex(),
        marker.encode().hex(" "),
        *(base64.b64encode(f"{user}:{marker}".encode()).decode() for user in (redfish_sim.USER, redfish_sim.VIEWER)),
    )
]
MOODS = ["well", "silent", "nobody there", "wrong password", "garbage: noise", "refuses", "loses its answer"]
LIBRARIES = ("sushy", "pyipmi", "requests", "urllib3")


def shown_in(text: str) -> list[str]:
    return [spelling for spelling in SPELLINGS if spelling in text]


@pytest.fixture(params=["ipmi", "redfish"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IpmiBench | RedfishBench]:
    with ExitStack() as ends:
        if request.param == "ipmi":
            yield IpmiBench(tmp_path / "bmc", ends)
        else:
            yield RedfishBench(request.getfixturevalue("redfish_service"), ends)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that anybody says, also what the driver keeps its library from saying."""
    for name in ("", *LIBRARIES):
        caplog.set_level(logging.DEBUG, logger=name or None)
    return caplog


@pytest.mark.parametrize("mood", MOODS)
def test_nothing_that_a_driver_says_holds_the_password(
    bench: IpmiBench | RedfishBench, mood: str, logs: pytest.LogCaptureFixture
) -> None:
    power = bench.mood(mood)
    poll = power.poll_session("h", 1.0)
    said = [repr(power), repr(power.__dict__), repr(poll), repr(poll.__dict__), power.read("h")[1], poll.read()[1]]
    said += [repr(poll.__dict__), *failures(power), *failures(TwoPaths(power, power, ["h"]))]
    said += [repr(AllOf([power, power]).__dict__), AllOf([power, power]).read("h")[1], *failures(AllOf([power, power]))]
    poll.close()
    for text in (*said, logs.text, *(str(record.__dict__) for record in logs.records)):
        assert not shown_in(text), text


def test_a_certificate_that_is_not_trusted(
    tmp_path: Path, redfish_service: redfish_sim.RedfishSim, logs: pytest.LogCaptureFixture
) -> None:
    bmc = redfish_service.bmc(ca_file=redfish_sim.certificate(tmp_path)[0])
    for text in (*failures(Redfish({"h": bmc}, 1.0)), logs.text, repr(bmc), repr(replace(bmc, port=1))):
        assert not shown_in(text), text


def test_the_library_does_have_it_where_the_driver_looks_away() -> None:
    """Else the test of what is raised would see nothing whatever the driver did."""
    try:
        _raise_beside(redfish_sim.PASSWORD)
    except ValueError as error:
        assert shown_in("".join(everything(error)))


def _raise_beside(password: str) -> None:
    try:
        raise KeyError(len(password))
    except KeyError:
        raise ValueError from None


def test_no_process_shows_it(bench: IpmiBench | RedfishBench) -> None:
    """While a call is under way, for a driver may have others do its work."""
    power = bench.mood("silent")
    call = threading.Thread(target=power.read, args=("h",))
    call.start()
    seen = 0
    while call.is_alive():
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            seen += 1
            assert not shown_in(words), words
    call.join()
    assert seen > 1


def failures(power: Any) -> Iterator[str]:
    """What comes of telling it to switch, with all that hangs on that."""
    for act in (power.off, power.on):
        try:
            act("h")
        except (Refused, Unanswered) as error:
            yield from everything(error)


def everything(error: BaseException) -> Iterator[str]:
    """As the most talkative of crash reports: also what was raised beside it and put aside, and the locals of every
    frame, with what these hold."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        yield f"{one} {one!r} {one.args!r}"
        yield "".join(traceback.TracebackException.from_exception(one, capture_locals=True).format())
        yield from _locals(one.__traceback__)


def _locals(at: TracebackType | None) -> Iterator[str]:
    while at is not None:
        for value in list(at.tb_frame.f_locals.values()):
            yield f"{value!r} {getattr(value, '__dict__', '')!r}"
        at = at.tb_next
