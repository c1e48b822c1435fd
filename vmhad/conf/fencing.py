# SPDX-License-Identifier: Apache-2.0
"""The part of [policy] that says how a host is fenced."""

from __future__ import annotations

from oslo_config import cfg

from vmhad.kernel.policy import CutStorage, Policy

_D = Policy()

FENCING = [
    cfg.FloatOpt(
        "power_off_deadline_s",
        default=_D.power_off_deadline_s,
        min=1.0,
        max=600.0,
        help="Seconds in which a host must be read OFF after power_off was sent.",
    ),
    cfg.IntOpt("fence_attempts_max", default=_D.fence_attempts_max, min=1, max=100, help="Tries of one fence."),
    cfg.FloatOpt(
        "fence_retry_s",
        default=_D.fence_retry_s,
        min=1.0,
        max=600.0,
        help="Seconds before a stuck recovery is tried again, twice as long each time, up to 600; and between two "
        "tries to give a host its storages back.",
    ),
    cfg.StrOpt(
        "cut_storage",
        default=_D.cut_storage.value,
        choices=[
            (CutStorage.BESIDE_POWER.value, "Power and storages side by side: the first complete proof wins."),
            (CutStorage.AFTER_POWER.value, "When its BMC refuses, is silent, or was not read OFF in time."),
            (CutStorage.NEVER.value, "Never: its power, its watchdog or an operator's word has to prove it."),
        ],
        help="When a host that is fenced is cut off from the shared storages of the segments file.",
    ),
    cfg.FloatOpt(
        "cut_storage_deadline_s",
        default=_D.cut_storage_deadline_s,
        min=15.0,
        max=600.0,
        help="Seconds in which a storage must show that a host is cut off, before it is asked again.",
    ),
    cfg.BoolOpt(
        "storage_only_proof",
        default=_D.storage_only_proof,
        help="Whether a VM may start elsewhere when its host is proven to be cut off from every storage with a disk of "
        "it, and its power is not proven off. Its old guest may then still run: it can write nothing, but it may "
        "answer under the VM's address on a tenant network that its host still reaches.",
    ),
    cfg.BoolOpt(
        "self_fence_proof",
        default=_D.self_fence_proof,
        help="Whether a host whose record on a shared storage stands still for as long as it promised itself is proven "
        "to have been reset by its watchdog. Needs [agent] watchdog_device on every host, and watchdogs that are "
        "trusted.",
    ),
    cfg.IntOpt(
        "quarantine_fences",
        default=_D.quarantine_fences,
        min=0,
        max=100,
        help="A host that was fenced this often within quarantine_window_s is not enabled before it was well for "
        "quarantine_s. 0: it always is at once.",
    ),
    cfg.FloatOpt(
        "quarantine_window_s",
        default=_D.quarantine_window_s,
        min=60.0,
        max=604800.0,
        help="Seconds within which the fences of a host are counted.",
    ),
    cfg.FloatOpt(
        "quarantine_s",
        default=_D.quarantine_s,
        min=1.0,
        max=86400.0,
        help="Seconds for which such a host has to be well, taken back and still disabled.",
    ),
    cfg.FloatOpt(
        "kdump_wait_s",
        default=_D.kdump_wait_s,
        min=0.0,
        max=86400.0,
        help="A host that writes a dump of its panicked kernel is powered off when it is done, or this many seconds "
        "after it was first heard to do so. It counts as done when its newest message is 25 s old. Its VMs are down "
        "for as long. Needs [agent] kdump_port on its peers, and an agent_failed_s that is longer than a crash kernel "
        "takes to come up: before it says that it writes, nobody waits for it. 0: it is powered off at once, in the "
        "middle of its dump.",
    ),
]
