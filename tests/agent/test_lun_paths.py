# SPDX-License-Identifier: Apache-2.0
"""Paths to LUNs as the kernel lists them, what is kept of them for a boot, and what a beat says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vmhad.agent.eyes import agent_of
from vmhad.agent.lun_memory import KeptFile, Known, LunMemory
from vmhad.agent.lun_paths import LunPath, has_map, paths
from vmhad.agent.registrations import COMPLAINTS_MAX, STALE_S, Registrations, Reserved
from vmhad.agent.scsi_device import sense_of
from vmhad.conf.agent_settings import AgentSettings, agent_settings
from vmhad.conf.load import parse
from vmhad.conf.settings import ConfigError
from vmhad.scsi.marks import PREFIX, marks_of

IQN, WWN = "iqn.2026-01.example:disks", "naa.60014051234567890123456789abcdef"
MARKS = marks_of("h", PREFIX)


class Machine:
    """A host's /sys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/block").mkdir(parents=True)

    def has(self, name: str, address: str, session: str = "", wwid: str = WWN, state: str = "running") -> None:
        host = f"sys/devices/platform/host{address.partition(':')[0]}"
        device = self.root / host / (f"{session}/target" if session else "rport/target") / address
        block = device / "block" / name
        block.mkdir(parents=True)
        (device / "wwid").write_text(f"{wwid}\n")
        (device / "state").write_text(f"{state}\n")
        (block / "device").symlink_to(device)
        (self.root / "sys/block" / name).symlink_to(block)
        if session:
            told = self.root / "sys/class/iscsi_session" / session
            told.mkdir(parents=True, exist_ok=True)
            (told / "targetname").write_text(f"{IQN}\n")

    def maps(self, uuid: str) -> None:
        place = self.root / "sys/block/dm-0/dm"
        place.mkdir(parents=True, exist_ok=True)
        (place / "uuid").write_text(f"{uuid}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_paths_by_iscsi_and_by_fibre_channel(machine: Machine) -> None:
    machine.has("sda", "3:0:0:1", "session1")
    machine.has("sdb", "4:0:2:16684", wwid=WWN)
    machine.has("sdc", "5:0:0:1", "session2", state="offline")
    found = [(one.name, one.by, one.target, one.number, one.where, one.works) for one in paths(machine.root)]
    assert found == [
        ("sda", "host3", IQN, 1, f"LUN 1 of {IQN}", True),
        ("sdb", "host4", "", 300, f"LUN {WWN}", True),
        ("sdc", "host5", IQN, 1, f"LUN 1 of {IQN}", False),
    ]


def test_a_path_that_came_again_is_another_one(machine: Machine) -> None:
    machine.has("sda", "3:0:0:1", "session1")
    (before,) = paths(machine.root)
    (machine.root / "sys/block/sda").unlink()
    machine.has("sda", "6:0:0:1", "session4")
    (after,) = paths(machine.root)
    assert before.name == after.name and before.born != after.born


def test_multipath_maps(machine: Machine) -> None:
    assert not has_map(machine.root, WWN) and not has_map(machine.root, "")
    machine.maps("mpath-3" + "60014051234567890123456789ABCDEF")
    assert has_map(machine.root, WWN) and not has_map(machine.root, "naa.6001405")
    assert has_map(machine.root, ""), "of a LUN without an identifier nobody can tell"
    machine.maps("LVM-something")
    assert not has_map(machine.root, "")


def test_what_is_kept_for_a_boot(tmp_path: Path) -> None:
    file = KeptFile(tmp_path / "deeper" / "file")
    memory = LunMemory(file, "boot-1")
    memory.begin("lun", "sda")
    memory.begin("other", "sdb")
    memory.was_not_begun("other", "sdb")
    memory.done("third", "sdc", True)
    after = LunMemory(file, "boot-1")
    assert after.of("lun") == Known(registered=True, left=True)
    assert after.of("other") == Known() and after.of("third") == Known(registered=True, opened=True)
    after.no_cut_stood("lun")
    after.forget("third")
    assert LunMemory(file, "boot-1").of("lun") == Known(registered=True)
    assert LunMemory(file, "boot-1").luns() == ("lun", "other")
    assert LunMemory(file, "boot-2").luns() == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"boot": "b"}', '{"boot": "b", "luns": [1]}'])
def test_a_foreign_file_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError):
        LunMemory(KeptFile(tmp_path / "file"), "b")


def test_what_is_not_there_any_more_is_forgotten_unless_a_map_holds_it(machine: Machine, tmp_path: Path) -> None:
    memory = LunMemory(KeptFile(tmp_path / "file"), "b")
    machine.has("sda", "3:0:0:1", "session1")
    eye = Registrations([_reserved()], memory, machine.root)
    where = paths(machine.root)[0].where
    memory.done(where, "sda", False)
    eye._look()
    eye.stop()
    assert memory.luns() == (where,)
    state = machine.root / "sys/block/sda/device/state"
    state.write_text("transport-offline\n")
    eye._look()
    assert memory.luns() == (where,) and eye.tell(STALE_S).hardware == (), "it may work again"
    (machine.root / "sys/block/sda").unlink()
    machine.maps(f"mpath-3{WWN[4:]}")
    eye._look()
    assert memory.luns() == (where,)
    machine.maps("mpath-3" + "60014059" * 4)
    eye._look()
    assert memory.luns() == ()


def test_a_device_that_is_another_one_by_now_is_told_nothing(machine: Machine, tmp_path: Path) -> None:
    """Here it is no device at all: to tell it anything would be an error."""
    machine.has("sda", "3:0:0:1", "session1")
    (machine.root / "dev").mkdir()
    (machine.root / "dev/sda").touch()
    eye = Registrations([_reserved()], LunMemory(KeptFile(tmp_path / "file"), "b"), machine.root)
    eye._ending.set()
    eye._look()
    eye._settle("host3")
    assert [one.word for one in eye._watched.values()] == [None]


def test_complaints_are_few_and_an_old_look_is_one(machine: Machine, tmp_path: Path) -> None:
    for number in range(1, 4):
        machine.has(f"sd{number}", f"3:0:0:{number}", "session1")
    machine.has("sdx", "3:0:0:9", "session1")
    eye = Registrations([_reserved()], LunMemory(KeptFile(tmp_path / "file"), "b"), machine.root)
    eye._ending.set()
    eye._look()
    assert {one.path.name for one in eye._watched.values()} == {"sd1", "sd2", "sd3"}, "sdx is not listed"
    now = max(one.looked_at for one in eye._watched.values())
    assert eye.tell(now).hardware == (), "nobody has looked yet"
    for one in eye._watched.values():
        one.word = "no" if one.path.name != "sd3" else "neither"
    assert eye.tell(now).hardware == (
        f"storage lun-a: LUN 3 of {IQN} by sd3: neither",
        f"storage lun-a: LUN 1 of {IQN} by sd1 (and 1 more paths): no",
    )
    assert eye.tell(now + STALE_S + 1).hardware == (
        f"storage lun-a: LUN 1 of {IQN} by sd1 (and 2 more paths): it does not answer",
    )
    for number, one in enumerate(eye._watched.values()):
        one.word = f"reason {number}"
    assert len(eye.tell(now).hardware) <= COMPLAINTS_MAX


def told(where: Path, more: str = "") -> AgentSettings:
    """Of an agent that registers its host on one LUN."""
    storage = {"name": "lun-a", "driver": "scsi_pr", "holds": ["nova"], "clients": {"h1": ["0xa1"]}}
    storage["settings"] = {"portals": ["192.0.2.1"], "target": IQN, "luns": [1], "initiator": f"{IQN}:x"}
    segments = {"segments": [{"name": "s", "hosts": [{"name": "h1"}]}], "storages": [storage]}
    (where / "segments.yaml").write_text(yaml.safe_dump(segments))
    text = f"[agent]\nhost = h1\nlibvirt_uri =\nsegments_file = {where}/segments.yaml\n{more}"
    (where / "vmhad.conf").write_text(f"{text}registrations_file = {where}/registrations\n")
    return agent_settings(parse(["--config-file", str(where / "vmhad.conf")]))


def test_who_registers_and_who_does_not(tmp_path: Path) -> None:
    """Not without having been told to, and never one that only looks."""

    def registers(one: AgentSettings, acts: bool = True) -> bool:
        agent = agent_of(one, lambda beat: None, acts)
        return any(isinstance(eye, Registrations) for eye in agent._eyes)

    opted = told(tmp_path, "registered_storages = lun-a\n")
    assert registers(opted) and not registers(opted, acts=False)
    assert not registers(told(tmp_path))


def test_who_cannot_read_what_was_registered_does_not_begin(tmp_path: Path) -> None:
    opted = told(tmp_path, "registered_storages = lun-a\n")
    (tmp_path / "registrations").write_text("nothing of ours")
    with pytest.raises(ConfigError) as caught:
        agent_of(opted, lambda beat: None)
    said = f"[agent] registrations_file: {tmp_path}/registrations cannot be read: no agent wrote it."
    assert str(caught.value) == said


def test_this_very_machine_can_be_looked_at(tmp_path: Path) -> None:
    """Whatever disks it has: none is of the list, and the threads begin and end."""
    eye = Registrations([_reserved()], LunMemory(KeptFile(tmp_path / "file"), "b"))
    eye.start()
    eye._look()
    assert eye.tell(0.0).hardware == ()
    eye.stop()
    assert eye._list.join(10.0)


def test_luns_are_known_by_target_or_by_wwn() -> None:
    fc = LunPath("sda", "b", "host1", "", 1, WWN.upper())
    assert Reserved("s", 1, MARKS, frozenset(), frozenset({WWN})).has(fc)
    assert not _reserved().has(fc)


@pytest.mark.parametrize(("said", "sense"), [
    (bytes.fromhex("70000600000000 0a00000000290300000000"), (6, 0x2903)),
    (bytes.fromhex("f0000500000000 0a00000000240000000000"), (5, 0x2400)),
    (bytes.fromhex("72062903"), (6, 0x2903)),
    (b"", (0, 0)),
    (b"\x70\0\x06", (0, 0)),
])  # fmt: skip
def test_senses_of_both_formats(said: bytes, sense: tuple[int, int]) -> None:
    assert sense_of(said) == sense


def _reserved() -> Reserved:
    return Reserved("lun-a", 0xA1, MARKS, frozenset((IQN, number) for number in (1, 2, 3)), frozenset())
