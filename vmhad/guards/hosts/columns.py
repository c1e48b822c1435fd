# SPDX-License-Identifier: Apache-2.0
"""What the evidence says of a host, one word an eye: the columns of the table of verdicts.

Rules kept here: UNKNOWN is never OFF or DOWN; a bad reading counts when it was read twice, apart; the silence of an
agent counts only as long as others are heard; what nobody can see is not called unseen.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf

from vmhad.kernel.beat import PANIC_KNOWN_S
from vmhad.kernel.evidence import BELIES_AFTER_S, Evidence
from vmhad.kernel.policy import CutOff, Policy
from vmhad.kernel.signal import Channel, Reading

# Looked up once: a member of an enumeration costs ten times what another name does.
NOVA, POWER, AGENT = Channel.NOVA, Channel.POWER, Channel.AGENT
ON, OFF, UP, DOWN, UNKNOWN = Reading.ON, Reading.OFF, Reading.UP, Reading.DOWN, Reading.UNKNOWN
PLANES = (Channel.MANAGEMENT, Channel.STORAGE_PLANE, Channel.TENANT)
# A heartbeat counts against the silence of an agent when it was read this much later than the agent's last beat (Nova
# tells of it a beat and a poll late), for as long as the next one may take.
HEARD_AFTER_S = 4.0
NEXT_HEARTBEAT_S = 12.0
# A record moves and a peer looks once a second: what lives was seen to within this time.
WORD_S = 2.5
# A beat comes every second; an agent that was heard so shortly before would have been heard again.
BEAT_S, HEARD_UNTIL_S = 1.3, 3.0


class Power(StrEnum):
    ON = "on"
    OFF_ONCE = "off, not borne out"
    OFF = "off"
    UNKNOWN = "unknown"


class Nova(StrEnum):
    """HEARD: up, and a heartbeat came after the agent's last beat. ALONE: down, and nova-compute had been silent by
    itself: its agent, whose silence means nothing now, was heard when the heartbeat was due."""

    UP = "up"
    HEARD = "heard"
    DOWN_ONCE = "down, read once"
    DOWN = "down"
    ALONE = "down, and was silent alone"
    UNKNOWN = "unknown"


class Agent(StrEnum):
    """NONE: it has none. EARLY: others are heard, this one not yet, and not for long. LATE, SILENT: not heard for
    agent_suspect_s, for agent_failed_s. AWAY: silent like its whole site, of which nobody elsewhere sees anything.
    UNKNOWN: its silence means nothing (it left, its clock is wrong, next to no agent is heard)."""

    NONE = "none"
    EARLY = "early"
    UP = "up"
    LATE = "late"
    SILENT = "silent"
    AWAY = "away"
    UNKNOWN = "unknown"


class Storage(StrEnum):
    """Its record on shared storages, as its peers read it."""

    NONE = "none"
    MOVES = "moves"
    STILL = "still"
    UNKNOWN = "unknown"


class Peers(StrEnum):
    """What its peers see of its kernel. NONE: nobody can tell. ELSEWHERE: seen on another plane, and nobody can tell of
    management. UNSEEN: on no plane. ALONE_UNSEEN: on the only plane that is watched, where dead and cut off look the
    same. UNSURE: on none that anybody can tell of."""

    NONE = "none"
    SEEN = "seen"
    ELSEWHERE = "elsewhere"
    NO_MANAGEMENT = "not on management"
    NO_STORAGE = "not on storage"
    NO_TENANT = "not on tenant"
    UNSEEN = "unseen"
    ALONE_UNSEEN = "unseen on the only plane"
    UNSURE = "unsure"


NOWHERE = (Peers.UNSEEN, Peers.ALONE_UNSEEN)
SEEN = (Peers.SEEN, Peers.ELSEWHERE, Peers.NO_MANAGEMENT, Peers.NO_STORAGE, Peers.NO_TENANT)


class Own(StrEnum):
    """Its agent's word while that is heard; the worst of it. COMPLAINS: nothing but its hardware is wrong."""

    FINE = "fine"
    NO_DISKS = "no disks"
    NO_LIBVIRTD = "no libvirtd"
    NO_COMPUTE = "no nova-compute"
    COMPLAINS = "complains"


class Lasts(StrEnum):
    """Whether what cut it off lasts longer than isolated_after_s, and what the policy says then."""

    SHORT = "short"
    LEAVE = "leave"
    FENCE = "fence"


class Dump(StrEnum):
    """SAID: its crash kernel says that it writes a dump, or said so until lately, and nothing of it lives since."""

    NONE = "none"
    SAID = "said"


Columns = tuple[Power, Nova, Agent, Storage, Peers, Own, Lasts, Dump]


def columns(evidence: Evidence, policy: Policy, now: float) -> Columns:
    """All of one host's, in the order of the table."""
    power = _power(evidence, policy, now)
    if not evidence.agent_from:
        return power, _nova(evidence, policy, now), *AGENTLESS
    agent = _agent(evidence, policy, now)
    is_up = agent is Agent.UP
    nova = _nova(evidence, policy, now)
    if nova is Nova.UP and agent in (Agent.LATE, Agent.SILENT) and _is_heard_since(evidence, now):
        nova = Nova.HEARD
    if nova is Nova.DOWN and agent is Agent.UNKNOWN and _outlived_its_compute(evidence):
        nova = Nova.ALONE
    storage, own = _storage(evidence), _own(evidence) if is_up else Own.FINE
    peers = _peers(evidence)
    if peers in NOWHERE and nova not in (Nova.DOWN, Nova.ALONE) and not _fell_silent_together(evidence):
        peers = Peers.UNSURE
    dump = Dump.SAID if has_panicked(evidence, policy, now) else Dump.NONE
    return power, nova, agent, storage, peers, own, _lasts(evidence, policy, now, is_up), dump


AGENTLESS = (Agent.NONE, Storage.NONE, Peers.NONE, Own.FINE, Lasts.SHORT, Dump.NONE)


def _power(evidence: Evidence, policy: Policy, now: float) -> Power:
    reading = evidence.reading(POWER, now, policy.channel_stale_s)
    if reading is OFF:
        return Power.OFF if _off_counts(evidence, policy, now) else Power.OFF_ONCE
    return Power.ON if reading is ON else Power.UNKNOWN


def _off_counts(evidence: Evidence, policy: Policy, now: float) -> bool:
    """Read twice, apart, with no sign of life since; a BMC that we never read ON, or that lied before, must be borne
    out by Nova's silence or by a long quiet."""
    seen = evidence.seen[POWER]
    if not evidence.is_repeated(POWER, policy.readings_apart_s) or seen.first_at <= evidence.life_at:
        return False
    return nobody_saw_it_since(evidence, seen.first_at, now) and is_borne_out(evidence, policy, now)


def nobody_saw_it_since(evidence: Evidence, at: float, now: float) -> bool:
    """Its agent, if that was heard until then, or its peers, if they saw it live, have had the time to say that it
    still does: one beat, or one look and a beat."""
    heard = evidence.seen.get(AGENT)
    if heard is not None and heard.reading is UP and heard.at >= at - HEARD_UNTIL_S:
        return now >= at + BEAT_S
    record = evidence.seen.get(Channel.STORAGE)
    moved = record is not None and record.reading is UP and record.at >= at - HEARD_UNTIL_S
    return not (moved or _peers(evidence) in SEEN) or evidence.peers_at >= at + WORD_S


def is_borne_out(evidence: Evidence, policy: Policy, now: float) -> bool:
    """Whether the OFF of its BMC may be believed as soon as it was read twice."""
    if evidence.bmc_trusted and evidence.quiet_s(now) >= policy.already_off_quiet_s:
        return True
    if evidence.reading(NOVA, now, policy.channel_stale_s) is DOWN:
        return True
    if evidence.agent_from and _agent(evidence, policy, now) is Agent.SILENT and _peers(evidence) in NOWHERE:
        return True
    seen = evidence.seen.get(POWER)
    if seen is None or seen.reading is not OFF:
        return False
    return seen.at - max(seen.first_at, evidence.heard_at) >= policy.untrusted_off_quiet_s


def _nova(evidence: Evidence, policy: Policy, now: float) -> Nova:
    reading = evidence.reading(NOVA, now, policy.channel_stale_s)
    if reading is DOWN:
        return Nova.DOWN if evidence.is_repeated(NOVA, policy.readings_apart_s) else Nova.DOWN_ONCE
    return Nova.UP if reading is UP else Nova.UNKNOWN


def _is_heard_since(evidence: Evidence, now: float) -> bool:
    seen = evidence.seen.get(AGENT)
    last_at = max(seen.at if seen else 0.0, evidence.agent_from)
    return evidence.heard_at >= last_at + HEARD_AFTER_S and now - evidence.heard_at < NEXT_HEARTBEAT_S


def _outlived_its_compute(evidence: Evidence) -> bool:
    """Its agent was heard for longer after its last heartbeat than the next one may take."""
    seen = evidence.seen.get(AGENT)
    return seen is not None and seen.at > evidence.heard_at + NEXT_HEARTBEAT_S


def _agent(evidence: Evidence, policy: Policy, now: float) -> Agent:
    if evidence.away:
        return Agent.AWAY
    seen = evidence.seen.get(AGENT)
    if seen is not None and seen.reading is UNKNOWN:
        return Agent.UNKNOWN
    if seen is not None and now - seen.at < policy.agent_suspect_s:
        return Agent.UP
    silent_s = evidence.agent_silent_s(now)
    if silent_s >= policy.agent_failed_s:
        return Agent.SILENT
    if seen is not None and silent_s >= policy.agent_suspect_s:
        return Agent.LATE
    return Agent.EARLY if evidence.agent_from < inf else Agent.UNKNOWN


def _storage(evidence: Evidence) -> Storage:
    seen = evidence.seen.get(Channel.STORAGE)
    if seen is None:
        return Storage.NONE
    if seen.reading is UNKNOWN:
        return Storage.UNKNOWN
    return Storage.MOVES if seen.reading is UP else Storage.STILL


def _fell_silent_together(evidence: Evidence) -> bool:
    """Peers that saw nothing of it while its agent was heard cannot tell its death from that."""
    heard = evidence.seen.get(AGENT)
    if heard is None:
        return _storage(evidence) is Storage.STILL
    return max(evidence.seen[one].first_at for one in PLANES if one in evidence.seen) >= heard.at - HEARD_UNTIL_S


def _peers(evidence: Evidence) -> Peers:
    management, storage, tenant = (_plane(evidence, channel) for channel in PLANES)
    known = [one for one in (management, storage, tenant) if one is not None]
    if UP not in known:
        if DOWN not in known:
            return Peers.NONE
        if UNKNOWN in known:
            return Peers.UNSURE
        return Peers.ALONE_UNSEEN if len(known) == 1 else Peers.UNSEEN
    if management is DOWN:
        return Peers.NO_MANAGEMENT
    if management is not UP:
        return Peers.ELSEWHERE
    if storage is DOWN:
        return Peers.NO_STORAGE
    return Peers.NO_TENANT if tenant is DOWN else Peers.SEEN


def _plane(evidence: Evidence, channel: Channel) -> Reading | None:
    """None where nobody ever watched."""
    seen = evidence.seen.get(channel)
    return seen.reading if seen is not None else None


OF_OWN = (
    (Channel.DISKS, Own.NO_DISKS),
    (Channel.LIBVIRTD, Own.NO_LIBVIRTD),
    (Channel.COMPUTE, Own.NO_COMPUTE),
    (Channel.HARDWARE, Own.COMPLAINS),
)


def _own(evidence: Evidence) -> Own:
    for channel, word in OF_OWN:
        seen = evidence.seen.get(channel)
        if seen is not None and seen.reading is DOWN:
            return word
    return Own.FINE


def _lasts(evidence: Evidence, policy: Policy, now: float, is_up: bool) -> Lasts:
    if now < cut_off_at(evidence, is_up) + policy.isolated_after_s:
        return Lasts.SHORT
    means = policy.storage_lost if is_up else policy.isolated
    return Lasts.FENCE if means is CutOff.FENCE else Lasts.LEAVE


def has_panicked(evidence: Evidence, policy: Policy, now: float) -> bool:
    """A message of a crash kernel has no signature. So it counts only of a host whose agent is silent, and whose beat,
    record and heartbeat all are older than the first of them: who lives writes no dump, and what was said of it while
    it lived is forged."""
    said = evidence.seen.get(Channel.DUMP)
    if said is None or said.reading is not UP or now - said.at >= PANIC_KNOWN_S:
        return False
    heard, record = evidence.seen.get(AGENT), evidence.seen.get(Channel.STORAGE)
    lived_at = max(heard.at if heard else 0.0, record.at if record is not None and record.reading is UP else 0.0)
    # The times of beats are not exact. A heartbeat is read late: it came before what it is compared with.
    is_later = said.first_at > lived_at + BELIES_AFTER_S and said.first_at > evidence.heard_at
    return is_later and _agent(evidence, policy, now) in (Agent.LATE, Agent.SILENT)


def cut_off_at(evidence: Evidence, is_up: bool) -> float:
    """When its record stopped while its agent is heard, else when that was heard last; inf where neither counts."""
    if is_up:
        seen = evidence.seen.get(Channel.STORAGE)
        return seen.first_at if seen is not None and seen.reading is DOWN else inf
    heard = evidence.seen.get(AGENT)
    return max(heard.at if heard else 0.0, evidence.agent_from)


def changes_at(evidence: Evidence, policy: Policy) -> list[float]:
    """When a word may become another by time alone, as far as its agent and its peers go."""
    heard = evidence.seen.get(AGENT)
    silent_from = max(heard.at if heard else 0.0, evidence.agent_from)
    moments = [evidence.peers_until, silent_from + policy.isolated_after_s]
    moments += [silent_from + policy.agent_suspect_s, silent_from + policy.agent_failed_s]
    moments.append(heard.at + policy.agent_suspect_s if heard else inf)
    moments.append(evidence.heard_at + NEXT_HEARTBEAT_S)
    dump = evidence.seen.get(Channel.DUMP)
    moments.append(dump.at + PANIC_KNOWN_S if dump is not None else inf)
    moments.append(cut_off_at(evidence, is_up=True) + policy.isolated_after_s)
    power = evidence.seen.get(POWER)
    moments.append(power.first_at + BEAT_S if power is not None and power.reading is OFF else inf)
    return [moment for moment in moments if moment < inf]
