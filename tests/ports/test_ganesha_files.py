# SPDX-License-Identifier: Apache-2.0
"""What is written into NFS-Ganesha's export files, whom an export as Ganesha shows it shuts out for sure, and which
settings are none. No server is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.drivers.storage.ganesha_bus import Entry, Export
from vmhad.drivers.storage.ganesha_files import NoPlace, change, shut_out
from vmhad.drivers.storage.ganesha_server import answer
from vmhad.drivers.storage.nfs_ganesha import NfsGanesha
from vmhad.kernel.signal import Access
from vmhad.ports import Refused, Unanswered

TEXT = """# of the operator
EXPORT {
    Export_Id = 1; Path = /srv/nova; Pseudo = /nova;
    # vmhad: shut out
    # vmhad: end
    CLIENT { Clients = 203.0.113.0/24; Access_Type = RW; }
    FSAL { Name = VFS; }
}
"""
ONE, TWO = "203.0.113.2", "203.0.113.11"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "1.conf"
    made.write_text(TEXT)
    made.chmod(0o640)
    return made


def test_only_what_is_between_the_marks_is_changed(file: Path) -> None:
    change(file, lambda out: out | {TWO: "2b", ONE: "1a"})
    lines = TEXT.splitlines(keepends=True)
    blocks = [
        f"    CLIENT {{ Clients = {one}; Access_Type = None; }} # cut {name}\n"
        for one, name in ((ONE, "1a"), (TWO, "2b"))
    ]
    assert file.read_text() == "".join([*lines[:4], *blocks, *lines[4:]])
    assert shut_out(file) == {ONE: "1a", TWO: "2b"}
    change(file, lambda out: {ONE: out[ONE]})
    assert shut_out(file) == {ONE: "1a"}
    change(file, lambda out: {})
    assert file.read_text() == TEXT


def test_addresses_of_both_kinds_stand_side_by_side(file: Path) -> None:
    change(file, lambda out: {"2001:db8::2": "1a", ONE: "1a"})
    assert shut_out(file) == {"2001:db8::2": "1a", ONE: "1a"}


def test_the_file_keeps_its_mode_and_nothing_is_left_where_ganesha_reads(file: Path) -> None:
    change(file, lambda out: out | {ONE: "1a"})
    assert file.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in file.parent.iterdir() if one.is_file()] == [file.name]
    assert not list((file.parent / ".vmhad").iterdir())


def test_what_is_so_already_is_not_written_again(file: Path) -> None:
    change(file, lambda out: out | {ONE: "1a"})
    before = file.stat().st_ino
    change(file, lambda out: out | {ONE: "1a"})
    assert file.stat().st_ino == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    # vmhad: shut out\n", ""),
        ("    # vmhad: end\n", ""),
        ("# of the operator\n", "# vmhad: shut out\n"),
        ("# vmhad: end", "# vmhad: end of it"),
        ("    # vmhad: end\n", "    CLIENT { Clients = 203.0.113.9; Access_Type = RW; }\n    # vmhad: end\n"),
        ("    # vmhad: end\n", "    CLIENT { Clients = 203.0.113.0/24; Access_Type = None; }\n    # vmhad: end\n"),
    ],
)
def test_a_place_that_is_none_is_left_as_it_is(file: Path, old: str, new: str) -> None:
    file.write_text(TEXT.replace(old, new))
    before = file.read_text()
    with pytest.raises(NoPlace):
        shut_out(file)
    with pytest.raises(NoPlace):
        change(file, lambda out: out | {ONE: "1a"})
    assert file.read_text() == before


NONE, RW, INHERITED = False, True, None


@pytest.mark.parametrize(
    ("entries", "out"),
    [
        ([], False),
        ([(f"{ONE}/32", NONE)], True),
        ([(f"{ONE}/32", RW)], False),
        ([(f"{ONE}/32", INHERITED)], False),
        ([(f"{TWO}/32", NONE)], False),
        ([("203.0.113.0/24", NONE)], True),
        ([("203.0.113.0/24", RW), (f"{ONE}/32", NONE)], False),
        ([(f"{ONE}/32", NONE), ("203.0.113.0/24", RW)], True),
        ([("198.51.100.0/24", RW), (f"{ONE}/32", NONE)], True),
        ([("2001:db8::/32", RW), (f"{ONE}/32", NONE)], True),
        ([("*", RW), (f"{ONE}/32", NONE)], False),
        ([("*", NONE)], True),
        ([("computes", RW), (f"{ONE}/32", NONE)], False),
        ([("computes", NONE), (f"{ONE}/32", NONE)], True),
        ([("computes", NONE)], False),
        ([("*.example.org", INHERITED), (f"{ONE}/32", NONE)], False),
        ([("Invalid Network Address", RW), (f"{ONE}/32", NONE)], False),
    ],
)
def test_who_is_shut_out_for_sure(entries: list[tuple[str, bool | None]], out: bool) -> None:
    """The first entry that fits decides; of one that perhaps fits, both ways have to come to the same."""
    export = Export(1, "/srv/nova", tuple(Entry(name, may) for name, may in entries))
    assert export.shuts_out(ONE) is out


GOOD: dict[str, object] = {"exports": [1], "files": "/etc/ganesha/export.d/{id}.conf"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({**GOOD, "exports": []}, "exports"),
        ({**GOOD, "exports": "1"}, "exports"),
        ({**GOOD, "exports": [0]}, "exports"),
        ({**GOOD, "exports": [True]}, "exports"),
        ({**GOOD, "exports": ["1"]}, "exports"),
        ({"files": "/x/{id}"}, "exports"),
        ({"exports": [1]}, "files"),
        ({**GOOD, "files": "/etc/ganesha/ganesha.conf"}, "files"),
        ({**GOOD, "files": 7}, "files"),
        ({**GOOD, "dbus_address": ""}, "dbus_address"),
        ({**GOOD, "password": "x"}, "password"),
        ({**GOOD, "port": 22}, "port"),
        ({**GOOD, "identity_file": "/x"}, "identity_file"),
        ({"exports": [1], "ssh": "root@nfs-a", "files": "/x/{id}"}, "files"),
        ({"exports": [1], "ssh": "root@nfs-a", "port": "22"}, "port"),
        ({"exports": [1], "ssh": "-oProxyCommand=x"}, "ssh"),
    ],
)
def test_a_setting_that_is_none_is_named(settings: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key} "):
        NfsGanesha("nfs-a", settings, {}, 4.0)


@pytest.mark.parametrize("address", ["compute-01", "203.0.113.0/24", "::ffff:203.0.113.2", "fe80::1%eth0", ""])
def test_a_client_is_known_by_its_ip_address(address: str) -> None:
    with pytest.raises(ValueError, match="compute-01"):
        NfsGanesha("nfs-a", GOOD, {"compute-01": (address,)}, 4.0)


def test_no_two_hosts_share_an_address() -> None:
    with pytest.raises(ValueError, match="compute-02.*compute-01"):
        NfsGanesha("nfs-a", GOOD, {"compute-02": (TWO, ONE), "compute-01": (ONE,)}, 4.0)


def test_a_host_without_an_address_is_no_client() -> None:
    storage = NfsGanesha("nfs-a", GOOD, {"compute-01": ()}, 4.0)
    assert storage.read("compute-01")[0] is Access.UNKNOWN
    for act in (storage.cut, storage.restore):
        with pytest.raises(Refused, match="compute-01"):
            act("compute-01")


def test_a_server_that_ssh_does_not_reach_is_unknown() -> None:
    """Nothing listens there; nobody is asked for a password."""
    storage = NfsGanesha("nfs-a", {"exports": [1], "ssh": "root@127.0.0.1", "port": 1}, {"h": (ONE,)}, 4.0)
    access, said = storage.read("h")
    assert access is Access.UNKNOWN and "ssh" in said
    for act in (storage.cut, storage.restore):
        with pytest.raises(Unanswered):
            act("h")


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"act": "remove", "exports": [1], "addresses": [ONE]},
        {"act": "cut", "exports": ["../../etc/passwd"], "addresses": [ONE]},
        {"act": "cut", "exports": [1], "addresses": ["203.0.113.2; } EXPORT { "]},
    ],
)
def test_an_order_that_is_none_does_nothing(file: Path, order: dict[str, object]) -> None:
    assert "failed" in answer(order, "unix:path=/nowhere", str(file.parent / "{id}.conf"))
    assert file.read_text() == TEXT
