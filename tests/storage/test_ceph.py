# SPDX-License-Identifier: Apache-2.0
"""What is Ceph's own: what proves a cut there, what is never blocked, what a user of it must be allowed."""

from __future__ import annotations

import base64
import logging
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.ports.ceph_server import PG_NUM, VMHAD, VMHAD_CAPS
from tests.ports.loopback import free_port
from tests.ports.storage_ceph import lacks, settings
from tests.storage.rig_ceph import CephRig, rig
from vmhad.drivers.storage.ceph import EXPIRE_S, Ceph
from vmhad.drivers.storage.ceph_blocklist import block_clients
from vmhad.drivers.storage.ceph_groups import NAMESPACE, group, names
from vmhad.drivers.storage.ceph_session import Session
from vmhad.kernel.signal import Access
from vmhad.ports import Refused

OPEN, CUT, UNKNOWN = Access.OPEN, Access.CUT, Access.UNKNOWN
LIMIT_S = 3.0
WATCH_S = 2.0


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephRig]:
    if lacks():
        pytest.skip(lacks())
    with rig(tmp_path_factory.mktemp("ceph")) as made:
        yield made


@pytest.fixture
def ceph(opened: CephRig) -> CephRig:
    opened.server.go_on()
    opened.fresh()
    return opened


def driver(ceph: CephRig, *addresses: str, user: str = VMHAD, **changes: object) -> Ceph:
    known = {"h": addresses or (ceph.address,)}
    return Ceph("ceph-a", {**settings(ceph.server), "user": user, **changes}, known, LIMIT_S)


def proof(ceph: CephRig, storage: Ceph | None = None) -> float:
    until = time.monotonic() + 60
    while (storage or ceph.storage).read("h")[0] is not CUT:
        assert time.monotonic() < until
    return time.monotonic()


def flooded(ceph: CephRig) -> None:
    ceph.start_writer(16)
    until = time.monotonic() + 20
    while ceph.accepted_since(0.0) < 500:
        assert time.monotonic() < until
        time.sleep(0.02)


def nothing_lands(ceph: CephRig, since: float) -> None:
    held = ceph.held()
    time.sleep(WATCH_S)
    assert ceph.held() == held
    assert ceph.accepted_since(since) == 0


@pytest.mark.parametrize("groups", [1, 8, 12, 16])
def test_an_object_is_in_the_group_that_we_take_it_for(ceph: CephRig, groups: int) -> None:
    pool = f"of-{groups}"
    ceph.server.ask("osd pool create", pool=pool, pg_num=groups, pool_type="replicated")
    for name in [*names(groups), *("n" * length for length in range(1, 30))]:
        placed = ceph.server.ask("osd map", pool=pool, object=name, nspace=NAMESPACE)["pgid"]
        assert placed.partition(".")[2] == f"{group(name, groups):x}"


def test_every_group_has_a_name() -> None:
    assert [group(name, 100) for name in names(100)] == list(range(100))


def test_an_osd_that_stands_still_keeps_from_a_proof(ceph: CephRig) -> None:
    """It holds writes that it took from the network already, and does not know yet that their writer is cut off."""
    flooded(ceph)
    ceph.server.hang("osd-1")
    ceph.storage.cut("h")
    access, said = driver(ceph).read("h")
    assert access is UNKNOWN and said
    ceph.server.go_on()
    nothing_lands(ceph, proof(ceph))


def test_a_replica_that_stands_still_keeps_from_a_proof(ceph: CephRig) -> None:
    """Its OSD is the first one of no group. Those of the other OSD, which know of the cut, have begun writes that land
    when it goes on; a read would not wait for them."""
    ceph.server.ask("osd primary-affinity", id=1, weight=0.0)
    try:
        flooded(ceph)
        ceph.server.hang("osd-1")
        ceph.storage.cut("h")
        access, said = driver(ceph).read("h")
        assert access is UNKNOWN and said
        ceph.server.go_on()
        nothing_lands(ceph, proof(ceph))
    finally:
        ceph.server.go_on()
        ceph.server.ask("osd primary-affinity", id=1, weight=1.0)


def test_osds_that_are_slow_to_tell_their_groups_keep_from_a_proof(ceph: CephRig) -> None:
    """They say themselves that they have the newest map, while their groups go by the one before it."""
    patient = Ceph("ceph-a", {**settings(ceph.server), "pools": ["vms"]}, {"h": (ceph.address,)}, 30.0)
    flooded(ceph)
    delay(ceph, 0.1)
    try:
        ceph.storage.cut("h")
        proven = proof(ceph, patient)
    finally:
        delay(ceph, 0.0)
    nothing_lands(ceph, proven)


def delay(ceph: CephRig, seconds: float) -> None:
    """Of all that the OSDs hand on inside."""
    for name, value in (("duration", seconds), ("probability", 1.0 if seconds else 0.0)):
        ceph.server.ask("config set", who="osd", name=f"osd_debug_inject_dispatch_delay_{name}", value=str(value))


def test_an_osd_that_the_map_calls_down_keeps_nobody_from_a_proof(ceph: CephRig) -> None:
    """Its groups were taken over by the other one; when it goes on, what it took before is in no group any more.

    What it had written to both disks before it stood still is answered by it when it goes on, long after the proof: so
    what counts is what the objects hold, not when an answer came.
    """
    flooded(ceph)
    ceph.server.hang("osd-1")
    ceph.server.ask("osd down", ids=["1"])
    ceph.storage.cut("h")
    proof(ceph)
    before = ceph.medium()
    ceph.server.go_on()
    time.sleep(WATCH_S)
    assert ceph.medium() == before


def test_a_blocking_for_an_hour_is_no_cut_and_is_made_one(ceph: CephRig) -> None:
    ceph.server.ask("osd blocklist", blocklistop="add", addr=ceph.address, expire=3600.0)
    access, said = ceph.storage.read("h")
    assert access is UNKNOWN and "for a while only" in said
    ceph.storage.cut("h")
    assert ceph.storage.read("h")[0] is CUT


def test_a_range_that_an_operator_blocked_counts(ceph: CephRig) -> None:
    ranged = {"range": "range", "addr": f"{ceph.address}/32"}
    ceph.server.ask("osd blocklist", blocklistop="add", expire=1e8, **ranged)
    try:
        assert ceph.storage.read("h")[0] is CUT
    finally:
        ceph.server.ask("osd blocklist", blocklistop="rm", **ranged)
    assert ceph.storage.read("h")[0] is OPEN


def test_a_host_is_open_while_one_of_its_addresses_is(ceph: CephRig) -> None:
    ceph.storage.cut("h")
    access, said = driver(ceph, ceph.address, "fd00::5").read("h")
    assert access is OPEN and "fd00::5" in said
    both = driver(ceph, ceph.address, "fd00::5")
    both.cut("h")
    assert both.read("h")[0] is CUT
    both.restore("h")
    assert both.read("h")[0] is OPEN


def test_no_daemon_of_the_cluster_is_blocked(ceph: CephRig) -> None:
    with_daemon = driver(ceph, ceph.address, ceph.server.address)
    with pytest.raises(Refused, match=f"{ceph.server.address} is also the address of a daemon"):
        with_daemon.cut("h")
    access, said = with_daemon.read("h")
    assert access is UNKNOWN and "a daemon of the cluster" in said
    assert ceph.storage.read("h")[0] is OPEN


def test_no_list_of_a_hosts_clients_is_whole(ceph: CephRig) -> None:
    """Why nobody is cut off client by client. All that the monitors know of are blocked, and the user that all of them
    have is gone: a client that was out of reach while the monitors were started anew is in no list, and its ticket lets
    it write on, also at an OSD that it never spoke to. Of its whole address it is cut off."""
    user = "of-one-host"
    ceph.server.add_user(user, ("mon", "profile rbd", "osd", "profile rbd pool=vms"))
    client = ceph.client(user=user)
    assert client.is_open()
    ceph.link("down")
    ceph.server.restart("mon-a")
    ceph.server.ask("auth rm", entity=f"client.{user}")
    session = Session(str(ceph.server.conf_file), VMHAD, LIMIT_S)
    try:
        known = session.clients(ceph.address)
        block_clients(session, known, EXPIRE_S)
        for pool, groups in PG_NUM.items():
            session.pass_through(pool, groups)
        ceph.link("up")
        assert not ceph.client(user=user).is_open()
        assert known == session.clients(ceph.address) == frozenset()
        assert client.writes()
        assert ceph.storage.read("h")[0] is OPEN
    finally:
        ceph.link("up")
        session.close()
    ceph.storage.cut("h")
    proof(ceph)
    assert not client.writes()


def test_a_pool_that_is_not_there_keeps_from_a_proof(ceph: CephRig) -> None:
    ceph.storage.cut("h")
    access, said = driver(ceph, pools=["vms", "gone"]).read("h")
    assert access is UNKNOWN and "gone" in said


def user(ceph: CephRig, name: str, mon: str, osd: str) -> Ceph:
    ceph.server.add_user(name, ("mon", mon, "osd", osd))
    return driver(ceph, user=name)


def test_a_user_that_may_not_block_is_refused(ceph: CephRig) -> None:
    bare = user(ceph, "bare", "allow r", VMHAD_CAPS[3])
    with pytest.raises(Refused, match="Permission denied"):
        bare.cut("h")
    assert bare.read("h")[0] is OPEN


def test_a_user_that_may_not_ask_a_pool_proves_nothing(ceph: CephRig) -> None:
    half = user(ceph, "half", VMHAD_CAPS[1], f"allow rwx pool=vms namespace={NAMESPACE}")
    half.cut("h")
    access, said = half.read("h")
    assert access is UNKNOWN and "pool volumes" in said


def test_a_user_that_may_not_ask_who_is_there_cuts_all_the_same(
    ceph: CephRig, caplog: pytest.LogCaptureFixture
) -> None:
    blind = user(ceph, "blind", 'allow r, allow command "osd blocklist"', VMHAD_CAPS[3])
    blind.cut("h")
    assert blind.read("h")[0] is CUT
    assert "not known one by one" in caplog.text


def key(secret: bytes) -> str:
    """A key as Ceph writes it: kind, time, length, secret; and its marker is the text of it that stands in files."""
    return base64.b64encode(struct.pack("<HIIH", 1, 0, 0, len(secret)) + secret).decode()


MARKER = key(b"marker-password!")


@pytest.mark.parametrize(
    "planted",
    [f"[client.leaky]\n\tkey = {MARKER}\n", f"[client.leaky]\n\tkey = {MARKER}{MARKER}broken\n", f"key {MARKER}\n"],
)
def test_no_secret_is_told(
    ceph: CephRig, planted: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    ceph.server.keyring("leaky").write_text(planted)
    leaky = driver(ceph, user="leaky")
    access, said = leaky.read("h")
    assert access is UNKNOWN
    told = [said]
    for act in (leaky.cut, leaky.restore):
        with pytest.raises(Exception) as caught:
            act("h")
        told += [repr(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
    told += [*capfd.readouterr(), caplog.text, Path("/proc/self/cmdline").read_text()]
    for text in told:
        assert MARKER not in text and "marker-password" not in text


def test_a_broken_configuration_of_ceph_tells_no_secret(
    ceph: CephRig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    conf_file = tmp_path / "ceph.conf"
    conf_file.write_text(f"[global\nkey = {MARKER}\n{MARKER}\n")
    access, said = driver(ceph, conf_file=str(conf_file)).read("h")
    assert access is UNKNOWN
    for text in (said, *capfd.readouterr()):
        assert MARKER not in text


def test_a_cluster_that_is_not_there(ceph: CephRig, tmp_path: Path) -> None:
    conf_file = tmp_path / "ceph.conf"
    conf_file.write_text(f"[global]\nmon_host = v2:127.0.0.1:{free_port()}\nkeyring = {ceph.server.keyring(VMHAD)}\n")
    for where in (conf_file, tmp_path / "none"):
        began = time.monotonic()
        assert driver(ceph, conf_file=str(where)).read("h")[0] is UNKNOWN
        assert time.monotonic() - began < LIMIT_S + 0.5


def test_many_hosts_are_cut_off_at_the_same_time(ceph: CephRig) -> None:
    """More than calls may be under way; those wait for their turn, and none is taken for one that hangs."""
    hosts = {f"h{number}": (f"203.0.113.{number}",) for number in range(1, 41)}
    many = Ceph("ceph-a", settings(ceph.server), hosts, 10.0)
    with ThreadPoolExecutor(len(hosts)) as pool:
        for calls in (many.cut, many.read, many.restore):
            said = list(pool.map(calls, hosts))
            if calls == many.read:
                assert {access for access, _ in said} == {CUT}
    assert many.read("h40")[0] is OPEN


def test_a_cut_that_no_incident_holds_is_named_by_the_command(ceph: CephRig, tmp_path: Path) -> None:
    secret = tmp_path / "bmc.yaml"
    secret.touch(0o600)
    secret.write_text("default: secret\n")
    config = tmp_path / "vmhad.conf"
    config.write_text(
        f"[engine]\nname = e1\nsegments_file = {tmp_path}/segments.yaml\njournal = sqlite\nstandalone = true\n"
        f"sqlite_path = {tmp_path}/journal.sqlite\n[nova]\nauth_url = http://127.0.0.1:{free_port()}/v3\n"
        f"password = secret\n[power]\ncredentials_file = {secret}\n"
    )
    storage = {
        "name": "ceph-a", "driver": "ceph", "settings": settings(ceph.server), "holds": ["nova"],
        "clients": {"h": [ceph.address], "h2": ["203.0.113.2"]},
    }  # fmt: skip
    hosts = [{"name": name, "bmc": {"address": "127.0.0.1", "user": "u", "port": free_port()}} for name in ("h", "h2")]
    told = {"segments": [{"name": "s1", "hosts": hosts}], "storages": [storage]}
    (tmp_path / "segments.yaml").write_text(yaml.safe_dump(told))

    def check() -> tuple[int, list[str]]:
        command = [Path(sys.executable).with_name("vmhad-manage"), "--config-file", config, "storage", "check"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert not done.stderr
        return done.returncode, done.stdout.splitlines()

    assert check() == (0, ["2 readings of 1 storages: 0 wrong, 0 unknown"])
    ceph.storage.cut("h")
    code, (first, last) = check()
    assert (code, last) == (1, "2 readings of 1 storages: 1 wrong, 0 unknown")
    assert first.startswith(f"h ceph-a: CUT, and no open incident holds it (no incident cut it off): {ceph.address} ")


def test_the_pools_of_the_server_are_all_asked(ceph: CephRig) -> None:
    ceph.storage.cut("h")
    access, said = ceph.storage.read("h")
    assert access is CUT
    for pool, groups in PG_NUM.items():
        assert f"{groups} of {pool}" in said
