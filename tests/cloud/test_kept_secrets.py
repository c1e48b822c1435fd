# SPDX-License-Identifier: Apache-2.0
"""What is asked at the end of every trial on the small cloud can be answered with no: a planted password is found.

Needs no cloud but for the last: the files are those that the lab gives to its processes, and the journal is what a
store would list.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from kept_secrets import assert_kept, journal_of, secrets_of

from lab.agent import AgentProcess
from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess, forget_journal
from vmhad.drivers.store.etcd import EtcdStore

HOSTS = ("host01", "host02")
BMC, NOVA, RABBIT, CEPH = (f"planted-for-{one}" for one in ("the-bmc-of-", "nova", "rabbit", "ceph"))
MASTER = bytes(range(32))
JOURNAL = {
    "/vmhad/v1/certificate/i1/s1/1": b'{"observed": "authentication failed (wrong password?)"}',
    "/vmhad/v1/incident/lab/i1": b"{}",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The lab's folder with an engine and an agent that were given everything, and said nothing wrong."""
    rows = []
    for host in HOSTS:
        (tmp_path / "var" / "hosts" / host).mkdir(parents=True)
        (tmp_path / f"{host}-bmc").write_text(f"{BMC}{host}\n")
        bmc = {"host": "127.0.0.1", "port": 623, "user": "admin", "guid": "", "password_file": f"{tmp_path}/{host}-bmc"}
        rows.append({"name": host, "state_dir": f"{tmp_path}/var/hosts/{host}", "bmc": bmc})
    auth = {"auth_url": "http://127.0.0.1:1/v3", "username": "nova", "password": NOVA, "project_name": "service"}
    facts = {"hosts": rows, "auth": auth, "region": "lab", "etcd": ["http://127.0.0.1:2"]}
    facts |= {"transport_url": f"rabbit://vmhad:{RABBIT}@127.0.0.1:3/"}
    (tmp_path / "keyring").write_text(f"[client.admin]\n\tkey = {CEPH}\n")
    (tmp_path / "ceph.conf").write_text(f"[global]\nkeyring = {tmp_path}/keyring\n")
    ceph = {"name": "ceph", "driver": "ceph", "settings": {"conf_file": f"{tmp_path}/ceph.conf"}}
    engine = EngineProcess(facts, tmp_path, agents=MASTER, storages=[ceph])
    engine.log_file.write_text("the BMC of host01 refuses its password\n")
    engine.timeline_file.write_text('{"subject": "host host01", "word": "STUCK"}\n')
    AgentProcess(facts, "host01", None, MASTER).log_file.write_text("is heard\n")
    return tmp_path


def secrets(root: Path) -> list[tuple[str, str]]:
    return [told for name in ("engine", "agent-host01") for told in secrets_of(root / "vmhad" / name)]


def test_nothing_is_found_where_nothing_is(root: Path) -> None:
    assert assert_kept(root, JOURNAL) == "none of 7 secrets in 5 files and 2 keys, 1 of certificates"
    known = {secret for _, secret in secrets(root)}
    assert known > {f"{BMC}host01", f"{BMC}host02", NOVA, RABBIT, CEPH, MASTER.hex()} and len(known) == 7


@pytest.mark.parametrize("written", ["engine/engine.log", "engine/timeline.json", "engine/left/1", "agent-host01/x"])
def test_every_secret_is_found_in_a_file(root: Path, written: str) -> None:
    for what, secret in secrets(root):
        path = root / "vmhad" / written
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xff said: " + secret.encode() + b"\n")
        with pytest.raises(AssertionError, match=rf"{what} stands in .*{written}"):
            assert_kept(root, JOURNAL)


def test_every_secret_is_found_in_the_journal(root: Path) -> None:
    (certificate, *_) = JOURNAL
    for what, secret in secrets(root):
        for key, value in ((certificate, f'{{"observed": "{secret} was refused"}}'), (f"/vmhad/v1/{secret}", "")):
            with pytest.raises(AssertionError, match=f"{what} stands in the journal"):
                assert_kept(root, {**JOURNAL, key: value.encode()})


@pytest.mark.parametrize("spelled", [lambda raw: raw.hex().encode(), b64encode], ids=["hex", "base64"])
def test_another_spelling_is_found(root: Path, spelled: Callable[[bytes], bytes]) -> None:
    for secret in (NOVA.encode(), MASTER):
        with pytest.raises(AssertionError, match="stands in the journal"):
            assert_kept(root, {"/vmhad/v1/x": spelled(secret)})


def test_the_password_of_a_bmc_that_refuses_counts(root: Path) -> None:
    (root / "vmhad" / "engine" / "bmc-credentials.yaml").write_text('{"host02": "not-the-password"}')
    with pytest.raises(AssertionError, match="the password of the BMC of host02 stands in the journal, key /vmhad"):
        assert_kept(root, {"/vmhad/v1/certificate/i1/s1/1": b"with not-the-password"})


def test_it_does_not_pass_for_want_of_secrets(root: Path) -> None:
    """Files that are called otherwise, or a password too short to tell, would leave it blind."""
    (root / "vmhad" / "engine" / "nova-password").write_text("short")
    with pytest.raises(AssertionError, match="too short to be looked for: .'the password for Nova'."):
        assert_kept(root, JOURNAL)
    for path in (root / "vmhad").rglob("*"):
        if path.is_file():
            path.rename(path.with_suffix(".other"))
    with pytest.raises(AssertionError, match="nothing was found that they have to keep"):
        assert_kept(root, JOURNAL)


def test_a_lab_without_processes_has_nothing_to_keep(tmp_path: Path) -> None:
    assert assert_kept(tmp_path, {}) == "none of 0 secrets in 0 files and 0 keys, 0 of certificates"


@pytest.mark.cloud
def test_what_the_cloud_really_uses_is_found_in_its_etcd(clean_cloud: CloudLab) -> None:
    facts = clean_cloud.facts
    root = Path(facts["hosts"][0]["state_dir"]).parents[2]
    folder = EngineProcess(facts, root).folder
    kinds = {what.partition(" of ")[0] for what, _ in secrets_of(folder)}
    # An earlier test of this lab may have left keys of agents there.
    assert kinds >= {"the password", "the password for Nova", "the password for RabbitMQ"}
    store = EtcdStore(facts["etcd"], 30.0)
    try:
        for number, (what, secret) in enumerate(secrets_of(folder)):
            forget_journal(facts)
            assert_kept(root, journal_of(facts["etcd"]))
            key = f"/vmhad/v1/certificate/i1/s1/{number}"
            store.commit([], {key: f'{{"observed": "{secret} was refused"}}'.encode()})
            with pytest.raises(AssertionError, match=f"{what} stands in the journal, key {key}"):
                assert_kept(root, journal_of(facts["etcd"]))
    finally:
        forget_journal(facts)
        store.close()
