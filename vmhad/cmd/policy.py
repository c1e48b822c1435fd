# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage policy: the policies of VMs in the journal, and which of them decides what of one VM.

Engines read them within seconds. Only explain and --dry-run ask Nova, and change nothing: policies can be changed while
it is away.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vmhad.conf.settings import ConfigError, Settings
from vmhad.conf.vm_policies_file import load_policies, load_policy, policies_text, policy_text, with_said
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.engine.explaining import around, changes, explanation, idle
from vmhad.journal.policies import PolicyShelf, changed, created, deleted, known
from vmhad.kernel.cloud import Server
from vmhad.kernel.vm_policy import VmPolicies, VmPolicy, ties
from vmhad.kernel.vm_resolve import spelled
from vmhad.ports import Refused
from vmhad.wiring import open_compute


def add_policy(nouns: Any) -> None:
    verbs = nouns.add_parser("policy", help="policies of VMs: what is wanted of which").add_subparsers(required=True)
    verbs.add_parser("list", help="a line each, the most specific first").set_defaults(run=list_policies)
    one = verbs.add_parser("show", help="one of them, as a file has it")
    one.add_argument("name")
    one.set_defaults(run=show)
    one = _changing(verbs, "create", "a new one, from a file")
    one.add_argument("-f", "--file", required=True)
    one.add_argument("--replace", action="store_true", help="in place of the one of its name")
    one.set_defaults(run=create)
    one = _changing(verbs, "set", "change what one says; SETTING= takes a setting away")
    one.add_argument("name")
    one.add_argument("said", nargs="+", metavar="SETTING=VALUE")
    one.set_defaults(run=change)
    one = _changing(verbs, "delete", "take one away")
    one.add_argument("name")
    one.set_defaults(run=delete)
    one = _changing(verbs, "load", "all of a file in place of all that are there")
    one.add_argument("file")
    one.set_defaults(run=load)
    verbs.add_parser("dump", help="all of them, as load takes them").set_defaults(run=dump)
    one = verbs.add_parser("explain", help="which policy decides what of one VM, and why")
    one.add_argument("server", help="id or name")
    one.set_defaults(run=explain)


def _changing(verbs: Any, verb: str, text: str) -> Any:
    one = verbs.add_parser(verb, help=text)
    one.add_argument("--version", type=int, help="only if they are at this version still")
    one.add_argument("--dry-run", action="store_true", help="tell what would change for which VMs; change nothing")
    return one


def list_policies(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    held = shelf.newest()
    print(f"version {held.version}, {len(held.policies)} policies")
    for one in held.ranked:
        said = ", ".join(f"{name}={spelled(value)}" for name, value in one.settings.said.items())
        print(f"{one.name:<24} {str(one.match):<40} {said}")
    return 0


def show(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    print(policy_text(known(shelf.newest(), told.name)), end="")
    return 0


def create(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    policy, there = load_policy(told.file), shelf.newest()
    put = (changed if told.replace else created)(there, policy)
    return _put(shelf, settings, told, there, put, f"policy {policy.name} is there")


def change(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    there = shelf.newest()
    policy = with_said(known(there, told.name), told.said)
    return _put(shelf, settings, told, there, changed(there, policy), f"policy {policy.name} is changed")


def delete(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    there = shelf.newest()
    return _put(shelf, settings, told, there, deleted(there, told.name), f"policy {told.name} is gone")


def load(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    """A file that says of which version it was made is loaded over that one only."""
    version, policies = load_policies(told.file)
    told.version = version if told.version is None else told.version
    text = f"{len(policies)} policies are there in place of all before"
    return _put(shelf, settings, told, shelf.newest(), policies, text)


def _put(
    shelf: PolicyShelf,
    settings: Settings,
    told: argparse.Namespace,
    there: VmPolicies,
    policies: Sequence[VmPolicy],
    text: str,
) -> int:
    if told.dry_run:
        return _dry_run(settings, there, VmPolicies(there.version + 1, tuple(policies)))
    held = shelf.replace(there.version if told.version is None else told.version, policies)
    print(f"{text}; the policies are at version {held.version}")
    return 0


def dump(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    print(policies_text(shelf.newest()), end="")
    return 0


def explain(shelf: PolicyShelf, settings: Settings, told: argparse.Namespace) -> int:
    held = shelf.newest()
    compute = open_compute(settings)
    try:
        server = _server(compute, told.server)
        found = explanation(server, held, around(compute, held.policies), settings.segments, settings.policies)
    finally:
        compute.close()
    where = f"segment {found.segment}" if found.segment else "in no segment: nothing protects it"
    print(f"VM {server.name} ({server.id}) on {server.host or 'no host'}, {where}; policies of version {found.version}")
    _tell_unknown(found.unknown)
    for one in found.fitting:
        print(f"  matched by {one.name}: {one.match}")
    for row in found.settings:
        print(f"  {row.setting:<20} {row.value:<22} {row.because}")
    return 0


def _server(compute: NovaCompute, told: str) -> Server:
    """By its id, or by its name where only one has that."""
    if (by_id := compute.server(told)) is not None:
        return by_id
    named = compute.servers_named(told)
    if len(named) != 1:
        raise ConfigError(f"{len(named)} VMs are named {told!r}; name one by its id.")
    return named[0]


def _dry_run(settings: Settings, there: VmPolicies, new: VmPolicies) -> int:
    if found := list(ties(new.policies)):
        raise Refused("; ".join(found))
    compute = open_compute(settings)
    try:
        surroundings = around(compute, (*there.policies, *new.policies))
        servers = compute.all_servers()
    finally:
        compute.close()
    _tell_unknown(surroundings.unknown)
    told = list(changes(servers, there, new, surroundings))
    for one in told:
        words = ", ".join(f"{name} {old} -> {now}" for name, (old, now) in one.settings.items())
        print(f"{one.server.name or one.server.id:<24} {one.server.id:<36} {words}")
    for policy in idle(servers, (one for one in new.policies if one != there.named(one.name)), surroundings):
        print(f"policy {policy.name} matches none of {len(servers)} VMs: {policy.match}")
    print(f"{len(told)} VMs would change; nothing was changed")
    return 0


def _tell_unknown(unknown: Mapping[str, str]) -> None:
    for key, why in sorted(unknown.items()):
        print(f"not known, so that no policy matches by it: {key} ({why})")
