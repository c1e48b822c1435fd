# SPDX-License-Identifier: Apache-2.0
"""vmhad-manage: what an operator asks of the journal, and leaves in it as an order for the segment's owner.

It needs no running engine and calls none: orders are values in the journal, which the owner reads within seconds. An
export of the topology, and what of it can be lost, ask Nova and Placement instead, and change nothing; keys of agents
are files of this machine. Policies of VMs are values of the journal, too. A check of the storages asks those.
"""

from __future__ import annotations

import argparse
import getpass
import sys
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from vmhad.cmd.agent_key import add_agent_key
from vmhad.cmd.certificate import add_certificate, verify
from vmhad.cmd.policy import add_policy
from vmhad.cmd.private_memory import keep_memory_private
from vmhad.cmd.storage_check import add_storage
from vmhad.cmd.survivability import add_survivability, foretell
from vmhad.cmd.topology import add_topology, export
from vmhad.conf.load import load, policy_defaults
from vmhad.conf.settings import ConfigError, Settings
from vmhad.journal.codec import JournalUnreadable
from vmhad.journal.journal import Journal
from vmhad.journal.policies import PolicyShelf
from vmhad.kernel.incident import Incident
from vmhad.kernel.order import Order, OrderKind
from vmhad.kernel.proof import POWER_OFF
from vmhad.kernel.step import Step, Verb
from vmhad.ports import Conflict, Refused, Unanswered
from vmhad.wiring import open_store

PAUSE_MINUTES_MAX = 43200.0


def main() -> int:
    keep_memory_private()
    told = _arguments(sys.argv[1:])
    if told.noun == "certificate" and told.run is verify:
        # Whoever has the files needs neither the journal nor a configuration.
        return verify(told)
    try:
        if told.noun == "survivability" and told.topology:
            return foretell(None, None, told)
        words = [word for path in told.config_file for word in ("--config-file", path)]
        settings = load(words)
        if told.noun == "topology":
            return export(settings, policy_defaults(words), told)
        if told.noun == "agent-key":
            return int(told.keys(settings, told))
        store = open_store(settings)
        if told.noun == "survivability":
            return foretell(settings, PolicyShelf(store), told)
        if told.noun == "policy":
            return int(told.run(PolicyShelf(store), settings, told))
        journal = Journal(store)
        return int(told.run(journal, settings, told))
    except (ConfigError, Unanswered, Refused, Conflict, JournalUnreadable) as error:
        print(f"vmhad-manage: {error}", file=sys.stderr)
        return 2


def list_incidents(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """One line an incident, the newest last; held ones say why."""
    for segment in settings.segments:
        for incident in journal.load(segment.name).incidents:
            if told.all or incident.is_open:
                print(f"{incident.id:<32} {incident.state.value.upper():<11} {incident.held or incident.because}")
    return 0


def show_incident(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """Its turns, its proof and each of its steps."""
    for segment in settings.segments:
        record = journal.load(segment.name)
        for incident in record.incidents:
            if incident.id == told.incident:
                _print_incident(incident, [step for step in record.steps if step.incident == incident.id])
                return 0
    print(f"vmhad-manage: there is no incident {told.incident}; «incident list --all» names them.", file=sys.stderr)
    return 1


def give_order(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """Leaves the order; a resume takes the pauses back instead."""
    if told.vm:
        return _give_order_of_vm(journal, settings, told)
    if told.service:
        return _give_order_of_service(journal, settings, told)
    segment = _segment_of(settings, told)
    if told.kind is OrderKind.RESUME:
        pauses = [one for one in journal.orders(segment) if one.kind is OrderKind.PAUSE and one.host == told.host]
        for one in pauses:
            journal.drop_order(one)
        print(f"{len(pauses)} pauses taken back")
        return 0
    if told.kind is OrderKind.PAUSE and not 0 < told.minutes <= PAUSE_MINUTES_MAX:
        raise ConfigError(f"--minutes must be more than 0 and at most {PAUSE_MINUTES_MAX:g} (30 days).")
    until = time.time() + told.minutes * 60 if told.kind is OrderKind.PAUSE else 0.0
    journal.put_order(
        Order(uuid.uuid4().hex, told.kind, segment, told.host, until, by=getpass.getuser(), why=told.why)
    )
    print(f"{told.kind.value} is ordered for {told.host or 'segment ' + segment}")
    return 0


def confirm_down(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """An operator's word that a host is down: the last level of its fence. Its owner holds it against what is seen."""
    segment = _segment_of(settings, told)
    mine = [one for one in journal.load(segment).incidents if one.is_of_host and one.is_open and one.host == told.host]
    if not mine:
        raise ConfigError(f"{told.host} has no open incident: there is nothing to confirm.")
    order = Order(uuid.uuid4().hex, told.kind, segment, told.host, by=getpass.getuser(), why=told.why)
    journal.put_order(order)
    print(f"said of {told.host}; «incident show {mine[0].id}» tells in some seconds whether it was taken")
    return 0


def _give_order_of_vm(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """The VM by its id, or by its name where only one of that name has an open incident of its own."""
    known = [one for segment in settings.segments for one in journal.load(segment.name).incidents if one.is_open]
    meant = [one for one in known if one.vm and told.vm in (one.vm, one.vm_name)]
    if len(meant) != 1:
        raise ConfigError(f"{len(meant)} VMs {told.vm!r} have an open incident of their own; name one by its id.")
    (one,) = meant
    order = Order(uuid.uuid4().hex, told.kind, one.segment, one.host, by=getpass.getuser(), why=told.why, vm=one.vm)
    journal.put_order(order)
    print(f"{told.kind.value} is ordered for VM {one.vm_name or one.vm}")
    return 0


def _give_order_of_service(journal: Journal, settings: Settings, told: argparse.Namespace) -> int:
    """HOST/SERVICE, where that has an open incident of its own."""
    known = [one for segment in settings.segments for one in journal.load(segment.name).incidents if one.is_open]
    meant = [one for one in known if one.service and one.subject == told.service]
    if not meant:
        there = ", ".join(sorted(one.subject for one in known if one.service)) or "none"
        raise ConfigError(f"no service {told.service!r} has an open incident of its own; there are: {there}.")
    one = meant[0]
    journal.put_order(
        Order(
            uuid.uuid4().hex, told.kind, one.segment, one.host, by=getpass.getuser(), why=told.why, service=one.service
        )
    )
    print(f"{told.kind.value} is ordered for service {one.subject}")
    return 0


def _segment_of(settings: Settings, told: argparse.Namespace) -> str:
    known = {host: segment.name for segment in settings.segments for host in segment.names}
    if told.host:
        if told.host not in known:
            raise ConfigError(f"no segment has a host {told.host!r}; there are: {', '.join(sorted(known))}.")
        return known[told.host]
    if told.segment not in set(known.values()):
        raise ConfigError(f"there is no segment {told.segment!r}; there are: {', '.join(sorted(set(known.values())))}.")
    return str(told.segment)


def _print_incident(incident: Incident, steps: Sequence[Step]) -> None:
    subject = f"VM {incident.vm_name} on host {incident.host}" if incident.vm else f"host {incident.host}"
    subject = f"service {incident.service} of host {incident.host}" if incident.service else subject
    subject = f"the drain of {subject}" if incident.drain else subject
    print(f"incident {incident.id} of {subject}, {incident.state.value.upper()}")
    if incident.held:
        print(f"  held: {incident.held}")
    for turn in incident.turns:
        print(f"  {_time(turn.at)}  {turn.state.value.upper():<11} {turn.because}")
    if incident.proof:
        seen = "; ".join(f"{_time(one.at)} {one.text}" for one in incident.proof.observed)
        how = f" ({'by us' if incident.proof.by_us else 'already off'})" if incident.proof.kind == POWER_OFF else ""
        how += f" ({', '.join(incident.proof.backends)})" if incident.proof.backends else ""
        print(f"  proof: {incident.proof.kind}{how}: {seen}")
    for step in sorted(steps, key=lambda one: (one.started_at, one.id)):
        subject = step.args.get("name", step.subject)
        subject += f"/{step.args['backend']}" if "backend" in step.args else ""
        moves = step.verb in (Verb.EVACUATE, Verb.LIVE_MIGRATE) and "target" in step.args
        where = f" to {step.args['target']}" if moves else ""
        print(f"  {step.verb.value:<14} {subject}{where}: {step.state.value.upper()} {step.because}")


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vmhad-manage", description="Incidents, orders, policies; the topology.")
    parser.add_argument("--config-file", action="append", default=[], help="as for vmhad-engine")
    nouns = parser.add_subparsers(dest="noun", required=True)
    incidents = nouns.add_parser("incident", help="what failed and what was done").add_subparsers(required=True)
    listing = incidents.add_parser("list", help="the open ones, a line each")
    listing.add_argument("--all", action="store_true", help="those that ended, too")
    listing.set_defaults(run=list_incidents)
    showing = incidents.add_parser("show", help="one incident, with its steps")
    showing.add_argument("incident")
    showing.set_defaults(run=show_incident)
    orders = nouns.add_parser("order", help="tell the owner of a segment").add_subparsers(required=True)
    for kind, text in (
        (OrderKind.PAUSE, "begin no fence, for some minutes"),
        (OrderKind.RESUME, "take a pause back"),
        (OrderKind.RETRY, "try a STUCK incident of a host, a VM or a service again"),
        (OrderKind.CLOSE, "close an incident of a host, a VM or a service as it is"),
    ):
        one = orders.add_parser(kind.value, help=text)
        of_incident = kind in (OrderKind.RETRY, OrderKind.CLOSE)
        subject = one.add_mutually_exclusive_group(required=of_incident)
        subject.add_argument("--host", default="")
        if of_incident:
            subject.add_argument("--vm", default="", help="id or name, for an incident of its own")
            subject.add_argument("--service", default="", help="HOST/SERVICE, for an incident of its own")
        else:
            one.set_defaults(vm="", service="")
        one.add_argument("--segment", default="")
        one.add_argument("--why", default="no reason given")
        if kind is OrderKind.PAUSE:
            one.add_argument("--minutes", type=float, default=60.0, help="a pause ends by itself (default: 60)")
        one.set_defaults(run=give_order, kind=kind)
    _add_host(nouns)
    add_certificate(nouns)
    add_agent_key(nouns)
    add_policy(nouns)
    add_topology(nouns)
    add_survivability(nouns)
    add_storage(nouns)
    return parser.parse_args(words)


def _add_host(nouns: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    hosts = nouns.add_parser("host", help="what an operator knows of a host").add_subparsers(required=True)
    one = hosts.add_parser(
        "confirm-down",
        help="it is down, seen on the spot: its VMs may start elsewhere, where nothing speaks against it",
    )
    one.add_argument("host")
    one.add_argument("--why", required=True, help="how that is known; kept with the incident, with your name")
    one.set_defaults(run=confirm_down, kind=OrderKind.CONFIRM_DOWN, segment="")


if __name__ == "__main__":
    sys.exit(main())
