# SPDX-License-Identifier: Apache-2.0
"""The numbers and choices an operator sets for a segment. Code decides; policy has numbers and named choices only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vmhad.kernel.verdict import Ailment


class SilentMeans(StrEnum):
    """What a host is whose nova-compute is silent while its power is not read OFF, with no further eye to ask."""

    HOLD = "hold"
    FENCE = "fence"


class CutOff(StrEnum):
    """What becomes of a host that is not seen to be dead, and that its VMs' users have lost all the same."""

    LEAVE = "leave"
    FENCE = "fence"


class CutStorage(StrEnum):
    """When a host that is to be fenced is cut off from its shared storages. AFTER_POWER: when its power could not be
    proven off."""

    BESIDE_POWER = "beside_power"
    AFTER_POWER = "after_power"
    NEVER = "never"


class AfterFence(StrEnum):
    """What happens to a fenced host once its VMs run elsewhere."""

    STAY_OFF = "stay_off"
    POWER_ON = "power_on"


class OnFailure(StrEnum):
    """What happens to a VM, or a service, that failed alone while its host is well."""

    RESTART = "restart"
    LEAVE = "leave"


class OnIoError(StrEnum):
    """What happens to a VM whose disk failed it. RESUME: where that paused its guest, it goes on where it was."""

    RESTART = "restart"
    LEAVE = "leave"
    RESUME = "resume"


class Drain(StrEnum):
    """What of a host that lives is worth moving its VMs away from it, alive."""

    OFF = "off"
    TENANT_PLANE = "tenant_plane"
    HARDWARE = "hardware"
    BOTH = "both"

    def covers(self, ailment: Ailment | None) -> bool:
        return ailment is not None and self.value in (Drain.BOTH.value, ailment.value)


@dataclass(frozen=True, slots=True)
class Policy:
    """One segment's policy. All times in seconds of the deciding engine's own clock."""

    silent_means: SilentMeans = SilentMeans.HOLD
    after_fence: AfterFence = AfterFence.STAY_OFF
    # Evidence: two bad readings count only when this far apart, and a channel unread for longer is UNKNOWN.
    readings_apart_s: float = 0.8
    channel_stale_s: float = 15.0
    # An OFF of a BMC that was never read ON, or that was caught lying, counts after this long without a heartbeat
    # (nova-compute reports every 10 s by default).
    untrusted_off_quiet_s: float = 25.0
    # How long nova-compute must not have been heard before its BMC's OFF counts. 0: a death is answered in seconds, and
    # a BMC that begins to lie is believed until the next heartbeat; 12: one heartbeat must have failed to come.
    already_off_quiet_s: float = 0.0
    # Agents beat once a second. Silent for this long: suspected, and every other eye looks now; for this long, seen on
    # no plane and with a storage beat that stopped: dead.
    agent_suspect_s: float = 4.0
    agent_failed_s: float = 8.0
    # A record on a shared storage that did not move for this long has stopped.
    storage_still_s: float = 6.0
    # A host that is cut off, or hangs while its kernel answers, and one that alone does not reach its VMs' disks: what
    # becomes of it when that has lasted isolated_after_s.
    isolated: CutOff = CutOff.LEAVE
    storage_lost: CutOff = CutOff.LEAVE
    isolated_after_s: float = 120.0
    # Fencing.
    power_off_deadline_s: float = 20.0
    fence_attempts_max: int = 3
    fence_retry_s: float = 30.0
    cut_storage: CutStorage = CutStorage.BESIDE_POWER
    cut_storage_deadline_s: float = 20.0
    # Whether a VM may start elsewhere while its old guest, cut off from all its disks, may still run and answer under
    # its address.
    storage_only_proof: bool = True
    # Whether the promise of a host's record, that its watchdog has reset it by now, proves it fenced.
    self_fence_proof: bool = False
    # A host that was fenced so often within the window receives no VMs, once it is back, before it was well so long.
    quarantine_fences: int = 3
    quarantine_window_s: float = 3600.0
    quarantine_s: float = 600.0
    # How long the first act of a fence waits while its host says that it writes a dump of its panicked kernel.
    kdump_wait_s: float = 0.0
    # Brake.
    failed_share_max: float = 0.5
    # A host that was not heard for this long counts as silent long before Nova calls it down (60 s by default).
    heartbeat_quiet_s: float = 25.0
    # When a silent host is heard again, the other silent ones get this long to follow.
    back_grace_s: float = 60.0
    # Failures no further apart than this are one storm.
    storm_window_s: float = 600.0
    blind_share_max: float = 0.5
    recoveries_max: int = 8
    fences_in_flight_max: int = 8
    canary_from_hosts: int = 3
    domain_kind: str = "rack"
    domain_silent_min: int = 3
    # Recovery.
    evacuations_max: int = 64
    evacuations_per_target_max: int = 16
    # Requests on their way to nova-api at a time: sent all at once they wait for each other there, while the rest of
    # Nova waits for the first of them.
    evacuation_requests_max: int = 8
    evacuate_deadline_s: float = 900.0
    evacuate_attempts_max: int = 8
    retry_backoff_s: float = 10.0
    retry_backoff_max_s: float = 120.0
    # The kind of domain that members of one anti-affinity group are kept apart over, hard or soft, while there is room;
    # '' for none: then a group is apart over hosts only.
    spread_over: str = ""
    # How long a VM waits for the order groups that it comes after; for each link of the chain, where they wait, too.
    order_wait_s: float = 300.0
    rebuild_local_disks: bool = False
    shared_ephemeral: bool = False
    # The target computes run with [workarounds] disable_group_policy_check_upcall: a hard-affinity group of
    # several members can be moved as one (Nova 34's late check refuses it otherwise).
    affinity_groups_movable: bool = False
    # VMs that fail alone. A guest whose disk fails is restarted once its storage is back; one whose agent fell silent
    # may only be shutting down, or busy.
    on_crash: OnFailure = OnFailure.RESTART
    on_panic: OnFailure = OnFailure.RESTART
    on_io_error: OnIoError = OnIoError.RESTART
    on_silent_agent: OnFailure = OnFailure.LEAVE
    silent_agent_s: float = 120.0
    instance_starts_max: int = 3
    instance_window_s: float = 1800.0
    # What failed by one cause, such as a storage that was away, does not start all at once.
    instance_restarts_max: int = 16
    # Services of a living host, where its agent tells of them: down for this long (systemd's own restart gets its
    # chance), or running while Nova reads it down for so long and most of its fellows up.
    on_service_failure: OnFailure = OnFailure.RESTART
    service_down_s: float = 10.0
    service_hung_s: float = 90.0
    service_starts_max: int = 3
    service_window_s: float = 1800.0
    service_restarts_max: int = 8
    # Emptying a host that lives, when what is wrong with it has lasted drain_after_s; once it was healthy for
    # drain_healthy_s it may be sent VMs again. How many hosts of a segment at a time, and how many VMs of one.
    drain: Drain = Drain.OFF
    drain_after_s: float = 120.0
    drain_healthy_s: float = 300.0
    drains_max: int = 1
    live_migrations_max: int = 2
    # A VM is protected unless it says otherwise: server metadata key vmhad=false.
    opt_out_key: str = "vmhad"
