# SPDX-License-Identifier: Apache-2.0
"""What is kept of an older survey is what a new one finds, VM for VM and target for target; and much is kept."""

from __future__ import annotations

import os
import random
from dataclasses import replace

from clouds import changed, drawn

from vmhad.kernel.cloud import ComputeService, Room, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.survivability.cloud import Cloud, Loss, single_losses
from vmhad.survivability.survey import Survey, survey

SEEDS = int(os.environ.get("SURVEY_SEEDS", "60"))
CHANGES = 8


def ends(found: Survey) -> dict[object, object]:
    return {key: (dict(one.recovered), dict(one.left)) for key, one in found.fates.items()}


def test_what_is_kept_is_what_a_new_survey_finds() -> None:
    """Changes come one on another, so what was kept once is kept, or not, again."""
    kept = asked = 0
    for seed in range(SEEDS):
        dice = random.Random(seed)
        cloud = drawn(dice, dice.randint(3, 12), dice.randint(4, 40), spare_mib=dice.choice((4096, 16384)))
        losses = (*single_losses(cloud.segments), Loss("named", "some", frozenset({"h0", "h2"})))
        found = survey(cloud, losses)
        for number in range(CHANGES):
            cloud = changed(dice, cloud, number)
            found = found.after(cloud)
            fresh = survey(cloud, losses)
            assert ends(found) == ends(fresh), f"seed {seed}, change {number}"
            kept, asked = kept + len(found.fates) - found.played, asked + len(found.fates)
    print(f"{kept} of {asked} losses were kept")
    assert kept > asked / 4


def calm(hosts: int) -> Cloud:
    """Hosts of one kind, five equal VMs on each, and room for twice as many."""
    names = [f"h{number:02d}" for number in range(hosts)]
    servers = tuple(
        Server(f"{name}v{number}", "", name, ServerState.ACTIVE, volume_backed=True, vcpus=1, ram_mib=1024)
        for name in names for number in range(5)
    )  # fmt: skip
    return Cloud(
        segments=(Segment("s", tuple(Host(name) for name in names)),),
        policies={"s": Policy()},
        services=tuple(ComputeService(name, True, True, "", False, "") for name in names),
        rooms={name: Room(name, 10, 10240 + number, 100) for number, name in enumerate(names)},
        zones={},
        servers=servers,
    )


def test_one_vm_that_came_touches_few_losses() -> None:
    """On the fullest host, where nobody looks before all others are full: only its own loss is another one."""
    cloud = calm(40)
    found = survey(cloud, single_losses(cloud.segments))
    assert found.played == 40
    one = Server("new", "", "h00", ServerState.ACTIVE, volume_backed=True, vcpus=1, ram_mib=1024)
    room = replace(cloud.rooms["h00"], vcpus=9, ram_mib=9216)
    later = replace(cloud, servers=(*cloud.servers, one), rooms={**cloud.rooms, "h00": room})
    after = found.after(later)
    assert after.played == 1
    assert ends(after) == ends(survey(later, found.losses))


def test_a_loss_reaches_into_every_segment_that_it_has_hosts_of() -> None:
    cloud = calm(4)
    hosts = cloud.segments[0].hosts
    apart = replace(
        cloud, segments=(Segment("s", hosts[:2]), Segment("t", hosts[2:])), policies={"s": Policy(), "t": Policy()}
    )
    loss = Loss("named", "feed", frozenset({"h01", "h02", "h03"}))
    fates = survey(apart, [loss]).of(loss)
    of_s, of_t = fates["s"], fates["t"]
    assert set(of_s.recovered.values()) == {"h00"} and not of_s.left
    assert not of_t.recovered and len(of_t.left) == 10
    assert set(of_t.left.values()) == {"no host of the segment is up with room for it"}


def test_who_chooses_first_may_change_by_hosts_that_nobody_chose() -> None:
    """Whoever has fewer hosts to choose from takes the emptiest; how many there are says who is far down the line, too.
    """
    names = ("dead", "first", "second", "small", "tiny", "least")
    rooms = {"first": (8, 9000), "second": (8, 8000), "small": (2, 1024), "tiny": (0, 2048), "least": (0, 2048)}
    many = Server("many", "", "dead", ServerState.ACTIVE, volume_backed=True, vcpus=2, ram_mib=1024)
    large = Server("large", "", "dead", ServerState.ACTIVE, volume_backed=True, vcpus=1, ram_mib=2048)
    cloud = Cloud(
        segments=(Segment("s", tuple(Host(name) for name in names)),),
        policies={"s": Policy()},
        services=tuple(ComputeService(name, True, True, "", False, "") for name in names),
        rooms={name: Room(name, vcpus, ram_mib, 0) for name, (vcpus, ram_mib) in rooms.items()},
        zones={},
        servers=(many, large),
    )
    loss = Loss("host", "dead", frozenset({"dead"}))
    found = survey(cloud, [loss])
    assert dict(found.of(loss)["s"].recovered) == {"large": "first", "many": "second"}
    wider = replace(cloud, rooms={**cloud.rooms, **{one: Room(one, 1, 2048, 0) for one in ("tiny", "least")}})
    assert dict(found.after(wider).of(loss)["s"].recovered) == {"many": "first", "large": "second"}
