# SPDX-License-Identifier: Apache-2.0
"""One real small cloud for all cloud tests of a run; each test that asks for it finds it clean.

VMHAD_LAB names the lab (default citest). It is brought up if it is not, and left up: `lab/cloud down` is the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from oslo_service import backend

from lab.cloud_lab import CloudLab

# Before anything imports oslo.messaging, which would choose eventlet.
backend.init_backend(backend.BackendType.THREADING)

from trial import Trial  # noqa: E402

from lab.engine import forget_journal  # noqa: E402

COMPUTES = 4


@pytest.fixture(scope="session")
def cloud() -> CloudLab:
    """The lab as it is, whatever the test before did to it. Ask for `lab` unless the module cleans up by itself."""
    return CloudLab.up(os.environ.get("VMHAD_LAB", "citest"), COMPUTES)


@pytest.fixture(scope="session")
def clean_cloud(cloud: CloudLab) -> CloudLab:
    """The lab, cleaned once: a run that was interrupted may have left its dead behind."""
    cloud.reset()
    return cloud


@pytest.fixture
def lab(clean_cloud: CloudLab) -> Iterator[CloudLab]:
    """The lab with every host running and no server on it; made so again afterwards, also when the test failed."""
    yield clean_cloud
    clean_cloud.reset()


@pytest.fixture
def trial(lab: CloudLab) -> Iterator[Trial]:
    """A clean lab, an empty journal and a watcher that runs. At the end no guest may have run on two hosts."""
    forget_journal(lab.facts)
    begun = Trial(lab)
    try:
        yield begun
    finally:
        begun.end()
