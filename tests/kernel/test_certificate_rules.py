# SPDX-License-Identifier: Apache-2.0
"""A certificate that was tampered with, or tells of a start that was not safe, is refused by the rule it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.certificates import chain, chains, sealed
from vmhad.kernel.certificate_rules import broken, broken_chain

One = dict[str, Any]
Tampering = Callable[[One], object]
# One host, one owner; another one in which the heir of a dead owner settles what that had started; and one that rests
# on the proofs of two hosts.
SELF_FENCED = "self_fenced_by_policy"
PLAIN, TAKEN_OVER, TWO_HOSTS = "cut_moves_four_vms", "engine_killed_mid_recovery", "target_hangs_while_receiving"


def later(time: One, seconds: float) -> None:
    time["s"] += seconds


def own(one: One) -> One:
    (proof,) = [proof for proof in one["proofs"] if proof["host"] == one["incident"]["host"]]
    return proof


def act(one: One) -> One:
    (only,) = own(one)["acts"]
    return only


def as_cut(one: One, *proven: str) -> None:
    """The same recovery, by storages cut instead of power. Of its disks one is on ceph-a and one on san-b."""
    proof = own(one)
    for seen in (*proof["observed"], *act(one)["observed"]):
        seen["reading"] = "cut"
    proof["acts"] = [
        {**act(one), "verb": "cut_storage", "args": {"backend": name}, "observed": list(proof["observed"])}
        for name in sorted(proven)
    ]
    proof |= {"kind": "cut_storage", "backends": sorted(proven)}
    one["server"]["disks"] = {"nova": ["ceph-a"], "cinder/gold": ["san-b"]}
    one["plan"]["proof_cuts"] = ",".join(f"{proof['host']}/{name}" for name in sorted(proven))


def cut_whole(one: One) -> One:
    as_cut(one, "ceph-a", "san-b")
    return own(one)


def by_word(one: One, **args: str) -> None:
    own(one).update(kind="word", observed=own(one)["observed"][:1])
    act(one).update(verb="confirm_down", args=args, acts=0, acted_at=None)


TAMPERED: list[tuple[str, Tampering, str]] = [
    (PLAIN, lambda one: one.update(schema=2), "its schema is 2"),
    (PLAIN, lambda one: one.pop("proofs"), "not made as the schema says"),
    (PLAIN, lambda one: one.update(start=None), "nobody kept when"),
    (PLAIN, lambda one: one.update(verdict=None), "nobody kept the verdict"),
    (PLAIN, lambda one: one["start"].update(epoch=7), "started under epoch 7, which no owner had"),
    (PLAIN, lambda one: one["result"].update(epoch=7), "settled under epoch 7"),
    (PLAIN, lambda one: own(one).update(epoch=0), "proven under epoch 0"),
    (PLAIN, lambda one: own(one).update(epoch=2), "it is of a later owner"),
    (PLAIN, lambda one: one["plan"].update(target=one["incident"]["host"]), "its target is no other host"),
    (PLAIN, lambda one: one["plan"].pop("target"), "its target is no other host"),
    (PLAIN, lambda one: one["proofs"].clear(), "there is no proof of h1"),
    (PLAIN, lambda one: one["plan"].update(proof_hosts="h1,h9"), "there is no proof of h9"),
    (PLAIN, lambda one: own(one).update(round=2), "of round 2, and the evacuation is of round 1"),
    (PLAIN, lambda one: own(one).update(incident="h1.7"), "the evacuation is of round 1"),
    (PLAIN, lambda one: own(one).update(observed=[]), "rests on no observation"),
    (PLAIN, lambda one: later(own(one)["observed"][1]["at"], 60), "does not precede the start"),
    (PLAIN, lambda one: later(own(one)["proven_at"], 60), "does not precede the start"),
    (PLAIN, lambda one: later(one["start"]["at"], -60), "does not precede the start"),
    (PLAIN, lambda one: one["proofs"][0].update(life_at_start=one["start"]["at"]), "a sign of life after its proof"),
    (PLAIN, lambda one: own(one)["seen"].update(life_at=own(one)["proven_at"]), "after the first observation"),
    (PLAIN, lambda one: own(one)["observed"][0].update(reading="on"), "a reading that is not OFF"),
    (PLAIN, lambda one: own(one)["observed"].pop(), "was not read OFF twice"),
    (PLAIN, lambda one: own(one)["observed"][1].update(at=own(one)["observed"][0]["at"]), "was not read OFF twice"),
    (PLAIN, lambda one: own(one)["seen"]["policy"].update(readings_apart_s="600"), "twice, 600 s apart"),
    (PLAIN, lambda one: later(act(one)["acted_at"], 3), "came before the act"),
    (PLAIN, lambda one: act(one).update(acts=0), "nothing was done to h1"),
    (PLAIN, lambda one: own(one)["acts"].clear(), "nothing was done to h1"),
    (PLAIN, lambda one: own(one).update(kind="hope"), "by hope, which is no fence level"),
    (PLAIN, lambda one: later(one["start"]["acted_at"], -60), "sent before it was started"),
    (TWO_HOSTS, lambda one: one["proofs"].pop(), "there is no proof of h2"),
    (TWO_HOSTS, lambda one: later(one["proofs"][1]["proven_at"], 600), "the proof of h2 does not precede"),
    (TAKEN_OVER, lambda one: one["owners"].pop(), "settled under epoch 2, which no owner had"),
    (TAKEN_OVER, lambda one: one["owners"].pop(0), "started under epoch 1, which no owner had"),
    (PLAIN, lambda one: as_cut(one, "ceph-a"), "its disk cinder/gold is on san-b, from which h1 is not proven"),
    (PLAIN, lambda one: cut_whole(one)["acts"].pop(), "nothing was done to h1 at san-b"),
    (PLAIN, lambda one: cut_whole(one)["acts"][1].update(acts=0), "nothing was done to h1 at san-b"),
    (PLAIN, lambda one: cut_whole(one).update(backends=[]), "a reading that is not CUT"),
    (PLAIN, lambda one: cut_whole(one)["observed"][0].update(reading="open"), "a reading that is not CUT"),
    (PLAIN, lambda one: cut_whole(one)["acts"][0].update(observed=[]), "ceph-a was never read to have cut h1 off"),
    (PLAIN, lambda one: later(cut_whole(one)["acts"][0]["acted_at"], 60), "prove h1 at ceph-a came before the act"),
    (PLAIN, lambda one: (cut_whole(one), one["server"]["disks"].clear()), "where its disks are"),
    (PLAIN, lambda one: (cut_whole(one), one["server"]["disks"].update(local=[])), "no storage that can cut it off"),
    (PLAIN, lambda one: (cut_whole(one), one["plan"].update(proof_cuts="h1/nas-c")), "its start rested on nas-c"),
    (TWO_HOSTS, lambda one: one["proofs"][1].update(kind="cut_storage"), "h2 might have run it, and is only proven"),
    (SELF_FENCED, lambda one: own(one)["observed"][0].update(reading="off"), "a reading that is no reset"),
    (SELF_FENCED, lambda one: own(one)["seen"]["policy"].update(self_fence_proof="False"), "policy did not take it"),
    (SELF_FENCED, lambda one: own(one)["seen"]["sights"].clear(), "nobody saw that h1 had fenced itself"),
    (PLAIN, lambda one: by_word(one, by="ann"), "his name or his reason is not kept"),
]

IDS = [f"{number}-{why}" for number, (_, _, why) in enumerate(TAMPERED)]


@pytest.mark.parametrize("story", [PLAIN, TAKEN_OVER, TWO_HOSTS, SELF_FENCED])
def test_what_the_core_wrote_holds(story: str) -> None:
    mine = chains(story)
    assert mine
    for one_chain in mine.values():
        assert [why for one in one_chain for why in broken(one)] == []
        assert broken_chain(one_chain) == []


@pytest.mark.parametrize(("story", "tampering", "why"), TAMPERED, ids=IDS)
def test_what_breaks_a_rule_is_refused_by_it(story: str, tampering: Tampering, why: str) -> None:
    one = chain(story)[-1]
    tampering(one)
    whys = broken(sealed(one))
    assert any(why in said for said in whys), whys
    assert not any("digest" in said for said in whys)


@pytest.mark.parametrize(
    "tampering", [cut_whole, lambda one: by_word(one, by="ann", why="seen")]
)
def test_the_other_levels_hold_where_nothing_is_missing(tampering: Tampering) -> None:
    one = chain(PLAIN)[-1]
    tampering(one)
    assert broken(sealed(one)) == []


def test_whoever_does_not_seal_it_again_is_found_out_by_its_digest() -> None:
    one = chain(PLAIN)[-1]
    one["result"]["because"] = "it went well"
    assert broken(one) == ["its digest is not that of its content: it was changed after it was written"]


def test_a_chain_that_lacks_one_or_has_another_is_refused() -> None:
    first, second = chain("request_lost_is_sent_again")
    assert broken_chain([first, second]) == []
    assert "certificate 1 of the chain is missing" in broken_chain([second])[0]
    other = sealed({**first, "failures_unwritten": 1})
    assert "does not follow the one before it" in broken_chain([other, second])[0]


def test_what_another_engine_s_clock_stamped_is_not_compared() -> None:
    """The heir's clock may be an hour behind that of the owner which proved the host off; life that only the heir saw
    breaks the proof all the same."""
    one = chain("heir_knows_that_the_target_died")[-1]
    of_former = one["proofs"][0]
    assert (of_former["epoch"], one["start"]["epoch"]) == (1, 2)
    later(of_former["proven_at"], 3600)
    assert broken(sealed(one)) == []
    of_former["life_at_start"] = one["start"]["at"]
    assert "which had not seen the proof" in broken(sealed(one))[0]
