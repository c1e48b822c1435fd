# SPDX-License-Identifier: Apache-2.0
"""What is kept of the decisions of an incident that never ends."""

from vmhad.kernel.exhibit import EXHIBITS_FIRST, EXHIBITS_NEWEST, FENCED, PROVEN, Exhibit, kept
from vmhad.kernel.proof import Proof


def seen(at: float) -> Exhibit:
    proof = Proof("h1", "power_off", at, True, int(at), ())
    return Exhibit(PROVEN, at, 1, int(at), "FAILED", 7, "off", True, 0.0, proof=proof)


def begun(at: float) -> Exhibit:
    return Exhibit(FENCED, at, 1, int(at), "FAILED", 7, "silent", False, 0.0)


def times(exhibits: tuple[Exhibit, ...]) -> list[float]:
    return [one.at for one in exhibits]


def test_the_first_and_the_newest_are_kept() -> None:
    known: tuple[Exhibit, ...] = ()
    for number in range(20):
        known = kept(known, (seen(float(number)),), ())
    assert times(known) == [*range(EXHIBITS_FIRST), *range(20 - EXHIBITS_NEWEST, 20)]


def test_a_proof_that_something_rests_on_is_kept_until_it_is_certified() -> None:
    known: tuple[Exhibit, ...] = ()
    for number in range(0, 40, 2):
        known = kept(known, (begun(float(number)), seen(float(number + 1))), {5.0, 6.0})
    assert times(known) == [0, 1, 5, *range(32, 40)]
    assert times(kept(known, (begun(40.0),), ())) == [0, 1, *range(33, 41)]
