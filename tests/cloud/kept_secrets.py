# SPDX-License-Identifier: Apache-2.0
"""Whether what vmhad was given to keep to itself stands anywhere that it writes: in a log, a timeline, a beat, or a key
or value of the journal, certificates among them.

The secrets are those that the processes really had, read from their own files; one of a wrong BMC counts as any other.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import yaml

from lab.engine import START_LIMIT_S
from vmhad.drivers.store.etcd import EtcdStore

GIVEN = frozenset({"bmc-credentials.yaml", "nova-password", "vmhad.conf", "agent-keys.yaml", "agent-key.yaml"})
# Of a broker, of agents, and of Ceph's client.
IN_A_URL = re.compile(r"://[^:/\s]+:([^@\s]+)@")
IN_A_KEYS_FILE = re.compile(r'key: "([0-9a-f]{64})"')
IN_A_KEYRING = re.compile(r"(?m)^\s*key = (\S+)")
KEYRING_OF = re.compile(r"(?m)^keyring = (.+)")
# A shorter one might stand somewhere by chance.
SHORTEST = 12


def secrets_of(folder: Path) -> Iterator[tuple[str, str]]:
    """What the process of this folder was given to keep: (what it is, the secret)."""
    told = {name: _text(folder / name) for name in sorted(GIVEN)}
    for host, password in (yaml.safe_load(told["bmc-credentials.yaml"]) or {}).items():
        yield f"the password of the BMC of {host}", str(password)
    if told["nova-password"]:
        yield "the password for Nova", told["nova-password"].strip()
    for password in IN_A_URL.findall(told["vmhad.conf"]):
        yield "the password for RabbitMQ", password
    for name in ("agent-keys.yaml", "agent-key.yaml"):
        for key in IN_A_KEYS_FILE.findall(told[name]):
            yield "a key of agents", key
    for key in _ceph_keys(folder / "segments.yaml"):
        yield "the key for Ceph", key


def _text(path: Path) -> str:
    """Empty where there is none: a process has what it needs, and an earlier lab may have taken its Ceph along."""
    return path.read_text() if path.exists() else ""


def _ceph_keys(segments_file: Path) -> Iterator[str]:
    for storage in (yaml.safe_load(_text(segments_file)) or {}).get("storages", []):
        if storage["driver"] == "ceph":
            for keyring in KEYRING_OF.findall(_text(Path(storage["settings"]["conf_file"]))):
                yield from IN_A_KEYRING.findall(_text(Path(keyring)))


def spellings(secret: str) -> Iterator[bytes]:
    """As it is, in hex and in base64; a key's bytes, too."""
    for raw in (secret.encode(), *([bytes.fromhex(secret)] if re.fullmatch("[0-9a-f]{64}", secret) else [])):
        yield from (raw, raw.hex().encode(), b64encode(raw))


def written(folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """What the processes wrote into their folders, whatever files that are."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in GIVEN:
                yield str(path), path.read_bytes()


def journal_of(endpoints: Iterable[str]) -> Mapping[str, bytes]:
    """All keys of that etcd, vmhad's or not."""
    store = EtcdStore(tuple(endpoints), START_LIMIT_S)
    try:
        return store.list("")
    finally:
        store.close()


def assert_kept(root: Path, journal: Mapping[str, bytes]) -> str:
    """By all processes of vmhad that the lab at root has had. Returns what was looked at, in words."""
    folders = sorted(path for path in (root / "vmhad").glob("*") if path.is_dir())
    secrets = {secret: what for folder in folders for what, secret in secrets_of(folder)}
    assert secrets or not folders, f"{root} has had processes, and nothing was found that they have to keep"
    too_short = sorted(what for secret, what in secrets.items() if len(secret) < SHORTEST)
    assert not too_short, f"too short to be looked for: {too_short}"
    sought = [(what, spelling) for secret, what in secrets.items() for spelling in spellings(secret)]
    shown, files = set(), 0
    for place, text in written(folders):
        files += 1
        shown |= {f"{what} stands in {place}" for what, spelling in sought if spelling in text}
    for key, value in journal.items():
        text = key.encode() + b"\n" + value
        shown |= {f"{what} stands in the journal, key {key}" for what, spelling in sought if spelling in text}
    assert not shown, "; ".join(sorted(shown))
    certificates = sum("/certificate/" in key for key in journal)
    return f"none of {len(secrets)} secrets in {files} files and {len(journal)} keys, {certificates} of certificates"
