# SPDX-License-Identifier: Apache-2.0
"""What a lab becomes by what is wanted of it."""

import pytest

from lab.bringup import choose
from lab.layout import LabError


def test_cinder_is_there_once_somebody_wanted_it():
    assert not choose({}, {})["cinder"]
    had = choose({}, {"cinder": True})
    assert had["cinder"] and choose(had, {})["cinder"] and choose(had, {"cinder": None})["cinder"]


def test_real_guests_have_no_volumes_that_keep_nothing():
    with pytest.raises(LabError, match="pretend guests"):
        choose({}, {"virt": "qemu", "cinder": True})
