# SPDX-License-Identifier: Apache-2.0
"""What a target has to reach, and which failure domains are left to a group; the oracle tries both on whole clouds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bare_cases import case_of

from vmhad.guards.hosts.board import board
from vmhad.guards.hosts.domains import Domains
from vmhad.guards.hosts.reach import is_reached, must_reach, named
from vmhad.kernel.cloud import Group, Inventory, Server, ServerState
from vmhad.kernel.incident import opened
from vmhad.kernel.policy import Policy
from vmhad.kernel.topology import Backend, Host, Segment
from vmhad.kernel.verdict import Judgement, Verdict

ALL, SOME = frozenset({"h1", "h2", "h3"}), frozenset({"h1", "h2"})
DEAD = Verdict(Judgement.FAILED, "it is dead", 1)
SERVER = Server("s1", "web-1", "h1", ServerState.ACTIVE)
HOSTS = (Host("h1", {"rack": "r1"}), Host("h2", {"rack": "r2"}), Host("h3", {"rack": "r2"}), Host("h4"))


def needed(*backends: Backend, disks: tuple[str, ...] = ("cinder/gold",), source: str = "h1") -> str:
    return named(must_reach(replace(SERVER, disks=disks, host=source), Segment("east", HOSTS, backends)))


def test_a_target_reaches_every_storage_that_a_disk_is_on() -> None:
    gold, nfs = Backend("gold", frozenset({"cinder/gold"}), ALL, SOME), Backend("nfs", frozenset({"nova"}), ALL, SOME)
    assert needed(gold, nfs) == "gold"
    assert needed(gold, nfs, disks=("nova", "cinder/gold")) == "gold and nfs"
    assert is_reached((gold, nfs), "h2") and not is_reached((gold, nfs), "h3")


def test_where_nobody_says_who_reaches_it_nothing_is_asked() -> None:
    assert needed(Backend("gold", frozenset({"cinder/gold"}), ALL)) == ""
    assert needed(disks=("nova",)) == ""
    assert is_reached((), "h3")


def test_one_that_the_source_is_no_client_of_says_nothing_of_its_disks() -> None:
    gold = Backend("gold", frozenset({"cinder/gold"}), SOME, SOME)
    assert needed(gold, source="h3") == ""


@pytest.mark.parametrize("disks", [("volume/a",), ()])
def test_what_nobody_knows_the_place_of_may_be_anywhere(disks: tuple[str, ...]) -> None:
    gold = Backend("gold", frozenset({"cinder/gold"}), ALL, SOME)
    flash = Backend("flash", frozenset({"cinder/flash"}), ALL, SOME)
    kept = Backend("nfs", frozenset({"nova"}), ALL, SOME)
    assert needed(gold, flash, kept, disks=disks) == ("flash and gold" if disks else "flash and gold and nfs")


def domains_left(policy: str, where: dict[str, str], kind: str = "rack", leaving: frozenset[str] = frozenset()) -> str:
    """The hosts in the best domains that are left to s1, whose host h0 died."""
    group = Group("g", policy, ("s1", *where))
    inventory = Inventory("h0", 1.0, (SERVER,), (), (group,), where, (), ())
    case = case_of(opened("h0.1", "east", "h0", 1.0, "dead"), DEAD, Policy(spread_over=kind))
    case = replace(case, segment=Segment("east", HOSTS), busy_hosts=leaving)
    domains = Domains("s1", (group,), board(case, inventory, {}))
    suit = {host.name: domains.suit(host.name) for host in HOSTS}
    return " ".join(name for name in suit if suit[name] == min(suit.values()))


@pytest.mark.parametrize("policy", ["anti-affinity", "soft-anti-affinity"])
def test_a_domain_without_another_member_comes_first(policy: str) -> None:
    assert domains_left(policy, {"a": "h2"}) == "h1"
    assert domains_left(policy, {"a": "h1"}) == "h2 h3"


def test_a_host_of_which_nobody_says_the_domain_comes_second() -> None:
    assert domains_left("anti-affinity", {"a": "h1", "b": "h2"}) == "h4"
    assert domains_left("anti-affinity", {"a": "h1", "b": "h2", "c": "h4"}) == "h1 h2 h3 h4"


def test_a_member_that_is_leaving_or_elsewhere_holds_none() -> None:
    assert domains_left("anti-affinity", {"a": "h2"}, leaving=frozenset({"h2"})) == "h1 h2 h3"
    assert domains_left("anti-affinity", {"a": "far-away"}) == "h1 h2 h3"


def test_without_the_policy_and_for_other_groups_all_is_as_it_was() -> None:
    assert domains_left("anti-affinity", {"a": "h2"}, kind="") == "h1 h2 h3 h4"
    assert domains_left("soft-affinity", {"a": "h2"}) == "h1 h2 h3 h4"
