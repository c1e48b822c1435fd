# SPDX-License-Identifier: Apache-2.0
"""Which policy decides what of a VM: the order of keys, what fits, who wins, and which two leave it open."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import pytest

from vmhad.kernel.cloud import OPTED_OUT, Server, ServerState
from vmhad.kernel.policy import OnFailure, Policy
from vmhad.kernel.vm_policy import KEYS, NOTHING_SAID, Match, Protect, Settings, VmPolicies, VmPolicy, VmSettings, ties
from vmhad.kernel.vm_resolve import (
    OF_POLICY,
    SURROUNDED,
    Surroundings,
    domains_of,
    explained,
    fits,
    needed,
    policy_of,
    settings_of,
    settled,
)

SERVER = Server(
    "s1", "web-1", "h1", ServerState.ACTIVE, zone="az1", metadata={"role": "db", "HA_Enabled": "True"},
    project="p1", flavor="m1.small", image="i1", tags=("gold", "x"),
)  # fmt: skip
AROUND = Surroundings(aggregates={"h1": ("ssd", "all")}, groups={"s1": ("g-id", "pair")}, domains={"p1": "d1"})
FITTING = {
    "server": Match(server=("s1",)),
    "group": Match(group=("pair",)),
    "metadata": Match(metadata={"role": ("db",)}),
    "tag": Match(tag=("gold",)),
    "image": Match(image=("i1",)),
    "flavor": Match(flavor=("m1.small",)),
    "project": Match(project=("p1",)),
    "aggregate": Match(aggregate=("ssd",)),
    "zone": Match(zone=("az1",)),
    "domain": Match(domain=("d1",)),
}
ALL = Match()
MERGED = Match(server=("s1", "s2"), project=("p1",), metadata={"role": ("db", "web"), "HA_Enabled": ("true",)})


def policy(name: str, match: Match, **said: object) -> VmPolicy:
    return VmPolicy(name, match, Settings(**said))  # type: ignore[arg-type]


def resolved(*policies: VmPolicy, server: Server = SERVER, around: Surroundings = AROUND) -> VmSettings:
    return settings_of(VmPolicies(1, policies).ranked, server, around)


def test_every_key_fits_by_itself_and_not_where_it_differs() -> None:
    assert list(FITTING) == list(KEYS)
    stranger = Server("s9", "other", "h9", ServerState.ACTIVE)
    for key, match in FITTING.items():
        assert fits(match, SERVER, AROUND), key
        assert not fits(match, stranger, AROUND), key
    assert fits(ALL, stranger, AROUND)


@pytest.mark.parametrize(
    ("match", "fit"),
    [
        (MERGED, True),
        (replace(MERGED, project=("p2",)), False),
        (replace(MERGED, metadata={"role": ("db",), "tier": ("1",)}), False),
        (Match(metadata={"HA_Enabled": ("TRUE",)}), True),
        (Match(metadata={"ha_enabled": ("true",)}), False),
        (Match(group=("g-id",)), True),
        (Match(group=("G-ID", "other")), True),
        (Match(tag=("silver", "x")), True),
        (Match(aggregate=("hdd",)), False),
        (Match(image=("",)), False),
    ],
)
def test_all_keys_must_fit_and_one_value_of_each_is_enough(match: Match, fit: bool) -> None:
    assert fits(match, SERVER, AROUND) is fit


def test_the_more_specific_key_wins_in_the_order_of_the_keys() -> None:
    for better, worse in zip(KEYS, KEYS[1:], strict=False):
        for two in permutations((policy("a", FITTING[better], priority=1), policy("b", FITTING[worse], priority=2))):
            assert resolved(*two).priority == 1, (better, worse)
    assert resolved(policy("a", ALL, priority=1), policy("b", FITTING["domain"], priority=2)).priority == 2


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (Match(project=("p1",), zone=("az1",)), Match(project=("p1",))),
        (Match(project=("p1",), aggregate=("ssd",)), Match(project=("p1",), zone=("az1",), domain=("d1",))),
        (Match(server=("s1",)), Match(group=("pair",), tag=("x",), project=("p1",), zone=("az1",))),
        (Match(metadata={"role": ("db",), "HA_Enabled": ("true",)}), Match(metadata={"role": ("db",)})),
        (Match(metadata={"role": ("db",), "HA_Enabled": ("true",)}), Match(metadata={"role": ("db",)}, tag=("x",))),
    ],
)
def test_key_after_key_is_compared_and_whoever_names_one_more_wins(better: Match, worse: Match) -> None:
    two = (policy("z", better, priority=1), policy("a", worse, priority=2))
    assert not list(ties(two))
    assert resolved(*two).priority == resolved(*reversed(two)).priority == 1


def test_each_setting_is_decided_by_itself() -> None:
    said = resolved(
        policy("all", ALL, protect=Protect.FLAGGED, on_crash=OnFailure.LEAVE, priority=-5),
        policy("project", FITTING["project"], priority=5, order_group="db"),
        policy("this", FITTING["server"], instance_starts_max=1),
    )
    assert said == VmSettings(
        protect=True, priority=5, order_group="db", instance_starts_max=1, on_crash=OnFailure.LEAVE
    )


@pytest.mark.parametrize(
    ("protect", "metadata", "protected"),
    [
        (None, {}, True),
        (None, {"HA_Enabled": "False"}, True),
        (Protect.YES, {}, True),
        (Protect.NO, {}, False),
        (Protect.NO, {"HA_Enabled": "True"}, False),
        (Protect.FLAGGED, {}, False),
        (Protect.FLAGGED, {"HA_Enabled": "True"}, True),
        (Protect.FLAGGED, {"HA_Enabled": " yes "}, True),
        (Protect.FLAGGED, {"HA_Enabled": "1"}, True),
        (Protect.FLAGGED, {"HA_Enabled": "False"}, False),
        (Protect.FLAGGED, {"HA_Enabled": ""}, False),
        (Protect.FLAGGED, {"ha_enabled": "True"}, False),
        (None, {"vmhad": "false"}, False),
        (Protect.YES, {"vmhad": "False", "HA_Enabled": "True"}, False),
        (Protect.FLAGGED, {"vmhad": "false", "HA_Enabled": "True"}, False),
        (Protect.FLAGGED, {"vmhad": "true", "HA_Enabled": "True"}, True),
    ],
)
def test_the_owners_word_goes_first_then_policy(
    protect: Protect | None, metadata: dict[str, str], protected: bool
) -> None:
    policies = (policy("p", ALL, protect=protect),) if protect else ()
    server = settled(replace(SERVER, metadata=metadata), policies, AROUND)
    assert (not server.why_left("vmhad")) is protected
    if metadata.get("vmhad", "").lower() == "false":
        assert server.why_left("vmhad") == OPTED_OUT
    (told, *_) = explained(policies, server, AROUND, Policy())
    assert (told.setting, told.value) == ("protect", "yes" if protected else "no")


def test_a_flagged_vm_goes_first_where_nobody_says_anything() -> None:
    assert resolved().priority == 1
    assert resolved(policy("p", ALL, priority=0)).priority == 0
    assert resolved(server=replace(SERVER, metadata={"HA_Enabled": "False"})) is NOTHING_SAID


def test_without_policies_a_server_stays_the_very_one() -> None:
    plain = replace(SERVER, metadata={})
    assert settled(plain, (), AROUND) is plain
    assert policy_of(policy := Policy(), plain.settings) is policy


def test_what_a_policy_said_once_is_forgotten_with_it() -> None:
    said = settled(SERVER, (policy("p", ALL, protect=Protect.NO, priority=9),), AROUND)
    assert said.settings.priority == 9 and settled(said, (), AROUND).settings == resolved()


def test_what_is_said_stands_in_place_of_the_segments_policy() -> None:
    assert OF_POLICY == (
        "storage_only_proof", "rebuild_local_disks", "instance_starts_max", "instance_window_s",
        "on_crash", "on_panic", "on_io_error", "on_silent_agent",
    )  # fmt: skip
    said = resolved(policy("p", ALL, rebuild_local_disks=True, instance_window_s=60.0, on_panic=OnFailure.LEAVE))
    changed = replace(Policy(), rebuild_local_disks=True, instance_window_s=60.0, on_panic=OnFailure.LEAVE)
    assert policy_of(Policy(), said) == changed


@pytest.mark.parametrize(
    ("segment", "vm", "both"), [(True, None, True), (True, False, False), (False, True, False), (True, True, True)]
)
def test_a_vm_can_only_be_stricter_than_its_segment(segment: bool, vm: bool | None, both: bool) -> None:
    policy = replace(Policy(), storage_only_proof=segment)
    assert policy_of(policy, VmSettings(priority=1, storage_only_proof=vm)).storage_only_proof is both


UUID = "0c2f3a4e-7d7b-4a57-9a0e-3d1f3e2f1a10"
OTHER = "1c2f3a4e-7d7b-4a57-9a0e-3d1f3e2f1a10"


@pytest.mark.parametrize(
    ("a", "b", "tie"),
    [
        (ALL, ALL, True),
        (Match(project=("p1",)), Match(project=("p2",)), False),
        (Match(project=("p1", "p2")), Match(project=("P2", "p3")), True),
        (Match(tag=("gold",)), Match(tag=("silver",)), True),
        (Match(tag=("gold",), project=("p1",)), Match(tag=("silver",), project=("p2",)), False),
        (Match(aggregate=("ssd",)), Match(aggregate=("all",)), True),
        (Match(metadata={"tier": ("1",)}), Match(metadata={"tier": ("2",)}), False),
        (Match(metadata={"tier": ("1",)}), Match(metadata={"role": ("db",)}), True),
        (Match(metadata={"tier": ("1", "2")}), Match(metadata={"tier": ("2",)}), True),
        (Match(group=("pair",)), Match(group=("trio",)), False),
        (Match(group=("pair",)), Match(group=(UUID,)), True),
        (Match(group=(UUID,)), Match(group=(OTHER,)), False),
        (Match(group=(UUID, "pair")), Match(group=(OTHER, "trio")), True),
        (Match(server=("s1",)), Match(server=("s2",)), False),
        (Match(project=("p1",)), Match(zone=("az1",)), False),
    ],
)
def test_two_are_a_tie_where_one_vm_may_fit_both_and_neither_is_more_specific(a: Match, b: Match, tie: bool) -> None:
    for two in permutations((policy("a", a, priority=1), policy("b", b, priority=2))):
        assert len(list(ties(two))) == tie
    assert not list(ties((policy("a", a, priority=1), policy("b", b, priority=1, order_group="x"))))


def test_a_tie_names_both_what_they_say_and_the_way_out() -> None:
    (said,) = ties(
        (policy("b", Match(tag=("x",)), priority=1), policy("a", Match(tag=("y",)), priority=2, order_group="g"))
    )
    assert said == (
        "policies 'a' and 'b' are a tie: both match by tag, one VM may fit both, and they say different priority (2 "
        "and 1); let one of them match by one key more, or say the same"
    )


def test_where_nothing_is_a_tie_no_vm_is_left_open() -> None:
    """Random policies over few values, and every VM that can be made of those: of whatever fits best all say the same,
    so no order of ours decides."""
    rng, left_open, clear = random.Random(7), 0, 0
    values = {"project": ("p1", "p2"), "tag": ("t1", "t2"), "zone": ("z1", "z2"), "group": ("g1", "g2")}
    servers = [
        Server(f"{p}{z}{g}{n}{r}", "x", "h1", ServerState.ACTIVE, project=p, zone=z, tags=tags, metadata={"role": r})
        for p in values["project"] for z in values["zone"] for g in values["group"] for r in ("a", "b")
        for n, tags in enumerate(((), ("t1",), ("t2",), ("t1", "t2")))
    ]  # fmt: skip
    around = Surroundings(groups={one.id: (one.id[4:6],) for one in servers})
    for _ in range(400):
        policies = []
        for name in "abc":
            keys = rng.sample(list(values), rng.randint(0, 2))
            told = {key: tuple(rng.sample(values[key], rng.randint(1, 2))) for key in keys}
            role = {"role": (rng.choice("ab"),)} if rng.random() < 0.3 else {}
            policies.append(policy(name, Match(**told, metadata=role), priority=rng.randint(1, 2)))  # type: ignore[arg-type]
        for server in servers:
            fitting = [one for one in policies if fits(one.match, server, around)]
            best = max((one.match.rank for one in fitting), default=())
            said = {one.settings.priority for one in fitting if one.match.rank == best}
            if len(said) > 1:
                left_open += 1
                assert list(ties(policies))
            elif said:
                clear += 1
                assert resolved(*policies, server=server, around=around).priority in said
    assert left_open > 100 and clear > 10_000


def test_what_has_to_be_asked_is_told_by_the_policies() -> None:
    assert set(KEYS) >= SURROUNDED.keys()
    policies = [
        policy("a", FITTING["group"], priority=1),
        policy("b", Match(domain=("d1", "d2"), tag=("x",)), priority=2),
    ]
    assert needed(policies) == {"group", "domain"} and domains_of(policies) == {"d1", "d2"}
    assert not needed([policy("c", FITTING["zone"], priority=1)])


def test_it_is_explained_who_decides_and_over_whom() -> None:
    ranked = VmPolicies(1, (
        policy("all", ALL, priority=1, storage_only_proof=True, on_crash=OnFailure.LEAVE),
        policy("shop", FITTING["project"], priority=5),
        policy("shop-too", FITTING["project"], priority=5),
        policy("flags", ALL, protect=Protect.FLAGGED),
    )).ranked  # fmt: skip
    strict = replace(Policy(), storage_only_proof=False)
    told = {one.setting: one for one in explained(ranked, SERVER, AROUND, strict)}
    assert (told["priority"].value, told["priority"].by) == ("5", "shop")
    assert told["priority"].because == (
        "policy 'shop' matches it by project p1; over 'shop-too' by project p1, equally specific, says the same; over "
        "'all' by all, less specific, which says 1"
    )
    assert (told["storage_only_proof"].value, told["storage_only_proof"].by) == ("no", "")
    assert "can only be stricter" in told["storage_only_proof"].because
    assert (told["instance_starts_max"].value, told["on_crash"].value) == ("3", "leave")
    assert "HA_Enabled is 'True'" in told["protect"].because
    outside = {one.setting: one for one in explained((), SERVER, AROUND, None)}
    assert (outside["priority"].value, outside["on_panic"].value) == ("1", "as its segment has it")
