# SPDX-License-Identifier: Apache-2.0
"""The settings of the driver ceph: a bad one is told in a sentence that names it."""

from __future__ import annotations

import pytest

from vmhad.drivers.storage.ceph import EXPIRE_S, Ceph
from vmhad.drivers.storage.ceph_session import addresses_in, instance, ip_of, network_of

GOOD: dict[str, object] = {"conf_file": "/etc/ceph/ceph.conf", "user": "vmhad", "pools": ["vms"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conf_file", None), ("conf_file", ""), ("user", 7), ("pools", []), ("pools", "vms"), ("pools", [3]),
        ("expire_s", 3600), ("expire_s", True), ("expire_s", "long"), ("expire_s", 100 * EXPIRE_S), ("pool", "vms"),
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


def test_entries_are_written_as_ceph_writes_them() -> None:
    assert (instance("10.0.0.1"), instance("fd00::1", 9)) == ("10.0.0.1:0/0", "[fd00::1]:0/9")
    assert str(network_of("cidr:10.0.0.0:0/24")) == "10.0.0.0/24"
    assert str(network_of("cidr:[fd00::5]:0/128")) == "fd00::5/128"
