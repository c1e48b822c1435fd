# SPDX-License-Identifier: Apache-2.0
"""What an operator may say of LUNs, and that a wrong word is named and nothing secret repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.drivers.storage.iscsi_session import Portal
from vmhad.drivers.storage.scsi_pr import ScsiPr
from vmhad.drivers.storage.scsi_settings import Target, settings_of
from vmhad.scsi.marks import PREFIX, marks_of

IQN, FENCER = "iqn.2026-01.example:disks", "iqn.2026-01.example:fencer"
SAID: dict[str, object] = {"portals": ["192.0.2.1"], "target": IQN, "luns": [2, 1], "initiator": FENCER}
MARKER = "s3cret-of-target"


def test_what_is_said_the_short_way() -> None:
    said = settings_of(SAID)
    assert said.targets == (Target((Portal("192.0.2.1:3260", IQN, FENCER),), (1, 2)),)
    assert not said.reserves and said.prefix == PREFIX


def test_urls_of_one_target_are_one_target() -> None:
    urls = [f"iscsi://[2001:db8::1]:3261/{IQN}/{lun}" for lun in (3, 1)] + [f"iscsi://192.0.2.9/{IQN}:b/0"]
    said = settings_of({"urls": urls, "initiator": FENCER, "reserve": "at-cut"})
    assert [(target.portals[0].address, target.luns) for target in said.targets] == [
        ("[2001:db8::1]:3261", (1, 3)),
        ("192.0.2.9:3260", (0,)),
    ]
    assert said.reserves


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"portal": "192.0.2.1"}, "portal "),
        ({"portals": "192.0.2.1"}, "portals"),
        ({"portals": []}, "portals"),
        ({"portals": ["storage.example"]}, "portals"),
        ({"portals": ["192.0.2.1:0"]}, "portals"),
        ({"portals": ["192.0.2.1:99999"]}, "portals"),
        ({"target": "disks"}, "target"),
        ({"target": None}, "target"),
        ({"luns": 1}, "luns"),
        ({"luns": []}, "luns"),
        ({"luns": [True]}, "luns"),
        ({"luns": [-1]}, "luns"),
        ({"luns": ["1"]}, "luns"),
        ({"initiator": ""}, "initiator"),
        ({"urls": ["iscsi://192.0.2.1/disks"]}, "urls"),
        ({"urls": [f"iscsi://{MARKER}@192.0.2.1/{IQN}/1"]}, "urls"),
        ({"reserve": "always"}, "reserve"),
        ({"reserve": True}, "reserve"),
        ({"prefix": 0}, "prefix"),
        ({"prefix": "0x766d"}, "prefix"),
        ({"user": "fencer"}, "user"),
        ({"password": MARKER}, "password "),
        ({"password_file": "/nowhere"}, "password_file"),
        ({"user": 1, "password_file": "/nowhere"}, "user"),
        ({"user": "fencer", "password_file": "/nowhere"}, "password_file: /nowhere cannot be read"),
    ],
)
def test_a_wrong_word_is_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named) as raised:
        settings_of(SAID | change)
    assert MARKER not in str(raised.value)


def test_something_must_be_said() -> None:
    with pytest.raises(ValueError, match="portals, target and luns, or urls"):
        settings_of({"initiator": FENCER})


@pytest.mark.parametrize(
    ("clients", "named"),
    [
        ({"a": ("192.0.2.1",)}, "a must have"),
        ({"a": ("0x0",)}, "a must have"),
        ({"a": ("0x1" + "0" * 16,)}, "a must have"),
        ({"a": ("0x1",), "b": ("0x2", "0x01")}, "b and a"),
        ({"a": ("0x766d000000000001",)}, "prefix"),
    ],
)
def test_a_wrong_key_is_named(clients: dict[str, tuple[str, ...]], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ScsiPr("lun-a", SAID, clients, 4.0)


def test_marks_are_the_same_for_every_engine() -> None:
    """They stand on the LUNs of clouds that run: they may never change."""
    marks = marks_of("compute-01", PREFIX)
    name = 0x63707593D2
    assert marks.begun ^ marks.cut == 0x07 << 40 and marks.begun ^ marks.opened == 0x04 << 40
    assert marks.cut == 0x766D0C << 40 | name


@pytest.mark.parametrize(("held", "mode", "said"), [(MARKER, 0o640, "mode 0640"), (" \n", 0o600, "holds no password")])
def test_a_file_of_a_password_is_one_and_is_read_by_nobody_else(
    tmp_path: Path, held: str, mode: int, said: str
) -> None:
    path = tmp_path / "password"
    path.write_text(held)
    path.chmod(mode)
    with pytest.raises(ValueError, match=said) as raised:
        settings_of(SAID | {"user": "fencer", "password_file": str(path)})
    assert MARKER not in str(raised.value)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text(f"{MARKER}\n")
    path.chmod(0o600)
    said = settings_of(SAID | {"user": "fencer", "password_file": str(path)})
    assert said.targets[0].portals[0].password == MARKER and MARKER not in repr(said)
