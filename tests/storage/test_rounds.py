# SPDX-License-Identifier: Apache-2.0
"""Every storage driver, measured on a real server: no proof is ever said too early, and it is said soon enough.

VMHAD_STORAGE_ROUNDS says how many rounds. The figures go to lab/run/storage.json.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from tests.storage.rounds import measure, report, summary

PROOF_MEDIAN_MS = 5000
# The driver, and the module that holds its `lacks()` and its `rig(where)`.
RIGS = {
    "ceph": "rig_ceph",
    "nfs_ganesha": "rig_nfs_ganesha",
    "scsi_pr": "rig_scsi_pr",
}


@pytest.mark.parametrize("driver", sorted(RIGS))
def test_no_proof_comes_before_the_last_write(driver: str, tmp_path: Path) -> None:
    module = import_module(f"tests.storage.{RIGS[driver]}")
    lacks = module.lacks()
    if lacks:
        pytest.skip(lacks)
    with module.rig(tmp_path) as rig:
        played = measure(rig)
    entry = summary(rig.name, played)
    report(entry)
    print(entry)
    assert entry["false_proofs"] == 0, [one for one in played if one.false_proof]
    assert entry["order_to_proof_ms"]["median"] <= PROOF_MEDIAN_MS
