# SPDX-License-Identifier: Apache-2.0
"""What a real Nova was heard to send, and what a forger might: a nudge or nothing, never a raise."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_service import backend

# oslo.messaging would choose eventlet by being imported.
backend.init_backend(backend.BackendType.THREADING)

from vmhad.drivers.nudges.nova_notifications import EVENTS, Endpoint, NovaNotifications, Pending, nudge_of  # noqa: E402
from vmhad.ports import Nudge  # noqa: E402

FOLDER = Path(__file__).parent / "notifications"
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
EVACUATED = "7c3bdb57-5aa9-4a0c-abe6-a1b7bd871ab1"
MIGRATED = "f107eb6f-d179-4079-8eea-beb8ea0cec32"
EXPECTED = {
    "service.create": ("host08", ""),
    "service.update": ("host01", ""),
    "service.update.disabled": ("host05", ""),
    "instance.create.end": ("host01", "db641095-a35f-4c21-997b-e934996156b6"),
    "instance.delete.end": ("host04", "927239cb-22e8-48a1-87b0-6fc04e0d3db9"),
    "instance.evacuate": ("host01", "0302609f-4b7a-4360-8fd3-73385d98e03e"),
    "instance.live_migration_post.end": ("host05", MIGRATED),
    "instance.live_migration_post_dest.end": ("host06", MIGRATED),
    "instance.power_off.end": ("host01", EVACUATED),
    "instance.rebuild_scheduled": ("host01", EVACUATED),
    "instance.rebuild.start": ("host01", EVACUATED),
    "instance.rebuild.end": ("host01", EVACUATED),
    "instance.rebuild.error": ("host01", "8166f45a-54e5-4ecd-85b7-6ffe6642cad1"),
    "compute_task.rebuild_server.error": ("", "77ce3a9c-95de-497c-8b9e-be9d1b2b2173"),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.fixed_dictionaries({}, optional={key: JSON for key in ("host", "uuid", "binary", "instance_uuid")})
FORGED = st.fixed_dictionaries({"nova_object.data": JSON | NAMES})


def heard(sample: dict[str, Any]) -> Nudge | None:
    return nudge_of(sample["event_type"], sample["publisher_id"], sample["payload"])


def test_the_recordings_are_there() -> None:
    assert len({sample["event_type"] for sample in RECORDED.values()}) == 55
    assert EXPECTED.keys() <= RECORDED.keys()


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name: str) -> None:
    sample = RECORDED[name]
    if name in EXPECTED:
        host, server = EXPECTED[name]
        assert heard(sample) == Nudge(host, server, sample["event_type"])
    else:
        assert heard(sample) is None


def test_libvirt_error_names_its_publisher() -> None:
    """No fake hypervisor can send one; the shape is that of Nova's LibvirtErrorPayload 1.0."""
    payload = {"nova_object.name": "LibvirtErrorPayload", "nova_object.data": {"ip": "10.0.2.15", "reason": {}}}
    event = "libvirt.connect.error"
    assert nudge_of(event, "nova-compute:host07", payload) == Nudge("host07", "", event)
    assert nudge_of(event, "nova-api:host07", payload) is None


def test_other_services_are_no_hosts() -> None:
    payload = {"nova_object.data": {"binary": "nova-scheduler", "host": "controller"}}
    assert nudge_of("service.update", "nova-scheduler:controller", payload) is None


def test_unversioned_payload_is_ignored() -> None:
    assert nudge_of("instance.power_off.end", "compute.host01", {"host": "host01", "uuid": EVACUATED}) is None


@pytest.mark.parametrize("host", ["", "x" * 256, "host\n01", "\x00", 7, None, ["host01"], {"a": 1}])
def test_names_that_cannot_be_hosts(host: object) -> None:
    payload = {"nova_object.data": {"binary": "nova-compute", "host": host}}
    assert nudge_of("service.update", "nova-compute:h", payload) is None


# How fast the machine is today is no property of the listener.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(event=st.sampled_from(sorted(EVENTS)) | JSON, publisher=JSON, payload=JSON | FORGED)
def test_forged_notifications_never_raise(event: object, publisher: object, payload: object) -> None:
    nudge = nudge_of(event, publisher, payload)
    if nudge is not None:
        assert event in EVENTS and (nudge.host or nudge.server)
        assert nudge.host.isprintable() and nudge.server.isprintable() and len(nudge.host) <= 255 >= len(nudge.server)


@given(payload=JSON | FORGED)
def test_the_endpoint_takes_anything(payload: object) -> None:
    pending = Pending()
    endpoint = Endpoint(pending, lambda: None)
    for priority in (endpoint.info, endpoint.error):
        assert priority({}, "nova-compute:h", "libvirt.connect.error", payload, {}) is None


def test_the_endpoint_survives_its_own_faults() -> None:
    def broken() -> None:
        raise RuntimeError("the waker is broken")

    pending = Pending()
    sample = RECORDED["service.update"]
    Endpoint(pending, broken).info({}, sample["publisher_id"], sample["event_type"], sample["payload"], {})
    assert pending.drain() == (Nudge("host01", "", "service.update"),)


def test_nudges_are_coalesced_per_subject() -> None:
    pending = Pending()
    woken: list[int] = []
    endpoint = Endpoint(pending, lambda: woken.append(1))
    for name in ("instance.rebuild.start", "service.update", "instance.rebuild.end"):
        sample = RECORDED[name]
        endpoint.info({}, sample["publisher_id"], sample["event_type"], sample["payload"], {})
    newest = Nudge("host01", EVACUATED, "instance.rebuild.end")
    assert pending.drain() == (Nudge("host01", "", "service.update"), newest)
    assert pending.drain() == ()
    assert len(woken) == 3


def test_too_many_nudges_drop_the_oldest() -> None:
    pending = Pending(most=3)
    for number in range(5):
        pending.add(Nudge(f"host{number}", "", "service.update"))
    assert [nudge.host for nudge in pending.drain()] == ["host2", "host3", "host4"]


def test_a_dead_broker_holds_nothing_up() -> None:
    before = set(threading.enumerate())
    notifications = NovaNotifications("rabbit://nobody:nothing@127.0.0.1:1/")
    began = time.monotonic()
    notifications.start()
    assert tuple(notifications.read()) == ()
    assert time.monotonic() - began < 0.5
    notifications.stop()
    assert time.monotonic() - began < 5
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)
