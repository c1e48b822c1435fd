# SPDX-License-Identifier: Apache-2.0
"""Beats for the tests of the bus: any beat that an agent may make, and the one of a busy host."""

from __future__ import annotations

from hypothesis import strategies as st

from vmhad.kernel.beat import Beat, Domain, DomainState, Dump, PeerView, Plane, StorageBeat, Unit, UnitState
from vmhad.kernel.signal import Reading

NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["C", "Z"]), min_size=1, max_size=30
)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
TIMES = st.floats(min_value=0, max_value=1e10, allow_nan=False)
READINGS = st.sampled_from(Reading)
DOMAINS = st.dictionaries(
    NAMES, st.builds(Domain, st.sampled_from(DomainState), st.just("") | WORDS, TIMES), max_size=4
)
VIEWS = st.builds(
    PeerView,
    st.dictionaries(st.sampled_from(Plane), READINGS),
    st.dictionaries(NAMES, st.builds(StorageBeat, NAMES, st.integers(0, 2**53), TIMES), max_size=2),
    st.none() | st.tuples(TIMES, TIMES).map(lambda two: Dump(max(two), min(two))),
)
UNITS = st.builds(Unit, st.sampled_from(UnitState), NAMES, NAMES, NAMES, TIMES)
BEATS = st.builds(
    Beat,
    host=NAMES,
    boot=NAMES,
    run=NAMES,
    count=st.integers(0, 2**53),
    uptime_s=TIMES,
    sent_at=TIMES,
    leaving=st.booleans(),
    services=st.dictionaries(NAMES, READINGS, max_size=3),
    storages=st.dictionaries(NAMES, READINGS, max_size=3),
    peers=st.dictionaries(NAMES, VIEWS, max_size=3),
    domains=st.none() | DOMAINS,
    hardware=st.lists(WORDS, max_size=3).map(tuple),
    units=st.dictionaries(NAMES, UNITS, max_size=3),
)


def busy_beat(host: str = "compute-0001", count: int = 1, guests: int = 50) -> Beat:
    """What a host says that has so many guests, four peers and two shared storages."""
    boot, up = "6e1f7dc2-5d0e-4b43-9d8a-3a4c2f0b7e55", Reading.UP
    view = PeerView(
        dict.fromkeys(Plane, up), {"nfs": StorageBeat(boot, count, 0.4), "ceph": StorageBeat(boot, count, 0.3)}
    )
    return Beat(
        host,
        boot,
        "run-0123456789abcdef",
        count,
        86_400.25 + count,
        1.8e9 + count,
        services={"libvirtd": up, "nova-compute": up},
        units=dict.fromkeys(("libvirtd", "nova-compute"), Unit(UnitState.RUNS, invocation=32 * "a", since_s=7.5)),
        storages={"nfs": up, "ceph": up},
        peers={f"compute-{number:04}": view for number in range(2, 6)},
        domains={
            f"0d6cbd0e-4f0c-4c1e-9d6e-{number:012}": Domain(DomainState.RUNNING, "booted", 1234.5)
            for number in range(guests)
        },
    )
