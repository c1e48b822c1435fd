# SPDX-License-Identifier: Apache-2.0
"""The contract of Hands, over a real RabbitMQ with signed orders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.ports.hands_contract")

from tests.broker import Broker  # noqa: E402
from tests.ports.hands_contract import CASES, Bench, Case  # noqa: E402
from tests.ports.orders_bench import RabbitBench  # noqa: E402


@pytest.fixture
def bench(rabbit: Broker) -> Iterator[Bench]:
    begun = RabbitBench(rabbit)
    yield begun
    begun.end()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(bench: Bench, case: Case) -> None:
    case.run(bench)
