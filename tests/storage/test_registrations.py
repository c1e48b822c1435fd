# SPDX-License-Identifier: Apache-2.0
"""The agent registers a host's paths, and the driver takes them away: the kernel's own nexuses, on tgt and on LIO.

One guest is the host for all; each test begins with a LUN that nobody is registered on, and an agent that knows of
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.ports.scsi_hosts import CLEAR, COUNT, CUT, LIMIT_S, OPEN, OPERATOR_KEY, RESERVED
from tests.ports.tgt import FENCER, OPERATOR, TARGET, Tgt
from tests.storage.registering_guest import HOST, KEY
from tests.storage.registering_host import INNER, LIO_TARGET, OUTER, Host, lacks
from vmhad.agent import registrar
from vmhad.drivers.storage.iscsi_session import Portal, Session
from vmhad.drivers.storage.scsi_lun import Lun
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.scsi import scsi_bytes as scsi
from vmhad.scsi.scsi_bytes import Keys, Out

pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "it is here")
OTHER_PATH = f"iqn.2026-01.example.vmhad:{HOST}-by-another-port"
REFUSED = "EBADE"


class Place:
    """One LUN that the host has a path to. portal: where those find it that are not on the host."""

    def __init__(self, host: Host, portal: str, target: str) -> None:
        self.host, self._portal, self.target = host, portal, target
        self.storage = ScsiPr(
            "lun-a",
            {"portals": [portal], "target": target, "luns": [1], "initiator": FENCER},
            {HOST: (hex(KEY),)},
            LIMIT_S,
        )
        wait(lambda: len(self.names()) == 1)
        (self.name,) = self.names()

    def names(self) -> list[str]:
        return [name for name, *_ in self.host.ask("paths", target=self.target)]

    @contextmanager
    def by(self, initiator: str) -> Iterator[Session]:
        with Session(Portal(self._portal, self.target, initiator), time.monotonic() + LIMIT_S) as session:
            yield session

    def fresh(self) -> None:
        self.host.ask("kill")
        self.host.ask("boot")
        # LIO takes a new port of the name that holds the reservation for nobody.
        self.does(OPERATOR_KEY, (CLEAR, 0), who=f"{OPERATOR}-{next(COUNT)}")
        self.does(OPERATOR_KEY, (Out.RESERVE, 0))

    def does(self, key: int, *acts: tuple[int, int], who: str = OPERATOR) -> None:
        """Registers with the key, and then what is said: the action and its key. On tgt a new session is a new
        nexus."""
        with self.by(who) as session:
            Lun(session, 1).look()
            for cdb, said in (
                (scsi.reserve_out(Out.REGISTER_AND_IGNORE), scsi.parameters(0, key)),
                *((_cdb(action), scsi.parameters(key, action_key)) for action, action_key in acts),
            ):
                answer = session.command(1, cdb, said)
                assert answer.status == scsi.GOOD, answer

    def keys(self) -> Keys:
        with self.by(OPERATOR) as session:
            return Lun(session, 1).keys()

    def start_agent(self) -> None:
        self.host.ask("start", target=self.target)

    def until_it_says(self, word: str) -> None:
        """'' where all is well."""
        said: list[object] = []

        def is_so() -> bool:
            said[:] = [self.host.ask("words")]
            complaints, words = said[0] or ([], [])  # type: ignore[misc]
            return words == [word] and (not word or word in " ".join(complaints))

        wait(is_so, said)

    def writes(self, number: int = 1) -> bool:
        said = self.host.ask("write", name=self.name, number=number)
        assert said in ("", REFUSED), said
        return said == ""


def _cdb(action: int) -> bytes:
    return bytes((0x5F, action)) + scsi.reserve_out(Out.REGISTER, RESERVED)[2:]


def wait(is_so: Callable[[], bool], said: object = "") -> None:
    until = time.monotonic() + 30.0
    while not is_so():
        assert time.monotonic() < until, said
        time.sleep(0.05)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    one = Host(tmp_path_factory.mktemp("host"))
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="module")
def on_tgt(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    target = Tgt(tmp_path_factory.mktemp("tgt"))
    try:
        target.start()
        said = host.ask("login", address=OUTER, port=target.port, target=TARGET)
        assert said.startswith("0 "), said
        yield Place(host, target.portal, TARGET)
    finally:
        target.stop()


@pytest.fixture(scope="module")
def on_lio(host: Host) -> Place:
    said = host.ask("login", address=INNER, port=3260, target=LIO_TARGET)
    assert said.startswith("0 "), said
    return Place(host, f"127.0.0.1:{host.target_port}", LIO_TARGET)


@pytest.fixture(params=["on_tgt", "on_lio"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    found.fresh()
    return found


def test_a_host_is_registered_cut_off_and_given_back(place: Place) -> None:
    assert not place.writes()
    place.start_agent()
    place.until_it_says("")
    assert place.writes() and place.storage.read(HOST)[0] is OPEN
    place.storage.cut(HOST)
    assert place.storage.read(HOST)[0] is CUT and not place.writes()
    place.until_it_says(registrar.CUT)
    place.host.ask("boot")
    place.start_agent()
    place.until_it_says(registrar.CUT)
    assert place.storage.read(HOST)[0] is CUT and not place.writes()
    place.storage.restore(HOST)
    place.until_it_says("")
    assert place.writes() and place.storage.read(HOST)[0] is OPEN
    place.storage.cut(HOST)
    assert place.storage.read(HOST)[0] is CUT and not place.writes()


@pytest.mark.parametrize("place", ["on_tgt"], indirect=True)
def test_a_path_that_comes_again_is_registered_again(place: Place) -> None:
    place.start_agent()
    place.until_it_says("")
    place.host.ask("vanish", name=place.name)
    wait(lambda: place.host.ask("words") == [[], []])
    place.does(OPERATOR_KEY + 1, (Out.PREEMPT, KEY), who=f"{OPERATOR}-{next(COUNT)}")
    place.host.ask("appear")
    place.until_it_says("")
    (place.name,) = place.names()
    assert place.writes()


@pytest.mark.parametrize("place", ["on_lio"], indirect=True)
def test_what_somebody_took_away_is_not_registered_again_in_this_boot(place: Place) -> None:
    place.start_agent()
    place.until_it_says("")
    before = place.keys().keys
    place.start_agent()
    place.until_it_says("")
    assert place.keys().keys == before and place.writes(), "an agent that starts again changes nothing"
    place.does(OPERATOR_KEY + 1, (Out.PREEMPT, KEY), who=f"{OPERATOR}-{next(COUNT)}")
    place.until_it_says(registrar.LOST)
    place.start_agent()
    place.until_it_says(registrar.LOST)
    assert KEY not in place.keys().keys and not place.writes()
    place.host.ask("boot")
    place.start_agent()
    place.until_it_says("")
    assert place.writes()


@pytest.mark.parametrize("told", [False, True], ids=["alone", "others are told"])
def test_an_agent_that_hung_while_its_host_was_cut_off(place: Place, told: bool) -> None:
    """Between its look and its registration; the host is known there by another path. Only where another command of the
    host by this path was told of the reset before does the target take the registration, and then it is withdrawn."""
    place.does(KEY, who=OTHER_PATH)
    place.host.ask("hold")
    place.start_agent()
    wait(lambda: place.host.ask("is_stopped"))
    place.storage.cut(HOST)
    assert place.storage.read(HOST)[0] is CUT
    if told:
        assert not place.writes()
    before = place.keys()
    place.host.ask("go_on")
    place.until_it_says(registrar.CUT)
    after = place.keys()
    assert after.keys == before.keys
    assert (after.generation != before.generation) == told, "it was registered for a moment, or was not"
    assert place.storage.read(HOST)[0] is CUT and not place.writes()


def test_an_agent_that_was_killed_in_the_middle(place: Place) -> None:
    """The next one cannot know whether its path was registered: where nobody is, it stays so until the host boots."""
    place.host.ask("hold")
    place.start_agent()
    wait(lambda: place.host.ask("is_stopped"))
    place.start_agent()
    place.until_it_says(registrar.LOST)
    assert KEY not in place.keys().keys
    place.host.ask("boot")
    place.start_agent()
    place.until_it_says("")
    assert place.writes()
