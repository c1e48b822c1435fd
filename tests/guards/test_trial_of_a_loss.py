# SPDX-License-Identifier: Apache-2.0
"""A loss that is played through before it happens, against the recovery of the same loss when it has happened.

Both ask the same rules. What differs is the order in which Nova lands what is under way: the recovery lands one at a
time, in an order drawn at random, the trial all together. Where room is only just enough that may end elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from oracle import DEAD, Small
from test_place_oracle import draw, play, segment_of

from tests.bench.plan import Recovery, drawn
from vmhad.kernel.cloud import ComputeService, Server, ServerState
from vmhad.survivability.cloud import Cloud
from vmhad.survivability.ground import ground_of
from vmhad.survivability.trial import Fate, lose

CASES = int(os.environ.get("TRIAL_CASES", "700"))
# Of the VMs that could come back, the share of which the trial and the recovery may say different things.
ELSE_TIGHT, ELSE_ROOMY = 0.02, 0.002


def trial_of(small: Small) -> Fate:
    """Hosts that are busy in the small cloud died with the one that is asked for."""
    cloud = Cloud(
        segments=(segment_of(small),),
        policies={"s": small.policy},
        services=tuple(_service(name, small.closed) for name in small.rooms),
        rooms=small.rooms,
        zones=small.zones,
        servers=(*small.servers, *_others(small)),
        groups=small.groups,
        traits={name: (trait,) for name, trait in small.traits.items() if trait},
        needs={server: (trait,) for server, trait in small.needs.items()},
        migrations=small.migrations,
    )
    ground = ground_of(cloud.segments[0], cloud)
    return lose(ground, frozenset({DEAD, *(name for name, why in small.closed.items() if why == "busy")}))


def _service(name: str, closed: Mapping[str, str]) -> ComputeService:
    why = closed.get(name, "")
    return ComputeService(name, why not in ("down", "suspect"), why != "disabled", "", why == "forced_down", "")


def _others(small: Small) -> Iterator[Server]:
    """The members of groups that live on the targets, whose room is taken already. What dies there is not asked."""
    alone = {small.policy.opt_out_key: "false"}
    for server_id, host in small.member_hosts.items():
        yield Server(server_id, server_id, host, ServerState.ACTIVE, volume_backed=True, metadata=alone)


def is_told_whole(small: Small) -> bool:
    """What died beside is proven dead in a trial."""
    return {name for name, why in small.closed.items() if why == "busy"} <= small.proven


def differing(roomy: bool) -> tuple[int, list[str]]:
    could, differs = 0, []
    for seed in range(CASES):
        small = draw(seed, roomy)
        if not is_told_whole(small):
            continue
        fate, result = trial_of(small), play(small, seed)
        assert fate.recovered.keys() | fate.left.keys() == {
            one.id for one in small.servers if one.metadata.get(small.policy.opt_out_key) != "false"
        }
        could += len(result.placed)
        for one in sorted(fate.recovered.keys() ^ result.placed.keys()):
            because = fate.left.get(one) or result.because.get(one)
            differs.append(f"seed {seed}: {one} {dict(fate.recovered)} against {dict(result.placed)}: {because}")
    return could, differs


def test_a_trial_ends_as_the_recovery_does() -> None:
    for roomy, most in ((False, ELSE_TIGHT), (True, ELSE_ROOMY)):
        could, differs = differing(roomy)
        print(f"{CASES} {'roomy' if roomy else 'tight'} cases: {len(differs)} of {could} VMs end otherwise")
        assert could > CASES // 2
        assert len(differs) <= most * could, "\n".join(differs[:20])


def test_several_hosts_at_once_end_as_their_recoveries_do_to_the_target() -> None:
    """All that is sent lands before the next look, in both. Some of the clouds are so full that VMs are left."""
    left = 0
    for seed in range(24):
        cloud = drawn(20, 240, seed, (200, 220, 256)[seed % 3] * 1024)
        (segment,) = cloud.segments
        recovery = Recovery(cloud, list(segment.names[:4]))
        dead = [one.id for servers in recovery.servers.values() for one in servers]
        recovery.run()
        fate = lose(ground_of(segment, replace(cloud, policies={"all": recovery.policy})), frozenset(segment.names[:4]))
        stayed = {one.id for servers in recovery.servers.values() for one in servers}
        assert fate.left.keys() == stayed, f"seed {seed}"
        assert dict(fate.recovered) == {one: recovery.homes[one] for one in dead if one not in stayed}, f"seed {seed}"
        left += len(stayed)
    assert left
