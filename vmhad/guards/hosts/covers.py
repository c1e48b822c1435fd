# SPDX-License-Identifier: Apache-2.0
"""Which VMs a proof holds for, and what is read just before an act that rests on it.

Rule kept: a disk that nobody can say the place of is on no storage that was cut. A disk of the host itself cannot be
cut off: only what is proven of the whole host covers it.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmhad.kernel.case import Case
from vmhad.kernel.cloud import Server
from vmhad.kernel.proof import POWER_OFF, WORD
from vmhad.kernel.topology import OF_CINDER, OF_NOVA, UNPLACED


def uncovered(case: Case, server: Server) -> str:
    """'' or why the held proof does not hold for this VM."""
    proof = case.incident.proof
    if proof is None or proof.is_whole:
        return ""
    if server.settings.storage_only_proof is False:
        return "a VM policy says storage_only_proof = no of it"
    if not server.disks:
        return "it is not known where its disks are"
    for disk in server.disks:
        backend = case.segment.backend_of(disk, case.incident.host)
        if backend is None and disk.startswith(UNPLACED):
            return f"it is not known on which storage {_place(disk)} is"
        if backend is None:
            return f"{_place(disk)} is on no storage that can cut {case.incident.host} off"
        if backend.name not in proof.backends:
            return f"{_place(disk)} is on {backend.name}, which {case.incident.host} is not proven to be cut off from"
    return ""


def read_before(case: Case, hosts: Iterable[str], server: Server | None = None) -> dict[str, str]:
    """The arguments of a step that rests on the proofs of these hosts: of whom power must read OFF (proof_hosts), must
    not read ON (proof_words), and who must read CUT where (proof_cuts: host/backend). server: whose disks count;
    None: every storage that the host is proven to be cut off from."""
    mine = case.incident.proof
    proofs = {name: case.proofs[name] for name in hosts if name in case.proofs}
    if mine is not None:
        proofs[case.incident.host] = mine
    args = {"proof_hosts": ",".join(sorted(name for name, one in proofs.items() if one.kind == POWER_OFF))}
    if words := sorted(name for name, one in proofs.items() if one.kind == WORD):
        args["proof_words"] = ",".join(words)
    if mine is not None and not mine.is_whole:
        names = _backends_of(case, server) if server is not None else mine.backends
        args["proof_cuts"] = ",".join(f"{case.incident.host}/{name}" for name in names)
    return args


def _backends_of(case: Case, server: Server) -> list[str]:
    found = (case.segment.backend_of(disk, case.incident.host) for disk in server.disks)
    return sorted({one.name for one in found if one is not None})


def _place(disk: str) -> str:
    if disk == OF_NOVA:
        return "its disk, kept by its host,"
    return f"its volume of {disk.removeprefix(OF_CINDER)}" if disk.startswith(OF_CINDER) else f"its {disk}"
