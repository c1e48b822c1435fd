# SPDX-License-Identifier: Apache-2.0
"""Disks that QEMU opens by iSCSI itself are found in libvirt's text, and told of once."""

from __future__ import annotations

import logging

import pytest

from vmhad.agent.own_sessions import OwnSession, OwnSessions, own_sessions

IQN = "iqn.2026-01.example:disks"
TEXT = f"""<domain type='qemu'><devices>
<disk type='network' device='disk'><source protocol='iscsi' name='{IQN}/1'>
  <host name='192.0.2.1' port='3260'/><initiator><iqn name='iqn.2026-01.example:guest'/></initiator></source></disk>
<disk type='network' device='lun'><source protocol='iscsi' name='iqn.2026-01.example:more'/></disk>
<disk type='network' device='disk'><source protocol='rbd' name='vms/1'/></disk>
<disk type='block' device='disk'><source dev='/dev/sda'/></disk>
</devices></domain>"""


def test_all_are_found() -> None:
    assert own_sessions(TEXT) == [
        OwnSession(IQN, 1, "iqn.2026-01.example:guest"),
        OwnSession("iqn.2026-01.example:more", 0),
    ]


def test_each_that_is_listed_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    told = OwnSessions({(IQN, 1)})
    with caplog.at_level(logging.WARNING):
        told.read("vm-1", TEXT)
        told.read("vm-1", TEXT)
        assert [record.getMessage() for record in caplog.records] == [
            f"guest vm-1 opens LUN 1 of {IQN} by a session of QEMU's own (iqn.2026-01.example:guest), which is not "
            "registered and cannot be"
        ]
        told.keep({"vm-2"})
        told.read("vm-1", TEXT)
    assert len(caplog.records) == 2
