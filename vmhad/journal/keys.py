# SPDX-License-Identifier: Apache-2.0
"""Every key of the journal has its one home here.

Names are quoted, so that none can reach into its neighbour's keys; a prefix always ends with '/', so that segment
'a' never lists what belongs to segment 'ab'.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

ROOT = "/vmhad/v1/"
SEGMENTS = ROOT + "segment/"
OPEN_HOSTS = ROOT + "open/host/"
OPEN_DRAINS = ROOT + "open/drain/"
OPEN_VMS = ROOT + "open/vm/"
OPEN_SERVICES = ROOT + "open/service/"
# Everything that an incident may have a claim on.
OPEN = (OPEN_HOSTS, OPEN_DRAINS, OPEN_VMS, OPEN_SERVICES)
FENCES = ROOT + "budget/fences"
CERTIFICATES = ROOT + "certificate/"
VM_POLICIES = ROOT + "vm-policy/"


@lru_cache(maxsize=4096)
def _path(*names: str) -> str:
    """Raises ValueError for an empty name: it would make two different things share a key."""
    if not all(names):
        raise ValueError(f"a journal key needs every name: {names}")
    return "/".join(quote(name, safe="") for name in names)


def segment(name: str) -> str:
    """Prefix of the segment's owner, epoch and commit count: who may act."""
    return f"{SEGMENTS}{_path(name)}/"


def owner(segment_name: str) -> str:
    return segment(segment_name) + "owner"


def epoch(segment_name: str) -> str:
    return segment(segment_name) + "epoch"


def commits(segment_name: str) -> str:
    """How many commits the segment has seen; compared by each, so that a late twin of an older one cannot land."""
    return segment(segment_name) + "commits"


def incidents(segment_name: str) -> str:
    return f"{ROOT}incident/{_path(segment_name)}/"


def incident(segment_name: str, incident_id: str) -> str:
    return incidents(segment_name) + _path(incident_id)


def steps(segment_name: str, incident_id: str = "") -> str:
    """Prefix of a segment's steps, or of one incident's."""
    prefix = f"{ROOT}step/{_path(segment_name)}/"
    return f"{prefix}{_path(incident_id)}/" if incident_id else prefix


def step(segment_name: str, incident_id: str, step_id: str) -> str:
    return f"{ROOT}step/{_path(segment_name, incident_id, step_id)}"


def open_host(host: str) -> str:
    """The claim on a host: which incident has it. Cloud-wide."""
    return OPEN_HOSTS + _path(host)


def open_drain(host: str) -> str:
    """The claim on emptying a host, which may go on beside an incident of the host itself."""
    return OPEN_DRAINS + _path(host)


def open_vm(server_id: str) -> str:
    """The claim on a VM: which incident has it. Cloud-wide: two segments may meet over one VM."""
    return OPEN_VMS + _path(server_id)


def open_service(host: str, service: str) -> str:
    """The claim on a service of a host: which incident has it."""
    return OPEN_SERVICES + _path(host, service)


def certificates(incident_id: str = "", server_id: str = "") -> str:
    """Prefix of all certificates, of one incident's, or of one VM's in it."""
    names = [one for one in (incident_id, server_id) if one]
    return CERTIFICATES + (f"{_path(*names)}/" if names else "")


def certificate(incident_id: str, server_id: str, number: int) -> str:
    """Written once, never changed. number: counted from 1; so written that the keys' order is theirs."""
    return f"{certificates(incident_id, server_id)}{number:04d}"


def file_of(certificate_key: str) -> str:
    """The name of its file: no other certificate has it, for no quoted name holds an @."""
    return certificate_key.removeprefix(CERTIFICATES).replace("/", "@") + ".json"


def vm_policies() -> str:
    """All policies of VMs with their version: one value, changed as a whole."""
    return VM_POLICIES + "all"


def orders(segment_name: str) -> str:
    return f"{ROOT}order/{_path(segment_name)}/"


def order(segment_name: str, order_id: str) -> str:
    return orders(segment_name) + _path(order_id)


def nudges(segment_name: str) -> str:
    return f"{ROOT}nudge/{_path(segment_name)}/"


def nudge(segment_name: str, subject: str) -> str:
    return nudges(segment_name) + _path(subject)
