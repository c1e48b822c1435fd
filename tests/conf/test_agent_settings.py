# SPDX-License-Identifier: Apache-2.0
"""What an agent is told; what cannot be right ends its start with one sentence that says where."""

# One mistake, one line: a table that is wrapped is not read.
# ruff: noqa: E501
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vmhad.cmd.agent import power_of
from vmhad.conf.agent_luns import ReservedLuns
from vmhad.conf.agent_settings import AgentSettings, StorageAccess, WatchdogAccess, Witness, agent_settings
from vmhad.conf.load import parse
from vmhad.conf.settings import ConfigError
from vmhad.kernel.beat import Plane
from vmhad.kernel.self_fence import SelfFence
from vmhad.kernel.topology import Host, Segment

SEGMENTS: dict[str, Any] = {
    "segments": [
        {"name": "s1", "hosts": [{"name": "h1", "domains": {"rack": "r1"}, "planes": {"tenant": "2001:DB8::1", "management": "192.0.2.1"}}, {"name": "h2"}]},
        {"name": "s2", "policy": {"silent_means": "fence"}, "hosts": [{"name": "h3", "bmc": {"address": "192.0.2.9"}, "inventory": {"vcpus": 4}}]},
    ]
}


def load(where: Path, lines: str, segments: dict[str, Any] | None = None) -> AgentSettings:
    (where / "segments.yaml").write_text(yaml.safe_dump(segments or SEGMENTS))
    path = where / "vmhad.conf"
    path.write_text(f"[agent]\nsegments_file = {where / 'segments.yaml'}\n{lines}\n")
    return agent_settings(parse(["--config-file", str(path)]))


def test_good(tmp_path: Path) -> None:
    told = load(tmp_path, "host = h1\nwitnesses = management:192.0.2.254,tenant:2001:db8::f\nstorages = a dir:/mnt/a m-1\nstorages = b dir:/mnt/b m-2")
    assert told.segment == Segment("s1", (Host("h1", {"rack": "r1"}, {"management": "192.0.2.1", "tenant": "2001:db8::1"}), Host("h2")))
    assert told.storages == (StorageAccess("a", "dir", ("/mnt/a",), "m-1"), StorageAccess("b", "dir", ("/mnt/b",), "m-2"))
    assert told.witnesses == (Witness(Plane.MANAGEMENT, "192.0.2.254"), Witness(Plane.TENANT, "2001:db8::f"))
    assert (told.beat_interval_s, told.peers_watched, told.probe_port) == (1.0, 4, 22)
    assert told.kdump_port == 0
    assert load(tmp_path, "host = h1\nkdump_port = 7410").kdump_port == 7410


def test_a_pool_of_ceph(tmp_path: Path) -> None:
    told = load(tmp_path, "host = h1\nstorages = vms rados:vms:/etc/ceph/ceph.conf:vmhad m-1")
    assert told.storages == (StorageAccess("vms", "rados", ("vms", "/etc/ceph/ceph.conf", "vmhad"), "m-1"),)


def test_a_watchdog_with_one_storage(tmp_path: Path) -> None:
    told = load(tmp_path, "host = h1\nstorages = a dir:/mnt/a m-1\nwatchdog_device = /dev/watchdog0")
    assert told.watchdog == WatchdogAccess("/dev/watchdog0", "a", SelfFence(1.0, 5.0, 20.0, 4.0, 20.0))
    assert load(tmp_path, "host = h1\nlinks = eno1,eno2").watchdog is None


LUNS: dict[str, Any] = {"name": "lun-a", "driver": "scsi_pr", "holds": ["nova"], "clients": {"h1": ["0xa1"]}, "settings": {"portals": ["192.0.2.1"], "target": "iqn.2026-01.example:disks", "luns": [1, 2], "initiator": "iqn.2026-01.example:vmhad", "password_file": "/not/on/this/host", "user": "vmhad"}}


def with_storage(**changes: Any) -> dict[str, Any]:
    return {**SEGMENTS, "storages": [{**LUNS, **changes}]}


def test_luns_that_are_registered(tmp_path: Path) -> None:
    """By the engines' own words: key and prefix stand in one place."""
    lines = "host = h1\nregistered_storages = lun-a naa.6001405AB\nregistrations_file = /run/there"
    settings = {"urls": ["iscsi://192.0.2.1/iqn.2026-01.example:more/7"], "prefix": 0x1234}
    told = load(tmp_path, lines, with_storage(settings={**LUNS["settings"], **settings}))
    target = "iqn.2026-01.example:disks"
    luns = frozenset({(target, 1), (target, 2), ("iqn.2026-01.example:more", 7)})
    assert told.registered_storages == (ReservedLuns("lun-a", 0xA1, 0x1234, luns, frozenset({"naa.6001405ab"})),)
    assert told.registrations_file == "/run/there"
    assert load(tmp_path, "host = h1", with_storage()).registered_storages == ()


@pytest.mark.parametrize(
    ("line", "changes", "sentence"),
    [
        ("lun-b", {}, "'lun-b' is no storage of "),
        ("lun-a wwn", {}, "'lun-a wwn' must be NAME of a storage, or NAME and WWNs like naa."),
        ("lun-a\nregistered_storages = lun-a", {}, "the name 'lun-a' stands twice."),
        ("lun-a", {"driver": "ceph"}, "'lun-a' has the driver 'ceph', and LUNs are those of scsi_pr."),
        ("lun-a", {"clients": {"h2": ["0xa1"]}}, "'lun-a' must know 'h1' by one reservation key in "),
        ("lun-a", {"clients": {"h1": ["0xa1", "0xa2"]}}, "'lun-a' must know 'h1' by one reservation key in "),
        ("lun-a", {"clients": {"h1": ["a1"]}}, "clients: h1 must have reservation keys like 0x1f, of at most 16 hex digits and not zero."),
        ("lun-a", {"clients": {"h1": ["0x766d0c0000000001"]}}, "the key of 'h1' at 'lun-a' begins with the prefix of vmhad's own keys."),
        ("lun-a", {"settings": {"luns": [1]}}, "target must hold an iSCSI name like iqn.2026-01.example:disks."),
        ("lun-a", {"settings": {}}, "either portals, target and luns, or urls, must say which LUNs there are."),
        ("lun-a", {"settings": {**LUNS["settings"], "prefix": "vm"}}, "prefix must be a number from 1 to 0xffff."),
    ],
)  # fmt: skip
def test_luns_that_cannot_be_registered(tmp_path: Path, line: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"host = h1\nregistered_storages = {line}", with_storage(**changes))
    said = str(caught.value)
    assert said.startswith("[agent] registered_storages: ") and sentence in said and said.count("\n") == 0


def test_it_needs_no_bmcs_and_reads_none(tmp_path: Path) -> None:
    assert load(tmp_path, "host = h3").segment == Segment("s2", (Host("h3"),))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("host = h9", "[agent] host: 'h9' is in no segment of "),
        ("host = h1\nstorages = a /mnt/a m", "[agent] storages: 'a /mnt/a m' must be NAME dir:PATH MARKER, with an absolute path, or NAME rados:"),
        ("host = h1\nstorages = a dir:mnt m", "[agent] storages: 'a dir:mnt m' must be NAME dir:"),
        ("host = h1\nstorages = a dir:/mnt", "[agent] storages: 'a dir:/mnt' must be NAME dir:"),
        ("host = h1\nstorages = a rados:vms:/etc/ceph/ceph.conf m", "[agent] storages: 'a rados:vms:/etc/ceph/ceph.conf m' must be NAME dir:"),
        ("host = h1\nstorages = a dir:/a m\nstorages = a dir:/b m", "[agent] storages: the name 'a' stands twice."),
        ("host = h1\nstorages = a dir:/a m\nstorages = b dir:/a m", "[agent] storages: the place 'dir:/a' stands twice."),
        ("host = h1\nwitnesses = 192.0.2.1", "[agent] witnesses: '192.0.2.1' must be PLANE:ADDRESS; the planes are management, storage, tenant."),
        ("host = h1\nwitnesses = management:gateway", "[agent] witnesses: 'management:gateway' must be PLANE:ADDRESS"),
        ("host = h1\nwatchdog_device = /dev/watchdog", "[agent] watchdog_storage must name one of the storages: there is not exactly one."),
        ("host = h1\nstorages = a dir:/a m\nwatchdog_device = /dev/w\nwatchdog_storage = b", "[agent] watchdog_storage: 'b' is not among the storages."),
        ("host = h1\nstorages = a dir:/a m\nwatchdog_device = /dev/w\nwatchdog_lease_s = 8", "[agent] watchdog_lease_s, watchdog_timeout_s: a lease of 8 s does not outlive one failed write, for which it needs 12 s."),
        ("host = h1\nbeat_interval_s = 60", "[agent] beat_interval_s: "),
        ("host = h1\nprobe_port = 99999", "[agent] probe_port: "),
        ("host = h2\nkdump_port = 7410", "[agent] kdump_port: 'h2' has no management address in "),
        ("host = h1\nkdump_port = 99999", "[agent] kdump_port: "),
        ("host = h1\nstorage = a", "has an unknown option 'storage'."),
    ],
)  # fmt: skip
def test_bad_options(tmp_path: Path, lines: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        load(tmp_path, lines)
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    ("planes", "sentence"),
    [
        ({"managment": "192.0.2.2"}, "segments[0].hosts[1].planes has an unknown field 'managment'; known are management, storage, tenant."),
        ({"storage": "h2.example"}, "segments[0].hosts[1].planes.storage must be an IP address: a look waits for no name service."),
        ({"tenant": "2001:db8::1"}, "segments[0].hosts[1] has the tenant address 2001:db8::1, which is that of 'h1'."),
        ("192.0.2.2", "segments[0].hosts[1].planes must be a mapping."),
    ],
)  # fmt: skip
def test_bad_planes(tmp_path: Path, planes: Any, sentence: str) -> None:
    first = {"name": "h1", "planes": {"tenant": "2001:DB8::1"}}
    with pytest.raises(ConfigError) as told:
        load(tmp_path, "host = h1", {"segments": [{"name": "s", "hosts": [first, {"name": "h2", "planes": planes}]}]})
    assert sentence in str(told.value)


def test_a_host_stands_once(tmp_path: Path) -> None:
    twice = [{"name": name, "hosts": [{"name": "h1"}]} for name in ("s1", "s2")]
    with pytest.raises(ConfigError, match=r"segments\[1\]\.hosts\[0\] repeats the host 'h1', which is in segment 's1'"):
        load(tmp_path, "host = h1", {"segments": twice})


PEERS = {"segments": [
    {"name": "s1", "hosts": [{"name": f"h{number}", "bmc": {"address": f"192.0.2.{number}", "user": "vmhad", "via": "agents"}} for number in (1, 2, 3)]},
    {"name": "s2", "hosts": [{"name": "h4", "bmc": {"address": "192.0.2.4", "user": "vmhad"}}]},
]}  # fmt: skip


def with_credentials(where: Path, text: str, mode: int = 0o600, segments: dict[str, Any] | None = None) -> AgentSettings:
    secret = where / "bmcs.yaml"
    secret.touch()
    secret.write_text(text)
    secret.chmod(mode)
    return load(where, f"host = h1\nbmc_credentials_file = {secret}", segments or PEERS)


def test_it_may_ask_the_bmcs_of_its_peers_and_no_others(tmp_path: Path) -> None:
    bmcs = with_credentials(tmp_path, "default: secret\nh3: another").bmcs
    assert {host: (bmc.address, bmc.password) for host, bmc in bmcs.items()} == {"h2": ("192.0.2.2", "secret"), "h3": ("192.0.2.3", "another")}
    assert list(with_credentials(tmp_path, "h3: another\nh4: x").bmcs) == ["h3"]
    assert "another" not in repr(bmcs)
    assert load(tmp_path, "host = h1", PEERS).bmcs == {}


def test_each_peer_is_asked_in_what_its_bmc_speaks(tmp_path: Path) -> None:
    """Nobody is there; who was asked is told by the words."""
    hosts = [
        {"name": f"h{n}", "bmc": {"address": "127.0.0.1", "port": n, "user": "vmhad", "via": "agents"}}
        for n in (1, 2, 3)
    ]
    hosts[1]["bmc"] |= {"driver": "redfish", "system": "2"}
    hosts[2]["second_power"] = {"address": "192.0.2.9", "user": "pdu"}
    hosts[0]["outlets"] = [{"address": f"192.0.2.{n}", "user": "pdu"} for n in (20, 21)]
    told = with_credentials(tmp_path, "default: secret", segments={"segments": [{"name": "s1", "hosts": hosts}]})
    power = power_of(told)
    assert power is not None and [one.driver for one in told.bmcs.values()] == ["redfish", "ipmi"]
    assert power.read("h2")[1] == "BMC 127.0.0.1:2: connection refused"
    assert power.read("h3")[1] == "BMC 127.0.0.1:3: connection refused"
    assert power.read("h1")[1] == "no BMC is configured for h1"
    ini = load(
        tmp_path, f"host = h1\nbmc_credentials_file = {tmp_path / 'bmcs.yaml'}\n[power]\ndriver = redfish", PEERS
    )
    assert {one.driver for one in ini.bmcs.values()} == {"redfish"}


@pytest.mark.parametrize(
    ("text", "mode", "segments", "sentence"),
    [
        ("default: secret", 0o644, None, "has mode 0644, it must be 0600."),
        ("h1: secret", 0o600, None, "[agent] bmc_credentials_file: no peer of 'h1' has a bmc in "),
        ("default: secret", 0o600, SEGMENTS, "[agent] bmc_credentials_file: no peer of 'h1' has a bmc in "),
        ("default: [secret", 0o600, None, "[agent] bmc_credentials_file: "),
        ("default: secret", 0o600, {"segments": [{"name": "s", "hosts": [{"name": "h1"}, {"name": "h2", "bmc": {"address": "bmc2", "user": "u"}}]}]}, "segments[0].hosts[1].bmc.address must be an IP address"),
    ],
)  # fmt: skip
def test_bad_credentials(tmp_path: Path, text: str, mode: int, segments: dict[str, Any] | None, sentence: str) -> None:
    with pytest.raises(ConfigError) as told:
        with_credentials(tmp_path, text, mode, segments)
    assert sentence in str(told.value) and "secret" not in str(told.value).replace(str(tmp_path), "")
