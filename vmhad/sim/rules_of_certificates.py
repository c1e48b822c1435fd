# SPDX-License-Identifier: Apache-2.0
"""Every VM that was started elsewhere has a certificate that holds; asked when a run is over, of the journal alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vmhad.journal import keys
from vmhad.kernel.certificate_rules import broken, broken_chain
from vmhad.kernel.cloud import ARRIVED, EVACUATION
from vmhad.kernel.step import Step, StepState, Verb
from vmhad.sim.world import World

Chains = dict[tuple[str, str], list[dict[str, Any]]]


def tell(world: World) -> None:
    for subject, why in at_end(world):
        world.checkers.breach(subject, why)


def at_end(world: World) -> Iterator[tuple[str, str]]:
    """(subject, sentence) of each rule that is broken."""
    chains = certificates(world)
    for (_, server), chain in sorted(chains.items()):
        subject = f"vm {chain[0]['server']['name'] or server}"
        for one in chain:
            yield from ((subject, f"certificate {one['number']} of it: {why}") for why in broken(one))
        yield from ((subject, f"its certificates: {why}") for why in broken_chain(chain))
    yield from _missing(world, chains)
    yield from _uncounted(world, chains)


def certificates(world: World) -> Chains:
    """(incident, server) -> its certificates in their order."""
    chains: Chains = {}
    for raw in world.store.list(keys.certificates()).values():
        one = json.loads(raw)
        chains.setdefault((one["incident"]["id"], one["server"]["id"]), []).append(one)
    return chains


def _missing(world: World, chains: Chains) -> Iterator[tuple[str, str]]:
    """What Nova brought elsewhere by a step of ours that is settled, or never will be. What was pruned is not asked."""
    ledger = world.ledger
    steps = {(one.incident, one.subject): one for one in ledger.steps.values() if one.verb is Verb.EVACUATE}
    for move in world.nova.migrations:
        if move.status not in ARRIVED or move.kind != EVACUATION:
            continue
        mine = [one for one in ledger.started.get(move.server, ()) if one.target == move.target]
        for incident in sorted({one.incident for one in mine}):
            step, holder = steps.get((incident, move.server)), ledger.incidents.get(incident)
            if step is None or holder is None or (step.state is StepState.STARTED and holder.is_open):
                continue
            if (incident, move.server) not in chains:
                yield subject_of(step), f"it was started on {move.target} by incident {incident}, without a certificate"


def _uncounted(world: World, chains: Chains) -> Iterator[tuple[str, str]]:
    """None was written over another one."""
    for step in world.ledger.steps.values():
        kept = len(chains.get((step.incident, step.subject), ()))
        if step.verb is Verb.EVACUATE and step.incident in world.ledger.incidents:
            written = step.certified.count if step.certified is not None else 0
            if written != kept:
                yield subject_of(step), f"{written} certificates of it were written, and {kept} are kept"


def subject_of(step: Step) -> str:
    return f"vm {step.args.get('name') or step.subject}"
