# SPDX-License-Identifier: Apache-2.0
"""The storages of the segments file: what they hold and whom they know; what is wrong is said in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.conf.bmcs import BmcDefaults
from vmhad.conf.segments_file import load_hosts, load_segments
from vmhad.conf.settings import ConfigError
from vmhad.conf.storages_file import names_backends, storage_rows
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Backend

SEGMENTS = """
segments:
  - name: east
    hosts:
      - {name: h1, planes: {storage: 203.0.113.1}, bmc: {address: 192.0.2.1, user: vmhad}}
      - {name: h2, planes: {storage: 203.0.113.2}, bmc: {address: 192.0.2.2, user: vmhad}}
  - name: west
    hosts:
      - {name: h3, bmc: {address: 192.0.2.3, user: vmhad}}
"""
CEPH = """
storages:
  - name: ceph-a
    driver: ceph
    settings: {user: vmhad, pools: [vms]}
    holds: [nova, cinder/ceph-a]
"""


def loaded(tmp_path: Path, storages: str):  # noqa: ANN201 - what load_segments answers
    file, passwords = tmp_path / "segments.yaml", tmp_path / "passwords.yaml"
    file.write_text(SEGMENTS + storages)
    passwords.write_text("default: some-password\n")
    passwords.chmod(0o600)
    return load_segments(str(file), str(passwords), Policy(), BmcDefaults())


def test_the_clients_are_the_hosts_with_a_storage_address(tmp_path: Path) -> None:
    told = loaded(tmp_path, CEPH)
    east, west = told.segments
    assert east.backends == (Backend("ceph-a", frozenset({"nova", "cinder/ceph-a"}), frozenset({"h1", "h2"})),)
    assert [one.clients for one in west.backends] == [frozenset()]
    assert [one.reached_by for one in (*east.backends, *west.backends)] == [frozenset(), frozenset()]
    (storage,) = told.storages
    assert storage.clients == {"h1": ("203.0.113.1",), "h2": ("203.0.113.2",)}
    assert storage.settings == {"user": "vmhad", "pools": ["vms"]}


def test_named_clients_stand_in_place_of_them(tmp_path: Path) -> None:
    told = loaded(tmp_path, CEPH + "    clients: {h3: [198.51.100.3, 198.51.100.4]}\n")
    assert [segment.backends[0].clients for segment in told.segments] == [frozenset(), {"h3"}]
    assert [segment.backends[0].reached_by for segment in told.segments] == [frozenset(), {"h3"}]
    assert told.storages[0].clients == {"h3": ("198.51.100.3", "198.51.100.4")}


def test_an_agent_reads_the_same_file(tmp_path: Path) -> None:
    loaded(tmp_path, CEPH)
    told = load_hosts(str(tmp_path / "segments.yaml"), "[agent] segments_file")
    assert [one.name for one in told] == ["east", "west"]


@pytest.mark.parametrize("clients", [{}, {"clients": {"h1": ["203.0.113.1"], "h2": ["203.0.113.2"]}}])
def test_an_export_has_them_as_they_were_read(tmp_path: Path, clients: dict[str, object]) -> None:
    """Whose clients were not listed has none listed by it either: that would say that nobody else reaches it."""
    listed = f"    clients: {clients['clients']}\n" if clients else ""
    assert storage_rows(loaded(tmp_path, CEPH + listed).storages) == [
        {
            "name": "ceph-a",
            "driver": "ceph",
            "holds": ["cinder/ceph-a", "nova"],
            "settings": {"user": "vmhad", "pools": ["vms"]},
        }
        | clients
    ]


@pytest.mark.parametrize(
    ("storages", "says"),
    [
        (CEPH.replace("nova, ", "root, "), "storages[0].holds[0] must be «nova», «volumes», or «cinder/»"),
        (CEPH + "    clients: {h9: [203.0.113.9]}\n", "storages[0].clients.h9 names a host of no segment"),
        (CEPH + "    clients: {h1: [203.0.113.9], h2: [203.0.113.9]}\n", "to cut one off would cut the other"),
        (CEPH + CEPH.removeprefix("\nstorages:\n"), "storages[1].name must be a name of its own"),
        (
            CEPH + CEPH.removeprefix("\nstorages:\n").replace("name: ceph-a", "name: nfs"),
            "storages[1] holds cinder/ceph-a of 'h1', and so does 'ceph-a'",
        ),
        (CEPH.replace("    driver: ceph\n", ""), "storages[0] lacks the field 'driver'"),
        (CEPH.replace("ceph-a\n    driver", "a/b\n    driver"), "storages[0].name must be a name of its own"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, storages: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, storages)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("storages", "asked"),
    [("", False), (CEPH, True), (CEPH.replace("nova, cinder/ceph-a", "nova, volumes"), False)],
)
def test_cinder_is_asked_only_where_a_storage_holds_a_backend_of_it(tmp_path: Path, storages: str, asked: bool) -> None:
    assert names_backends(loaded(tmp_path, storages).storages) is asked
