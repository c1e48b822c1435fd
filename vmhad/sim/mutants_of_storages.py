# SPDX-License-Identifier: Apache-2.0
"""The guards of hosts that are cut off from their storages, called down by an operator, or in quarantine, each with the
way to switch it off."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from vmhad.engine import effects, inheriting
from vmhad.engine.executor import Executor
from vmhad.guards.hosts import covers, cut_storage, power_off, self_fenced, word
from vmhad.kernel import views
from vmhad.kernel.case import Case
from vmhad.kernel.proof import POWER_OFF, WORD, Proof
from vmhad.kernel.signal import Access
from vmhad.kernel.step import Answer, Observation, Step, Verb
from vmhad.kernel.topology import Segment
from vmhad.kernel.verdict import Judgement
from vmhad.sim.cuts import Cut, Wrap, always, as_property, fence, lift, with_effect, without_policy
from vmhad.sim.mutant import Mutant

# Found with hosts and hours of mutants.NASTY, and storages.
SEEDS: dict[str, int] = {"cut_when_sent": 2, "any_disk_is_covered": 0, "never_given_back": 0}
STORIES: dict[str, str] = {
    "unknown_is_cut": "cut_storage_silent",
    "partial_is_whole": "cut_storage_one_of_two",
    "cuts_not_read_again": "cut_storage_opened_behind_our_back",
    "cut_of_the_living": "cut_storage_landed_and_the_host_is_back",
    "storage_only_unasked": "cut_storage_is_no_proof_by_policy",
    "given_back_unclean": "cut_storage_hung_host_thaws",
    "boots_uncompared": "agent_cut_off_and_back_with_the_same_boot",
    "late_cuts_unread": "cut_storage_late_after_it_was_given_back",
    "hits_forgotten": "cut_storage_proven_before_its_bmc_hit_another",
    "words_believed": "word_that_its_power_belies",
    "word_gives_back": "word_and_then_it_is_heard",
    "old_boot_counts": "cut_storage_boot_that_nobody_told_of",
    "same_boot_belies_nothing": "cut_storage_that_a_lying_bmc_would_give_back",
    "held_elsewhere_is_held_here": "cut_storage_of_a_client_that_was_forgotten",
    "watchdogs_trusted_unasked": "self_fenced_without_the_policy",
    "cuts_of_another_clock": "cut_storage_taken_over_by_a_clock_behind",
    "words_not_read_again": "word_and_then_its_power_is_on_for_long",
    "closed_while_cut": "cut_storage_and_the_order_to_close",
    "dumps_unwaited": "agent_dump_is_waited_for",
    "needed_off_unasked": "host_stays_off_while_a_vm_rests_on_that",
    "no_quarantine": "quarantine_after_three_fences",
    "promise_not_waited_for": "self_fenced_when_the_promise_is_due",
}


def _m(name: str, guard: str, *cuts: Cut, needs: tuple[str, ...] = ()) -> Mutant:
    return Mutant(name, guard, cuts, needs, SEEDS.get(name), storages=True, story=STORIES.get(name, ""))


def cut_when_sent(was: Any) -> Any:
    def call(step: Step) -> Observation | None:
        return Observation(step.acted_at, Answer.SO, Access.CUT.value, "") if step.acts else None

    return call


def unknown_is_cut(was: Any) -> Any:
    def call(step: Step, level: tuple[Access, str]) -> Any:
        access, text = level
        return was(step, (Access.CUT if access is Access.UNKNOWN else access, text))

    return call


def unread(arg: str) -> Wrap:
    """What this argument of a step names is not read before its act."""

    def wrap(was: Any) -> Any:
        def call(self: Executor, step: Step) -> str:
            return str(was(self, replace(step, args={key: one for key, one in step.args.items() if key != arg})))

        return call

    return wrap


def resting_as_any(was: Any) -> Any:
    """As a host that was not cut off rests."""
    return lift._rest


def word_as_power(was: Any) -> Any:
    def call(case: Case, cut: Step, now: float) -> Any:
        proof = case.incident.proof
        if proof is not None and proof.kind == WORD:
            case = replace(case, incident=replace(case.incident, proof=replace(proof, kind=POWER_OFF)))
        return was(case, cut, now)

    return call


def boot_untold(was: Any) -> Any:
    """Nobody is asked whether the host tells of the boot that it had."""
    return lambda case, cut, now: was(replace(case, evidence=case.evidence._replace(agent_from=inf)), cut, now)


def of_its_own_storages(was: Any) -> Any:
    return lambda self, disk, host: was(replace(self, backends=self.backends_of(host)), disk, host)


def any_boot(was: Any) -> Any:
    """Whatever its agent tells is another boot."""
    return lambda case, cut, now: bool(cut_storage.boot_of(case)) or was(case, cut, now)


def of_the_living(was: Any) -> Any:
    return lambda case, now: was(replace(case, verdict=replace(case.verdict, judgement=Judgement.FAILED)), now)


OF_STORAGES: tuple[Mutant, ...] = (
    _m("cut_when_sent", "a cut is observed after the act", Cut(cut_storage, "_cut_at", cut_when_sent)),
    _m(
        "unknown_is_cut",
        "UNKNOWN is never CUT",
        Cut(effects.EFFECTS, Verb.CUT_STORAGE, with_effect(probe=unknown_is_cut(effects._probe_access))),
    ),
    _m("any_disk_is_covered", "a cut holds for the VMs that it covers", Cut(covers, "uncovered", always(""))),
    _m("partial_is_whole", "a cut holds for no more than its storages", Cut(Proof, "is_whole", as_property(True))),
    _m(
        "cuts_not_read_again",
        "a cut is read just before an act",
        Cut(Executor, "_proof_refusal", unread("proof_cuts")),
    ),
    _m(
        "cut_of_the_living",
        "a cut proves nothing of a host that lives again",
        Cut(cut_storage, "proof", of_the_living),
        Cut(Case, "life_at", as_property(0.0)),
    ),
    _m(
        "storage_only_unasked",
        "storage_only_proof = no",
        Cut(cut_storage, "proof", without_policy(storage_only_proof=True)),
    ),
    _m("given_back_unclean", "old guests are gone before it is given back", Cut(cut_storage, "is_clean", always(True))),
    _m("boots_uncompared", "another boot has no old guests", Cut(cut_storage, "is_clean", any_boot)),
    _m("never_given_back", "what was cut is given back", Cut(cut_storage, "outstanding", always({}))),
    _m("late_cuts_unread", "what is given back is read once more", Cut(cut_storage, "unread_since", always([]))),
    _m("hits_forgotten", "a BMC that hit another host proves nothing", Cut(power_off, "hit", always(""))),
    _m("word_gives_back", "a word alone gives nothing back", Cut(cut_storage, "is_clean", word_as_power)),
    _m("old_boot_counts", "a boot that was told of may be over", Cut(cut_storage, "BOOTS_S", lambda was: inf)),
    _m("same_boot_belies_nothing", "who tells of the same boot is unclean", Cut(cut_storage, "is_clean", boot_untold)),
    _m(
        "held_elsewhere_is_held_here",
        "what another storage holds is on no other",
        Cut(Segment, "backend_of", of_its_own_storages),
    ),
    _m(
        "watchdogs_trusted_unasked",
        "self_fence_proof = no",
        Cut(self_fenced, "proof", without_policy(self_fence_proof=True)),
    ),
    _m("promise_not_waited_for", "a promise is due before it counts", Cut(views, "_is_over", always(True))),
    _m(
        "cuts_of_another_clock",
        "an heir looks at a cut itself",
        Cut(inheriting, "_looked_at_anew", lambda was: lambda cut, now: cut),
    ),
    _m(
        "words_not_read_again",
        "a word is held against its power just before an act",
        Cut(Executor, "_proof_refusal", unread("proof_words")),
    ),
    _m("closed_while_cut", "no incident is over while its host is cut off", Cut(lift, "_rest_of_cut", resting_as_any)),
    _m("dumps_unwaited", "a dump is waited for where the policy says so", Cut(fence, "_dump_until", always(0.0))),
    _m("needed_off_unasked", "a host that others need off stays off", Cut(lift, "_needed_off", always(""))),
    _m(
        "no_quarantine",
        "a host that failed again and again waits before it receives VMs",
        Cut(lift, "_quarantine", always("")),
    ),
    _m("words_believed", "an operator's word is held against what is seen", Cut(word, "belied", always(""))),
)
