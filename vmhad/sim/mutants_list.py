# SPDX-License-Identifier: Apache-2.0
"""The guards that keep a VM from running twice and the brake from failing, each with the way to switch it off."""

from __future__ import annotations

from math import inf

from vmhad.engine import certifying, effects, inheriting, loop, settling, writing
from vmhad.engine.executor import Executor
from vmhad.engine.listening import Listening
from vmhad.engine.ownership import Ownership
from vmhad.engine.service_cases import ServiceCases
from vmhad.engine.vm_cases import VmCases
from vmhad.guards.hosts import columns, drain, judge, move, place, power_off, settle, treat
from vmhad.guards.hosts.columns import SEEN, Peers, Storage
from vmhad.guards.instances import judge as judge_of_vms
from vmhad.guards.services import judge as judge_of_services
from vmhad.journal.journal import Journal
from vmhad.kernel import brake, certificate, evidence, proof
from vmhad.kernel.case import DrainCase
from vmhad.kernel.evidence import Evidence
from vmhad.kernel.incident import State
from vmhad.kernel.policy import SilentMeans
from vmhad.kernel.step import Certified, Verb
from vmhad.sim.cuts import (
    Cut,
    acts_whatever_is_so,
    always,
    any_off,
    any_receiver,
    any_target,
    as_property,
    by_accident,
    by_nobody,
    clean,
    deaf_to_life,
    down_first,
    elsewhere,
    fence,
    fence_of_services,
    fence_of_vms,
    groupless,
    in_scene,
    judged_off,
    lift,
    may_always_take,
    no_budget,
    no_limit_in_flight,
    no_vm_claims,
    proof_at_once,
    proof_unsent,
    recover,
    roomy,
    so_when_recorded,
    started_as_active,
    taken_for_unseen,
    trusting,
    uncompared,
    unknown_is_off,
    unpaused,
    unsent,
    unwritten,
    with_effect,
    with_wide_groups,
    without_policy,
    without_task,
)
from vmhad.sim.mutant import Mutant
from vmhad.sim.mutants_of_clocks import OF_CLOCKS
from vmhad.sim.mutants_of_rules import OF_RULES
from vmhad.sim.mutants_of_storages import OF_STORAGES


def _m(name: str, guard: str, *cuts: Cut) -> Mutant:
    kinds = (name in LONELY, name in AGENTS, name in DRAINS)
    return Mutant(name, guard, cuts, NEEDS.get(name, ()), SEEDS.get(name), *kinds)


NEEDS: dict[str, tuple[str, ...]] = {
    "any_bmc_is_trusted": (" lies\n",),
    "one_plane_is_all": ("storage=none planes=management",),
    "silent_bus_is_death": ("bus down",),
    "silent_alone_is_death": ("nova-compute hangs", "silent_means=fence"),
    "any_off_is_believed": (" lies\n",),
    "blindness_unseen": ("nova hides", "heartbeat_quiet_s=40s", "silent_means=fence"),
    "bystanders_unheard": (" other ",),
    "bystanders_unread": (" other ", " slow\n"),
    "copies_unasked": ("evacuate_deadline_s=200s",),
    "failures_forgotten": (" in evacuate", "engine e2"),
    "future_times": ("kill engine", "engine late", "offset=-3000s"),
    "groups_at_once": ("anti-affinity",),
    "hosts_own_no_service": ("agents storage=ceph", " storage off", "nova-compute dies"),
    "no_canary": ("silent_means=fence",),
    "no_commit_count": ("store late",),
    "no_epoch": (" in commit", "blips 0.7s", "engine e2"),
    "no_lease_margin": (" before ",),
    "pauses_unheard": ("order pause",),
    "proof_not_read_again": ("dead # busy with itself",),
    "proof_of_another_clock": ("kill engine", "engine late", "restore"),
    "repeated_elsewhere": (" in evacuate",),
    "retargeted": ("evacuate_deadline_s=200s",),
    "sent_again_at_once": (" in evacuate",),
    "storage_unread": ("on_io_error=resume",),
    "two_incidents": (" refuses",),
}

AGENTS = (
    "silent_at_once",
    "records_unread",
    "peers_unheard",
    "one_plane_is_all",
    "silent_bus_is_death",
    "silent_alone_is_death",
    "wishes_unheard",
    "services_unbounded",
    "hosts_own_no_service",
)
BUDGETS = ((drain, "_waits"), (drain, "_held_up"), (move, "starts"))
DRAINS = ("moved_in_doubt", "drains_unbounded")
LONELY = ("users_unheard", "tasks_unheard", "storage_unread", "restarts_unbounded", "hosts_own_nothing")


# Found with hosts and hours of mutants.NASTY.
SEEDS: dict[str, int] = {
    "proof_never_dies": 33,
    "proof_without_reading": 0,
    "proof_by_one_reading": 0,
    "proof_without_act": 0,
    "unknown_is_proof": 86,
    "unknown_is_dead": 0,
    "proof_not_read_again": 21,
    "proof_of_another_clock": 705,
    "bystanders_unheard": 358,
    "bystanders_unread": 358,
    "down_before_proof": 0,
    "one_reading_is_death": 2,
    "life_is_no_veto": 33,
    "any_off_is_believed": 32,
    "any_bmc_is_trusted": 32,
    "hold_is_fence": 33,
    "no_brake": 0,
    "pauses_unheard": 131,
    "blindness_unseen": 184,
    "storms_unseen": 1,
    "any_storm_is_one_domain": 192,
    "dead_switch_unseen": 44,
    "no_back_grace": 18,
    "no_canary": 167,
    "recoveries_unbounded": 8,
    "fences_unbounded": 1,
    "budget_unwritten": 1,
    "no_epoch": 1195,
    "no_commit_count": 210,
    "no_lease_margin": 385,
    "takes_over_at_once": 2,
    "acts_unwritten": 0,
    "acts_in_any_state": 207,
    "sent_again_at_once": 61,
    "acts_without_probe": 8,
    "repeated_elsewhere": 131,
    "copies_unasked": 300,
    "retargeted": 869,
    "two_incidents": 5468,
    "done_when_taken": 0,
    "groups_at_once": 80,
    "max_per_host_unasked": 10,
    "affinity_parted": 70,
    "zones_unasked": 1,
    "room_unasked": 0,
    "any_receiver": 300,
    "evacuations_unbounded": 0,
    "targets_unbounded": 1,
    "opt_out_unheard": 26,
    "disks_lost": 18,
    "stopped_are_started": 2,
    "lifted_unheard": 6,
    "failures_forgotten": 1792,
    "future_times": 2070,
    "silent_at_once": 0,
    "records_unread": 9,
    "peers_unheard": 6,
    "one_plane_is_all": 166,
    "silent_bus_is_death": 740,
    "silent_alone_is_death": 450017,
    "users_unheard": 10,
    "storage_unread": 3,
    "tasks_unheard": 1,
    "restarts_unbounded": 2,
    "hosts_own_nothing": 10,
    "wishes_unheard": 4,
    "services_unbounded": 0,
    "hosts_own_no_service": 44,
    "drains_unbounded": 0,
    "moved_in_doubt": 3,
}

MUTANTS: tuple[Mutant, ...] = (
    # The proof.
    _m(
        "proof_never_dies",
        "a proof dies at the first sign of life",
        Cut(proof, "holds", lambda was: lambda one, *_: one is not None),
    ),
    _m("proof_without_reading", "two readings OFF after the act", Cut(power_off, "_proof", proof_at_once)),
    _m(
        "proof_by_one_reading",
        "the two readings are apart",
        Cut(power_off, "_proof", without_policy(readings_apart_s=0.0)),
    ),
    _m(
        "proof_without_act",
        "power_off is sent even where it is off",
        Cut(power_off, "_proof", proof_unsent),
        Cut(Executor, "_must_act", unsent),
    ),
    _m(
        "unknown_is_proof",
        "UNKNOWN is never OFF, in a proof",
        Cut(effects.EFFECTS, Verb.POWER_OFF, with_effect(probe=unknown_is_off(effects._probe_power))),
    ),
    _m("unknown_is_dead", "UNKNOWN is never OFF, in a verdict", Cut(columns, "_power", judged_off)),
    _m("proof_not_read_again", "the proof is read just before an act", Cut(Executor, "_proof_refusal", always(""))),
    _m(
        "proof_of_another_clock",
        "an inherited proof dies at any life",
        Cut(inheriting, "inherited", lambda was: lambda one: one),
    ),
    _m(
        "bystanders_unheard",
        "a host that goes with our act voids the proof",
        Cut(power_off, "_fell_with_it", always("")),
        Cut(power_off, "_all_read_since", always(True)),
    ),
    Mutant(
        "bystanders_excused",
        "only a host that failed by itself may go off beside another",
        (Cut(power_off, "_failed_by_itself", always(True)),),
        story="slow_chassis_of_another_host",
    ),
    _m(
        "bystanders_unread",
        "all others are read before the proof is believed",
        Cut(power_off, "_all_read_since", always(True)),
    ),
    _m(
        "down_before_proof",
        "Nova is told after the proof",
        Cut(fence, "fence", down_first),
        Cut(loop.PURSUED, State.FENCING, lambda was: (*was, Verb.FORCE_DOWN)),
    ),
    # The verdict.
    _m("one_reading_is_death", "two bad readings, apart", Cut(Evidence, "is_repeated", always(True))),
    _m("life_is_no_veto", "a sign of life vetoes an OFF", Cut(evidence, "weigh", deaf_to_life)),
    _m("any_off_is_believed", "an OFF is borne out", Cut(columns, "is_borne_out", any_off)),
    _m("any_bmc_is_trusted", "a BMC never read ON, or belied, is not trusted", Cut(columns, "is_borne_out", trusting)),
    _m("hold_is_fence", "silent_means = hold", Cut(judge, "judge", without_policy(silent_means=SilentMeans.FENCE))),
    # What agents say.
    _m("silent_at_once", "agent_failed_s", Cut(columns, "_agent", without_policy(agent_failed_s=0.0))),
    _m("records_unread", "a record that moves is life", Cut(columns, "_storage", always(Storage.STILL))),
    _m("peers_unheard", "what a peer sees is life", Cut(columns, "_peers", taken_for_unseen(*SEEN))),
    _m("one_plane_is_all", "one plane is one eye", Cut(columns, "_peers", taken_for_unseen(Peers.ALONE_UNSEEN))),
    _m("silent_bus_is_death", "silence counts while others are heard", Cut(Listening, "_is_heard", always(True))),
    _m(
        "silent_alone_is_death",
        "what was silent alone is not called dead when nothing else is heard either",
        Cut(columns, "_outlived_its_compute", always(False)),
    ),
    # The brake.
    _m("no_brake", "the brake", Cut(brake, "brake", always(""))),
    _m("pauses_unheard", "an operator's pause", Cut(brake, "brake", unpaused)),
    _m("blindness_unseen", "we may be blind", Cut(brake, "_blind", always(""))),
    _m("storms_unseen", "failed_share_max", Cut(brake, "_storm", without_policy(failed_share_max=9.0))),
    _m(
        "any_storm_is_one_domain",
        "only one domain may exceed failed_share_max",
        Cut(brake, "_are_one_domain", always(True)),
    ),
    _m("dead_switch_unseen", "silence of a domain is a dead switch", Cut(brake, "_silent_domains", always(""))),
    _m("no_back_grace", "when one is heard again the others wait", Cut(brake, "_storm", in_scene(back=frozenset()))),
    _m("no_canary", "a canary is fenced first", Cut(brake, "_limits", without_policy(canary_from_hosts=10_000))),
    _m("recoveries_unbounded", "recoveries_max", Cut(brake, "_limits", without_policy(recoveries_max=10_000))),
    _m("fences_unbounded", "fences_in_flight_max", Cut(brake, "_limits", without_policy(fences_in_flight_max=10_000))),
    _m("budget_unwritten", "the cloud's fences stand in the journal", Cut(Journal, "commit", no_budget)),
    # Who may act.
    _m("no_epoch", "the epoch is compared", Cut(Journal, "__init__", uncompared("/epoch"))),
    _m("no_commit_count", "the commit count is compared", Cut(Journal, "__init__", uncompared("/commits"))),
    _m("no_lease_margin", "the lease outlasts the call", Cut(Ownership, "remaining_s", always(inf))),
    _m("takes_over_at_once", "a take-over waits for the lease", Cut(Ownership, "_may_take", may_always_take)),
    _m("acts_unwritten", "written before acted", Cut(Journal, "commit", unwritten)),
    _m(
        "acts_in_any_state",
        "only what belongs to the state is acted on",
        *(Cut(loop.PURSUED, state, lambda was: tuple(Verb)) for state in loop.PURSUED),
    ),
    # What is sent twice.
    _m(
        "sent_again_at_once",
        "another engine's request may be on its way",
        Cut(inheriting, "perhaps_sent", lambda was: lambda step, now: step),
    ),
    _m("acts_without_probe", "a probe before every act", Cut(Executor, "_must_act", acts_whatever_is_so)),
    _m("repeated_elsewhere", "a repeat names the same target", Cut(settle, "_again", elsewhere)),
    _m("copies_unasked", "hosts that may run it are proven off", Cut(treat, "may_run_on", always(()))),
    _m("failures_forgotten", "where it failed it may run", Cut(treat, "may_run_on", clean)),
    _m("retargeted", "what may run on one host goes nowhere else", Cut(place, "place", any_target)),
    _m(
        "two_incidents",
        "one VM, one incident",
        Cut(writing, "_claims", no_vm_claims),
        Cut(treat, "taken_by", always("")),
    ),
    _m(
        "done_when_taken",
        "done is what has left the host",
        Cut(effects.EFFECTS, Verb.EVACUATE, with_effect(probe=so_when_recorded(effects._probe_evacuated))),
    ),
    # Where it goes.
    _m("groups_at_once", "an anti-affinity group moves one by one", Cut(place, "waits_for_group", always(""))),
    _m("max_per_host_unasked", "max_server_per_host", Cut(place, "place", with_wide_groups)),
    _m("affinity_parted", "an affinity group goes as one", Cut(place, "place", groupless)),
    _m("zones_unasked", "a pinned VM stays in its zone", Cut(place, "_zone_fits", always(True))),
    _m("room_unasked", "there is room", Cut(place, "_has_room", roomy)),
    _m("any_receiver", "only healthy hosts receive", Cut(place, "_receivers", any_receiver)),
    _m("evacuations_unbounded", "evacuations_max", Cut(recover, "_starts", no_limit_in_flight)),
    _m("targets_unbounded", "evacuations_per_target_max", Cut(place, "_below_cap", always(True))),
    _m("opt_out_unheard", "an owner may opt out", Cut(treat, "is_protected", always(True))),
    _m("disks_lost", "a local disk is not rebuilt", Cut(treat, "refusal", always(""))),
    _m("stopped_are_started", "a VM gets its former power state", Cut(treat, "_plan", started_as_active)),
    # VMs that fail alone.
    _m(
        "users_unheard",
        "what its user stopped is not restarted",
        Cut(judge_of_vms, "nova_of", by_nobody),
        Cut(effects.EFFECTS, Verb.RESTART, with_effect(probe=by_nobody(effects._probe_restarted))),
    ),
    _m(
        "tasks_unheard",
        "what its user works on is not restarted",
        Cut(judge_of_vms, "nova_of", without_task),
        Cut(effects.EFFECTS, Verb.RESTART, with_effect(probe=without_task(effects._probe_restarted))),
    ),
    _m("storage_unread", "a guest is resumed when its storage is back", Cut(fence_of_vms, "_storage_hold", always(""))),
    _m("restarts_unbounded", "instance_starts_max", Cut(fence_of_vms, "_spent", always(""))),
    _m("hosts_own_nothing", "a host's incident has its VMs", Cut(VmCases, "_owner", always(""))),
    # Services of living hosts.
    _m(
        "wishes_unheard",
        "a service that somebody stopped is not restarted",
        Cut(judge_of_services, "said_of", by_accident),
        Cut(effects.EFFECTS, Verb.RESTART_SERVICE, with_effect(probe=by_accident(effects._probe_unit))),
    ),
    _m("services_unbounded", "service_starts_max", Cut(fence_of_services, "_spent", always(""))),
    _m("hosts_own_no_service", "a host's incident has its services", Cut(ServiceCases, "_owner", always(""))),
    # Hosts that are emptied alive.
    _m(
        "moved_in_doubt",
        "nothing is moved from a host that may have failed",
        Cut(DrainCase, "is_lost", as_property(False)),
        Cut(DrainCase, "ails", as_property(True)),
    ),
    _m(
        "drains_unbounded",
        "drains_max and live_migrations_max",
        *(Cut(owner, name, without_policy(drains_max=10_000, live_migrations_max=10_000)) for owner, name in BUDGETS),
    ),
    # The end.
    _m("lifted_unheard", "a host is taken back when it is heard", Cut(lift, "_is_back", always(True))),
    _m(
        "future_times",
        "times ahead of our clock count as now",
        Cut(inheriting, "not_from_the_future", lambda was: lambda step, now: step),
    ),
    # Certificates.
    _m(
        "uncertified",
        "what was started elsewhere has a certificate",
        Cut(certifying.Certifying, "_settled", lambda was: lambda self, book, at_hand, step, now, sealed: step),
    ),
    _m("grounds_unkept", "a start keeps what it rests on", Cut(certifying.Certifying, "_grounds", always(()))),
    _m("owners_unkept", "who commits is kept", Cut(certifying, "owned", lambda was: lambda owners, *rest: owners)),
    _m("proofs_unkept", "a proof is kept as it was", Cut(certifying, "exhibited", lambda was: lambda *args: args[-1])),
    _m("certificates_uncounted", "none is written over another", Cut(certificate, "counted", always(Certified()))),
    # Policies of VMs.
    Mutant(
        "policies_unread",
        "what VM policies say is put on servers",
        (Cut(settling, "settled", lambda was: lambda server, ranked, around: server),),
        story="vm_policies_say_who_is_recovered",
    ),
    Mutant(
        "left_asked_again",
        "a lost request is not repeated for what is to be left alone",
        (Cut(settle, "_left", always(None)),),
        story="vm_policy_that_comes_after_a_lost_request",
    ),
    *OF_STORAGES,
    *OF_CLOCKS,
    *OF_RULES,
)
