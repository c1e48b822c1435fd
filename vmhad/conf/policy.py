# SPDX-License-Identifier: Apache-2.0
"""[policy]: the defaults of every segment's policy; a segment overrides single fields in the segments file.

Written out field by field: what an operator reads here is the documentation of kernel.policy.
"""

from __future__ import annotations

from oslo_config import cfg

from vmhad.conf.drains import DRAINS
from vmhad.conf.fencing import FENCING
from vmhad.conf.placing import PLACING
from vmhad.kernel.policy import AfterFence, CutOff, OnFailure, OnIoError, Policy, SilentMeans

GROUP = cfg.OptGroup("policy", title="What is done when; per segment in the segments file")

_D = Policy()

EVIDENCE = [
    cfg.StrOpt(
        "silent_means",
        default=_D.silent_means.value,
        choices=[
            (SilentMeans.HOLD.value, "wait for an operator: a hung host and a dead nova-compute look the same"),
            (SilentMeans.FENCE.value, "power it off and recover its VMs"),
        ],
        help="What to do with a host whose nova-compute is silent while its power is not read OFF, and no agent tells "
        "more. Agents that watch one plane only and no storage tell no more: the same choice counts for them.",
    ),
    cfg.StrOpt(
        "after_fence",
        default=_D.after_fence.value,
        choices=[
            (AfterFence.STAY_OFF.value, "an operator looks first"),
            (AfterFence.POWER_ON.value, "it is powered on once its VMs run elsewhere"),
        ],
        help="What becomes of a fenced host.",
    ),
    cfg.FloatOpt(
        "readings_apart_s",
        default=_D.readings_apart_s,
        min=0.1,
        max=60.0,
        help="Two bad readings count only when they are this many seconds apart.",
    ),
    cfg.FloatOpt(
        "channel_stale_s",
        default=_D.channel_stale_s,
        min=1.0,
        max=600.0,
        help="A channel unread for this many seconds is UNKNOWN.",
    ),
    cfg.FloatOpt(
        "untrusted_off_quiet_s",
        default=_D.untrusted_off_quiet_s,
        min=0.0,
        max=3600.0,
        help="An OFF from a BMC that was never read ON, or that was caught lying, counts after this many seconds "
        "without a heartbeat of nova-compute. More than two report intervals of Nova.",
    ),
    cfg.FloatOpt(
        "already_off_quiet_s",
        default=_D.already_off_quiet_s,
        min=0.0,
        max=3600.0,
        help="For how many seconds nova-compute must not have been heard before an OFF of a trusted BMC counts. 0 "
        "answers a death in seconds and believes a BMC that begins to lie until the next heartbeat (10 s by default); "
        "12 waits for one heartbeat to fail to come.",
    ),
    cfg.FloatOpt(
        "heartbeat_quiet_s",
        default=_D.heartbeat_quiet_s,
        min=0.0,
        max=3600.0,
        help="A host whose nova-compute was not heard for this many seconds counts as silent for the brake, long "
        "before Nova calls it down. More than two report intervals of Nova.",
    ),
    cfg.FloatOpt(
        "back_grace_s",
        default=_D.back_grace_s,
        min=0.0,
        max=3600.0,
        help="When a silent host is heard again, no other silent one is fenced for this many seconds: what silenced "
        "them may be over.",
    ),
    cfg.FloatOpt(
        "storm_window_s",
        default=_D.storm_window_s,
        min=0.0,
        max=86400.0,
        help="Failures that began no longer ago than this many seconds count towards failed_share_max.",
    ),
]

AGENTS = [
    cfg.FloatOpt(
        "agent_suspect_s",
        default=_D.agent_suspect_s,
        min=3.0,
        max=600.0,
        help="A host whose agent was not heard for this many seconds is suspected, and every other eye looks at once. "
        "Agents beat once a second.",
    ),
    cfg.FloatOpt(
        "agent_failed_s",
        default=_D.agent_failed_s,
        min=4.0,
        max=600.0,
        help="A host whose agent was not heard for this many seconds, whose storage beat has stopped and whom its "
        "peers see on no plane, is dead. Longer where a kernel that panicked shall have the time to begin to write its "
        "dump (kdump_wait_s), or, where nobody hears of that, to write it.",
    ),
    cfg.FloatOpt(
        "storage_still_s",
        default=_D.storage_still_s,
        min=3.0,
        max=600.0,
        help="A host's record on a shared storage that has not moved for this many seconds has stopped. Longer than "
        "the longest stall of the storage.",
    ),
    cfg.StrOpt(
        "isolated",
        default=_D.isolated.value,
        choices=[
            (CutOff.LEAVE.value, "it is left as it is, and shown"),
            (CutOff.FENCE.value, "it is powered off and its VMs are recovered"),
        ],
        help="What becomes of a host that lives but is cut off from management, or hangs while its kernel answers, "
        "for longer than isolated_after_s.",
    ),
    cfg.StrOpt(
        "storage_lost",
        default=_D.storage_lost.value,
        choices=[
            (CutOff.LEAVE.value, "it is left as it is, and shown"),
            (CutOff.FENCE.value, "it is powered off and its VMs are recovered"),
        ],
        help="What becomes of a host that alone does not reach its VMs' shared storage for longer than "
        "isolated_after_s.",
    ),
    cfg.FloatOpt(
        "isolated_after_s",
        default=_D.isolated_after_s,
        min=10.0,
        max=86400.0,
        help="Seconds before isolated and storage_lost decide.",
    ),
]

BRAKE = [
    cfg.FloatOpt(
        "failed_share_max",
        default=_D.failed_share_max,
        min=0.0,
        max=1.0,
        help="Hold when more than this share of a segment has failed.",
    ),
    cfg.FloatOpt(
        "blind_share_max",
        default=_D.blind_share_max,
        min=0.0,
        max=1.0,
        help="Hold when more than this share of a segment cannot be seen: then it is vmhad that is blind.",
    ),
    cfg.IntOpt(
        "recoveries_max", default=_D.recoveries_max, min=1, max=1000, help="Hosts of a segment in recovery at a time."
    ),
    cfg.IntOpt(
        "fences_in_flight_max",
        default=_D.fences_in_flight_max,
        min=1,
        max=1000,
        help="Fences under way at a time, over all segments of the cloud.",
    ),
    cfg.IntOpt(
        "canary_from_hosts",
        default=_D.canary_from_hosts,
        min=1,
        max=1000,
        help="From this many silent hosts on, one is fenced first and the others wait for its proof.",
    ),
    cfg.StrOpt(
        "domain_kind",
        default=_D.domain_kind,
        help="Which kind of domain, as named in the segments file, fails together.",
    ),
    cfg.IntOpt(
        "domain_silent_min",
        default=_D.domain_silent_min,
        min=1,
        max=1000,
        help="From this many hosts of one domain silent with power ON on, it is taken for a dead switch: hold. From so "
        "many domains with silent hosts on, it is taken for a fault of ours or of the storage: hold.",
    ),
]

RECOVERY = [
    cfg.IntOpt(
        "evacuations_max", default=_D.evacuations_max, min=1, max=1000, help="Evacuations of a segment at a time."
    ),
    cfg.IntOpt(
        "evacuations_per_target_max",
        default=_D.evacuations_per_target_max,
        min=1,
        max=1000,
        help="Evacuations to one target at a time.",
    ),
    cfg.IntOpt(
        "evacuation_requests_max",
        default=_D.evacuation_requests_max,
        min=1,
        max=1000,
        help="Requests for evacuations that wait for nova-api's answer at a time. More is slower where its processes "
        "are few.",
    ),
    cfg.FloatOpt(
        "evacuate_deadline_s",
        default=_D.evacuate_deadline_s,
        min=10.0,
        max=86400.0,
        help="Seconds an evacuation, or any other step for Nova, may take before it counts as stuck.",
    ),
    cfg.IntOpt(
        "evacuate_attempts_max",
        default=_D.evacuate_attempts_max,
        min=1,
        max=100,
        help="Tries of one evacuation, and of any other step for Nova.",
    ),
    cfg.FloatOpt(
        "retry_backoff_s",
        default=_D.retry_backoff_s,
        min=0.1,
        max=3600.0,
        help="Seconds before the second try of an evacuation; doubled for each further one.",
    ),
    cfg.FloatOpt(
        "retry_backoff_max_s",
        default=_D.retry_backoff_max_s,
        min=0.1,
        max=600.0,
        help="The longest wait between two tries.",
    ),
    cfg.BoolOpt(
        "rebuild_local_disks",
        default=_D.rebuild_local_disks,
        help="Rebuild from its image a VM whose disk was local to the dead host. What was on the disk is lost.",
    ),
    cfg.BoolOpt(
        "shared_ephemeral",
        default=_D.shared_ephemeral,
        help="Says: the computes keep ephemeral disks on storage that all of the segment reach (e.g. RBD, NFS).",
    ),
    cfg.BoolOpt(
        "affinity_groups_movable",
        default=_D.affinity_groups_movable,
        help="Says: the computes run with [workarounds] disable_group_policy_check_upcall, so that a hard-affinity "
        "group can be moved as one.",
    ),
    cfg.StrOpt(
        "opt_out_key",
        default=_D.opt_out_key,
        help="The server metadata key that, set to false, says: do not recover this VM.",
    ),
]

INSTANCES = [
    *(
        cfg.StrOpt(
            name,
            default=getattr(_D, name).value,
            choices=[
                (OnFailure.RESTART.value, "it is restarted on its host"),
                (OnFailure.LEAVE.value, "it is left as it is"),
                *more,
            ],
            help=text,
        )
        for name, more, text in (
            ("on_crash", (), "What to do with a VM whose guest is gone while its host is well."),
            ("on_panic", (), "What to do with a VM whose guest panicked. Needs an agent on its host."),
            (
                "on_io_error",
                (
                    (
                        OnIoError.RESUME.value,
                        "a guest that was paused by it is resumed; after instance_starts_max tries in vain, and where "
                        "its agent takes no orders, it is restarted",
                    ),
                ),
                "What to do with a VM whose disk fails it; a restart waits until its host reaches its storage. Needs "
                "an agent on its host.",
            ),
            (
                "on_silent_agent",
                (),
                "What to do with a VM whose guest agent answered once and does not any more. Needs an agent on its "
                "host.",
            ),
        )
    ),
    cfg.FloatOpt(
        "silent_agent_s",
        default=_D.silent_agent_s,
        min=1.0,
        max=86400.0,
        help="A guest agent must not have answered for this many seconds before on_silent_agent counts. An orderly "
        "shutdown is such a silence, too.",
    ),
    cfg.IntOpt(
        "instance_starts_max",
        default=_D.instance_starts_max,
        min=1,
        max=100,
        help="Restarts of one VM in instance_window_s; then it is left, and told as STUCK.",
    ),
    cfg.FloatOpt(
        "instance_window_s",
        default=_D.instance_window_s,
        min=1.0,
        max=86400.0,
        help="The seconds in which restarts of one VM are counted.",
    ),
    cfg.IntOpt(
        "instance_restarts_max",
        default=_D.instance_restarts_max,
        min=1,
        max=1000,
        help="Restarts of single VMs of a segment at a time.",
    ),
]

SERVICES = [
    cfg.StrOpt(
        "on_service_failure",
        default=_D.on_service_failure.value,
        choices=[
            (OnFailure.RESTART.value, "its agent restarts it"),
            (OnFailure.LEAVE.value, "it is left as it is"),
        ],
        help="What to do with a nova-compute or libvirtd that failed while its host lives. Needs an agent on it.",
    ),
    cfg.FloatOpt(
        "service_down_s",
        default=_D.service_down_s,
        min=1.0,
        max=3600.0,
        help="A service that failed is restarted when it has not run for this many seconds. Longer than systemd waits "
        "before it starts it again by itself.",
    ),
    cfg.FloatOpt(
        "service_hung_s",
        default=_D.service_hung_s,
        min=10.0,
        max=86400.0,
        help="A nova-compute that runs hangs when Nova has read it down for this many seconds, and most of its segment "
        "up.",
    ),
    cfg.IntOpt(
        "service_starts_max",
        default=_D.service_starts_max,
        min=1,
        max=100,
        help="Restarts of one service of one host in service_window_s; then it is left, and told as STUCK.",
    ),
    cfg.FloatOpt(
        "service_window_s",
        default=_D.service_window_s,
        min=1.0,
        max=86400.0,
        help="The seconds in which restarts of one service are counted.",
    ),
    cfg.IntOpt(
        "service_restarts_max",
        default=_D.service_restarts_max,
        min=1,
        max=1000,
        help="Restarts of services of a segment at a time.",
    ),
]

OPTS = [*EVIDENCE, *AGENTS, *FENCING, *BRAKE, *RECOVERY, *PLACING, *INSTANCES, *SERVICES, *DRAINS]
