# SPDX-License-Identifier: Apache-2.0
"""A host that has an OSD and a monitor of the cluster: it is cut off, and both serve on. What is no way to do that."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.ports.cabled import Cabled
from tests.ports.ceph_server import MON_BESIDE, OSD_BESIDE, PG_NUM, POOL, VMHAD, Beside, CephServer
from tests.ports.storage_ceph import Client, lacks, settings
from tests.storage.rig_ceph import CephRig
from vmhad.drivers.storage.ceph import EXPIRE_S, Ceph
from vmhad.drivers.storage.ceph_blocklist import block, unblock
from vmhad.drivers.storage.ceph_session import Session
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered

OPEN, CUT = Access.OPEN, Access.CUT
LIMIT_S, WITHIN_S, WATCH_S = 5.0, 60.0, 2.0
OTHER = "other"


class Hyperconverged(CephRig):
    """The host's OSD has its address; its monitor another one, that only this host has."""

    def __init__(self, server: CephServer, cables: Cabled, where: Path, monitor: str) -> None:
        super().__init__(server, cables, where)
        self.monitor = monitor
        self.storage = self.driver(self.address, monitor)

    def driver(self, *addresses: str) -> Ceph:
        told = {**settings(self.server), "hyperconverged": True}
        return Ceph("ceph-a", told, {self.host: addresses, OTHER: (self.cables.addresses[OTHER],)}, LIMIT_S)

    def client_by_its_monitor(self) -> Client:
        """One of the host's that the host's own monitor answered first: which one does is chance."""
        with closing(self.session()) as session:
            limit, before = time.monotonic() + WITHIN_S, session.clients(self.monitor)
            while True:
                made = self.client()
                assert made.is_open() and time.monotonic() < limit
                if session.clients(self.monitor) - before:
                    return made

    def session(self) -> Session:
        return Session(str(self.server.conf_file), VMHAD, LIMIT_S)

    def writes_everywhere(self) -> None:
        """What is not of the host writes to each placement group, and some are its OSD's."""
        first = set()
        for number in range(48):
            self._seen.write_full(f"one.{number}", b"x")
            first.add(self.server.ask("osd map", pool=POOL, object=f"one.{number}")["acting_primary"])
        assert int(OSD_BESIDE) in first

    def is_osd_up(self) -> bool:
        (osd,) = (one for one in self.server.ask("osd dump")["osds"] if one["osd"] == int(OSD_BESIDE))
        return bool(osd["up"])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hyperconverged]:
    if lacks():
        pytest.skip(lacks())
    where = tmp_path_factory.mktemp("ceph")
    cables = Cabled([CephRig.host, OTHER])
    host = cables.addresses[CephRig.host]
    monitor = f"{host.rpartition('.')[0]}.111"
    beside = Beside(lambda *argv: cables.on(CephRig.host, *argv), host, monitor)
    server = CephServer(where / "ceph", cables.server, beside)
    with ExitStack() as ends:
        ends.callback(cables.end)
        cables.lay()
        subprocess.run(cables.on(CephRig.host, "ip", "addr", "add", monitor, "dev", "lo"), check=True)
        subprocess.run(["ip", "route", "add", monitor, "via", host], check=True)
        ends.callback(server.end)
        server.start()
        made = Hyperconverged(server, cables, where, monitor)
        ends.callback(made.end)
        yield made


@pytest.fixture
def ceph(opened: Hyperconverged) -> Hyperconverged:
    opened.fresh()
    return opened


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.1)


def cut(ceph: Hyperconverged) -> None:
    """As often as it takes: monitors that lost one of them answer nothing until they have voted."""

    def is_sent() -> bool:
        try:
            ceph.storage.cut(ceph.host)
        except Unanswered:
            return False
        return True

    until(is_sent)
    until(lambda: ceph.storage.read(ceph.host)[0] is CUT)


def flooded(ceph: Hyperconverged) -> None:
    ceph.start_writer(16)
    until(lambda: ceph.accepted_since(0.0) >= 300)


def test_the_host_is_cut_off_and_its_daemons_serve_on(ceph: Hyperconverged) -> None:
    old, by_its_monitor = ceph.client(), ceph.client_by_its_monitor()
    assert old.is_open() and old.writes() and by_its_monitor.writes()
    flooded(ceph)
    cut(ceph)
    proven, held = time.monotonic(), ceph.held()
    time.sleep(WATCH_S)
    assert ceph.held() == held and ceph.accepted_since(proven) == 0
    assert not old.writes() and not by_its_monitor.writes()
    new = ceph.client()
    assert not (new.is_open() and new.writes())
    assert ceph.storage.read(OTHER)[0] is OPEN
    ceph.writes_everywhere()
    assert ceph.is_osd_up()
    ceph.server.restart(f"osd-{OSD_BESIDE}")
    ceph.server.restart(f"mon-{MON_BESIDE}")
    until(lambda: not ceph.is_osd_up())
    ceph.server.wait_for_osds()
    until(lambda: len(ceph.server.ask("quorum_status")["quorum_names"]) == 3)
    ceph.writes_everywhere()
    assert ceph.storage.read(ceph.host)[0] is CUT
    ceph.storage.restore(ceph.host)
    last = ceph.client()
    assert last.is_open() and last.writes() and not old.writes()


def test_what_it_writes_to_its_own_osd_while_nobody_reaches_it_is_never_there(ceph: Hyperconverged) -> None:
    """Its OSD knows of no cut, and takes on what the host's clients write: that waits for the other OSDs, which have
    left it behind."""
    flooded(ceph)
    ceph.link("down")
    try:
        ceph.server.ask("osd down", ids=[OSD_BESIDE])
        cut(ceph)
        before = ceph.medium()
    finally:
        ceph.link("up")
    ceph.server.wait_for_osds()
    time.sleep(WATCH_S)
    assert ceph.medium() == before


def test_a_monitor_of_the_host_that_is_not_listed_is_a_way_in(ceph: Hyperconverged) -> None:
    """A client is known by the address by which it came to the monitor that answered first."""
    client = ceph.client_by_its_monitor()
    with closing(ceph.session()) as session:
        block(session, ceph.address, EXPIRE_S)
        session.pass_through(POOL, PG_NUM[POOL])
        assert client.writes()
        unblock(session, session.ask("osd dump"), ceph.address)
    blind = ceph.driver(ceph.address)
    with pytest.raises(Refused, match=f"its monitor {MON_BESIDE} has the address {ceph.monitor}, which is not among"):
        blind.cut(ceph.host)
    access, said = blind.read(ceph.host)
    assert access is Access.UNKNOWN and ceph.monitor in said


def test_a_host_whose_osds_fill_a_cache_is_not_blocked(ceph: Hyperconverged) -> None:
    for pool in ("cold", "hot"):
        ceph.server.ask("osd pool create", pool=pool, pg_num=1, pool_type="replicated")
    ceph.server.ask("osd tier add", pool="cold", tierpool="hot")
    try:
        with pytest.raises(Refused, match="pool hot is a cache"):
            ceph.storage.cut(ceph.host)
        ceph.storage.cut(OTHER)
        ceph.storage.restore(OTHER)
    finally:
        ceph.server.ask("osd tier remove", pool="cold", tierpool="hot")
