# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage certificate: why VMs were started elsewhere, as it was kept; and whether what was kept holds.

«verify» asks neither the journal nor the engine's own code: it reads files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmhad.conf.settings import ConfigError, Settings
from vmhad.drivers.archive import Archive
from vmhad.journal import keys
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import Journal
from vmhad.kernel.certificate_rules import broken, broken_chain


def add_certificate(nouns: Any) -> None:
    verbs = nouns.add_parser("certificate", help="why VMs were started elsewhere").add_subparsers(required=True)
    listing = verbs.add_parser("list", help="a line each")
    for name in ("incident", "server", "host"):
        listing.add_argument(f"--{name}", default="", help="a VM's id or name" if name == "server" else "")
    listing.set_defaults(run=list_certificates)
    showing = verbs.add_parser("show", help="those of one VM, whole, the oldest first")
    showing.add_argument("server", help="id or name")
    showing.add_argument("--incident", default="")
    showing.set_defaults(run=show, host="")
    exporting = verbs.add_parser("export", help="one file each")
    exporting.add_argument("--to", required=True, metavar="DIR")
    for name in ("incident", "server", "host"):
        exporting.add_argument(f"--{name}", default="", help="a VM's id or name" if name == "server" else "")
    exporting.set_defaults(run=export)
    checking = verbs.add_parser("verify", help="digest, chain and rules of files; needs no journal")
    checking.add_argument("path", metavar="FILE|DIR")
    checking.set_defaults(run=verify)


def list_certificates(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    for _, one, _ in _meant(journal, told):
        server, result = one["server"], one["result"]
        when = (result["at"] or {}).get("utc", "").partition(".")[0]
        where = f"{one['incident']['host']} -> {one['plan'].get('target', '?')}"
        print(f"{when} {one['incident']['id']:<28} {server['name'] or server['id']:<16} {where:<24} "
              f"{result['word'].upper():<10} {one['number']:>3} {one['digest'][:16]}")  # fmt: skip
    return 0


def show(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    found = [one for _, one, _ in _meant(journal, told)]
    for one in found:
        print(json.dumps(one, indent=2, ensure_ascii=False))
    if not found:
        print(f"vmhad-manage: {told.server} has no certificate; «certificate list» names them.", file=sys.stderr)
    return 0 if found else 1


def export(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """To the byte as they stand in the journal."""
    archive, count = Archive(told.to), 0
    try:
        for key, _, raw in _meant(journal, told):
            archive.put(keys.file_of(key), raw)
            count += 1
    except OSError as error:
        raise ConfigError(f"--to {told.to} cannot be written: {error.strerror}.") from None
    print(f"{count} certificates are in {told.to}")
    return 0


def verify(told: argparse.Namespace) -> int:
    """A sentence for each rule that is broken, and 1 if one is."""
    path = Path(told.path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    said, chains = 0, dict[tuple[str, str], list[tuple[str, dict[str, Any]]]]()
    for file in files:
        try:
            one = json.loads(file.read_text(encoding="utf-8"))
            chains.setdefault((one["incident"]["id"], one["server"]["id"]), []).append((file.name, one))
            whys = broken(one)
        except OSError as error:
            whys = [f"it cannot be read: {error.strerror}"]
        except (ValueError, KeyError, TypeError):
            whys = ["it is no certificate"]
        for why in whys:
            print(f"{file.name}: {why}")
        said += len(whys)
    for (incident, server), chain in sorted(chains.items()) if path.is_dir() else ():
        for why in broken_chain(sorted((one for _, one in chain), key=_number)):
            print(f"certificates of {server} in {incident}: {why}")
            said += 1
    if not files:
        print(f"there is no certificate in {path}")
    if not said and files:
        print(f"{len(files)} certificates hold")
    return 1 if said or not files else 0


def _number(certificate: Mapping[str, Any]) -> int:
    number = certificate.get("number")
    return number if isinstance(number, int) else 0


def _meant(journal: Journal, told: argparse.Namespace) -> Iterator[tuple[str, Mapping[str, Any], bytes]]:
    """Key, certificate, JSON; those of each VM in their order."""
    for key, raw in sorted(journal.certificates(told.incident).items()):
        try:
            one = json.loads(raw)
            server, incident = one["server"], one["incident"]
        except (ValueError, KeyError, TypeError):
            raise JournalUnreadable(key, "it is no certificate") from None
        if told.server in ("", server["id"], server["name"]) and told.host in ("", incident["host"]):
            yield key, one, raw
