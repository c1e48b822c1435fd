# SPDX-License-Identifier: Apache-2.0
"""Each behaviour of a BMC leads to what the docs say, at the level of a fence; and how long a fence takes by one that
answers."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import ipmi_sim
import pytest
import redfish_sim
from ipmi_sim import present
from redfish_sim import present as tls_present

from tests.ports.bmc_matrix import DOCUMENT, KINDS, ROWS, Outcome, host_of, played, seconds_to_proof, verdicts

pytestmark = pytest.mark.skipif(not (present() and tls_present()), reason="ipmi_sim or openssl is not installed")

PROOF_S_MAX = 3.0


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def found(where: Path) -> dict[tuple[str, str], Outcome]:
    return played(where)


@pytest.mark.parametrize(
    ("name", "kind"), [(row.name, kind) for row in ROWS for kind in row.kinds], ids=lambda value: value
)
def test_what_it_leads_to(found: dict[tuple[str, str], Outcome], name: str, kind: str) -> None:
    wanted = next(row.verdict for row in ROWS if row.name == name)
    assert found[name, kind].verdict == wanted, found[name, kind]


def test_the_table_of_the_docs_says_so(found: dict[tuple[str, str], Outcome]) -> None:
    seen = {row.words: {found[row.name, kind].verdict for kind in row.kinds} for row in ROWS}
    assert {words: {verdict} for words, verdict in verdicts(DOCUMENT.read_text()).items()} == seen


def test_what_is_remembered_holds_no_password(found: dict[tuple[str, str], Outcome], where: Path) -> None:
    """Nor does it where the BMC refused it, or its driver failed in every other way."""
    kept = b"".join(path.read_bytes() for path in where.rglob("journal.sqlite*"))
    assert all(host_of(row, kind).encode() in kept for row in ROWS for kind in row.kinds)
    assert not [one for one in (ipmi_sim.PASSWORD, redfish_sim.PASSWORD) if one.encode() in kept]


@pytest.mark.parametrize("kind", KINDS)
def test_power_off_to_proof(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    took = seconds_to_proof(tmp_path_factory.mktemp("proofs"), kind)
    print(f"{kind}: median {median(took):.2f} s, {min(took):.2f} to {max(took):.2f} s")
    assert median(took) <= PROOF_S_MAX
