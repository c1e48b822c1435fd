# SPDX-License-Identifier: Apache-2.0
"""The settings of the driver ceph: a bad one is told in a sentence that names it."""

from __future__ import annotations

import pytest

from vmhad.drivers.storage.ceph import EXPIRE_S, Ceph
from vmhad.drivers.storage.ceph_daemons import shared_with, unlisted_monitors
from vmhad.drivers.storage.ceph_session import addresses_in, instance, ip_of, network_of

GOOD: dict[str, object] = {"conf_file": "/etc/ceph/ceph.conf", "user": "vmhad", "pools": ["vms"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conf_file", None), ("conf_file", ""), ("user", 7), ("pools", []), ("pools", "vms"), ("pools", [3]),
        ("expire_s", 3600), ("expire_s", True), ("expire_s", "long"), ("expire_s", 100 * EXPIRE_S), ("pool", "vms"),
        ("hyperconverged", "true"), ("hyperconverged", 1),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{key} "):
        Ceph("ceph-a", {**GOOD, key: value}, {}, 5.0)


def test_a_client_has_to_be_an_address() -> None:
    with pytest.raises(ValueError, match="clients of compute-01 must be addresses"):
        Ceph("ceph-a", GOOD, {"compute-01": ("compute-01.example.org",)}, 5.0)


def test_an_address_is_of_one_host() -> None:
    clients = {"compute-02": ("fd00:0::1",), "compute-01": ("10.0.0.1", "fd00::1")}
    with pytest.raises(ValueError, match="compute-01 and of compute-02 have the address fd00::1 together"):
        Ceph("ceph-a", GOOD, clients, 5.0)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("v2:10.0.0.1:6800/77", "10.0.0.1"), ("[fd00::1]:0/3", "fd00::1"), ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:0/0", "10.0.0.1"), ("v1:[fd00::1]:6789/0", "fd00::1"), ("(unrecognized address family 0)", ""),
    ],
)  # fmt: skip
def test_an_address_is_read_in_every_way_that_ceph_writes_it(written: str, address: str) -> None:
    assert ip_of(written) == address


def test_addresses_are_found_wherever_they_stand() -> None:
    said = {"osds": [{"public_addrs": {"addrvec": [{"addr": "10.0.0.1:6800"}]}, "addr": "10.0.0.2:1/2"}], "epoch": 4}
    assert addresses_in([said, None]) == {"10.0.0.1", "10.0.0.2"}


def at(*addresses: str) -> dict[str, object]:
    return {"addrvec": [{"type": "v2", "addr": f"{one}:6800", "nonce": 7} for one in addresses]}


OSDS = {"osds": [{"osd": 0, "public_addrs": at("10.0.0.1")}, {"osd": 1, "public_addrs": at("10.0.0.2")}]}
MONS = {
    "mons": [
        {"name": "a", "public_addrs": at("10.0.0.1", "10.1.0.1")},
        {"name": "b", "public_addrs": at("10.1.0.2")},
        {"name": "c", "public_addrs": at("10.1.0.3")},
    ]
}
MANAGER = {"active_name": "x", "active_addrs": at("10.0.0.3"), "standbys": [{"name": "y"}]}
MDS = {"standbys": [], "filesystems": [{"mdsmap": {"info": {"gid_1": {"name": "m", "addrs": at("10.0.0.4")}}}}]}


@pytest.mark.parametrize(
    ("addresses", "plain", "hyperconverged"),
    [
        (("10.0.0.1",), ["10.0.0.1"], []),
        (("10.0.0.2", "10.1.0.2"), ["10.0.0.2", "10.1.0.2"], []),
        (("10.0.0.1", "10.0.0.3"), ["10.0.0.1", "10.0.0.3"], ["10.0.0.3"]),
        (("10.0.0.4",), ["10.0.0.4"], ["10.0.0.4"]),
        (("10.0.0.5",), [], []),
    ],
)
def test_what_is_a_client_for_everybody_is_never_blocked(
    addresses: tuple[str, ...], plain: list[str], hyperconverged: list[str]
) -> None:
    for allowed, shared in ((False, plain), (True, hyperconverged)):
        assert shared_with(OSDS, MONS, [MANAGER, MDS], addresses, allowed) == shared


@pytest.mark.parametrize(
    ("names", "addresses", "unlisted"),
    [
        ({"compute-01"}, ("10.0.0.1",), [("a", "10.1.0.1")]),
        ({"compute-01"}, ("10.0.0.1", "10.1.0.1"), []),
        ({"compute-02.example.org"}, ("10.0.0.2",), [("b", "10.1.0.2")]),
        ({"compute-09", "compute-02.example.org"}, ("10.0.0.9",), [("b", "10.1.0.2")]),
        ({"compute-0"}, ("10.0.0.9",), []),
        ({""}, ("10.0.0.9",), []),
    ],
)
def test_a_monitor_is_its_hosts_by_its_name_or_by_an_address_that_both_have(
    names: set[str], addresses: tuple[str, ...], unlisted: list[tuple[str, str]]
) -> None:
    """That one of two addresses is listed is no word for the other one, and who has no name is nobody's."""
    metadata = [{"name": "a", "hostname": "controller"}, {"name": "b", "hostname": "compute-02"}, {"name": "c"}]
    assert unlisted_monitors(MONS, metadata, names, addresses) == unlisted


def test_entries_are_written_as_ceph_writes_them() -> None:
    assert (instance("10.0.0.1"), instance("fd00::1", 9)) == ("10.0.0.1:0/0", "[fd00::1]:0/9")
    assert str(network_of("cidr:10.0.0.0:0/24")) == "10.0.0.0/24"
    assert str(network_of("cidr:[fd00::5]:0/128")) == "fd00::5/128"
