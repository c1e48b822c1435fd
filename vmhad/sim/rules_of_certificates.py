# SPDX-License-Identifier: Apache-2.0
"""Every VM that was started elsewhere has a certificate that holds; asked when a run is over, of the journal alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vmhad.journal import keys
from vmhad.kernel.certificate_rules import broken, broken_chain
from vmhad.kernel.cloud import ARRIVED, EVACUATION
from vmhad.kernel.step import StepState, Verb
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


def certificates(world: World) -> Chains:
    """(incident, server) -> its certificates in their order."""
    chains: Chains = {}
    for raw in world.store.list(keys.certificates()).values():
        one = json.loads(raw)
        chains.setdefault((one["incident"]["id"], one["server"]["id"]), []).append(one)
    return chains


def _missing(world: World, chains: Mapping[tuple[str, str], list[dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    """What Nova brought elsewhere by a step of ours that is settled, or never will be."""
    ledger = world.ledger
    steps = {(one.incident, one.subject): one for one in ledger.steps.values() if one.verb is Verb.EVACUATE}
    for move in world.nova.migrations:
        if move.status not in ARRIVED or move.kind != EVACUATION:
            continue
        mine = [one for one in ledger.started.get(move.server, ()) if one.target == move.target]
        for incident in sorted({one.incident for one in mine}):
            step, holder = steps.get((incident, move.server)), ledger.incidents.get(incident)
            is_settled = step is not None and step.state is not StepState.STARTED
            if is_settled or holder is None or not holder.is_open:
                if (incident, move.server) not in chains:
                    subject = f"vm {step.args.get('name', move.server) if step else move.server}"
                    yield subject, f"it was started on {move.target} by incident {incident}, without a certificate"
