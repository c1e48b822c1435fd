# SPDX-License-Identifier: Apache-2.0
"""The document: plain values that say what a survey and a bound found, and the same in lines."""

from __future__ import annotations

import json
from dataclasses import replace

from vmhad.kernel.cloud import ComputeService, Group, Room, Server, ServerState
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Host, Segment
from vmhad.survivability.cloud import Cloud, Loss
from vmhad.survivability.document import lines, survivability

HOSTS = ("h1", "h2", "h3")


def vm(name: str, host: str, ram_mib: int = 1024) -> Server:
    return Server(name, f"name of {name}", host, ServerState.ACTIVE, vcpus=1, ram_mib=ram_mib, volume_backed=True)


CLOUD = Cloud(
    segments=(Segment("s", (Host("h1", {"rack": "r1"}), Host("h2", {"rack": "r1"}), Host("h3", {"rack": "r2"}))),),
    policies={"s": Policy()},
    services=tuple(ComputeService(name, True, True, "", False, "") for name in HOSTS),
    rooms={name: Room(name, 4, 2048, 100) for name in HOSTS},
    zones={},
    servers=(vm("a", "h1"), vm("b", "h2"), vm("big", "h3", 4096), replace(vm("p", "h2"), state=ServerState.PAUSED)),
    groups=(Group("g", "anti-affinity", ("a", "b")),),
)
NO_ROOM = "no host of the segment is up with room for it"


def test_what_would_be_left_is_told_with_its_reason() -> None:
    told, _ = survivability(CLOUD, [Loss("named", "feed", frozenset({"h1", "h3"}))])
    assert json.loads(json.dumps(told)) == told
    rows = {(row["kind"], row["name"]): row for row in told["losses"]}
    assert list(rows) == [
        ("host", "h1"), ("host", "h2"), ("host", "h3"), ("rack", "r1"), ("rack", "r2"), ("named", "feed")
    ]  # fmt: skip
    assert [row["survived"] for row in rows.values()] == [True, False, False, False, False, False]
    big = {"server": "big", "name": "name of big", "host": "h3", "because": NO_ROOM}
    assert rows["host", "h3"]["left"] == [big]
    # Both have room on h3, and their group allows one of them there.
    (apart,) = rows["rack", "r1"]["left"]
    assert apart["server"] in ("a", "b") and rows["rack", "r1"]["hosts"] == ["h1", "h2"]
    assert rows["named", "feed"]["left"][-1] == big
    assert [(row["kind"], row["asked"], row["survived"]) for row in told["summary"]] == [
        ("host", 3, 1), ("rack", 2, 0), ("named", 1, 0)
    ]  # fmt: skip


def test_who_comes_back_from_nothing_is_told_once() -> None:
    told, _ = survivability(CLOUD)
    (paused,) = told["never"]
    assert (paused["server"], paused["host"]) == ("p", "h2") and "it is paused" in paused["because"]
    (of_h2,) = (row for row in told["losses"] if row["name"] == "h2")
    assert (of_h2["never"], of_h2["left"], of_h2["survived"], of_h2["recovered"]) == (1, [], False, 1)
    (segment,) = told["segments"]
    assert segment["any_hosts"]["hosts"] == 0 and "it is paused" in segment["any_hosts"]["because"]
    assert (segment["protected"], segment["hosts"], segment["receivers"]) == (4, 3, 3)


def test_the_next_one_takes_over_what_stands() -> None:
    told, found = survivability(CLOUD)
    again, later = survivability(CLOUD, before=found)
    assert later.played == 0 and again == told
    _, asked = survivability(CLOUD, [Loss("named", "feed", frozenset({"h1"}))], before=found)
    assert asked.played == 4, "another set of losses is another survey"


def test_the_lines_say_what_holds_then_what_does_not() -> None:
    told, _ = survivability(CLOUD)
    text = list(lines(told))
    assert text[0] == "segment s: 4 protected VMs, 3 hosts, 3 of them receive"
    assert "1 of 3 of kind host can be lost with every protected VM back" in text
    at = text.index("host h3: 1 of 1 VMs would be left:")
    assert text[at + 1] == f"    name of big: {NO_ROOM}"
    assert any(line.startswith("group_in_one_domain g: all 2 VMs are in rack r1") for line in text)
