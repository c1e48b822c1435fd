# SPDX-License-Identifier: Apache-2.0
"""What an operator wants of single VMs: what the policies of VMs come to for one of them."""

from __future__ import annotations

from dataclasses import dataclass

from vmhad.kernel.policy import OnFailure, OnIoError


@dataclass(frozen=True, slots=True)
class VmSettings:
    """What the policies of VMs say of one VM. None: nothing, so that its segment's Policy says it.

    protect: False: it is left alone, by protect_by. priority: the higher one is recovered first, within -100..100.
    order_group: the name of what it belongs to where one group waits for another; '' for none. storage_only_proof: may
    only be stricter than the segment's.
    """

    protect: bool | None = None
    protect_by: str = ""
    priority: int = 0
    order_group: str = ""
    storage_only_proof: bool | None = None
    rebuild_local_disks: bool | None = None
    instance_starts_max: int | None = None
    instance_window_s: float | None = None
    on_crash: OnFailure | None = None
    on_panic: OnFailure | None = None
    on_io_error: OnIoError | None = None
    on_silent_agent: OnFailure | None = None


NOTHING_SAID = VmSettings()
