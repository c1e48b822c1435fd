# SPDX-License-Identifier: Apache-2.0
"""Nova's versioned notifications as nudges: «look now», whatever they claim.

A notification may be lost, late, doubled or forged, so it says where to look, and nothing it says is believed before it
was read. The listener never raises into the messaging library and never asks for a message again: a message that
cannot be read would come back for ever. A broker that is away costs latency only; it never holds up a start or a read.

The process must have chosen oslo.service's threading backend before this module is imported.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import oslo_messaging
from oslo_config import cfg
from oslo_messaging import opts as messaging_opts

from vmhad.ports import Nudge

LOG = logging.getLogger(__name__)
PREFETCH = 64
LISTENER_THREADS = 2
PENDING_MAX = 10_000
RETRY_S = 10.0
STOP_WITHIN_S = 3.0
NAME_MAX = 255
COMPUTE = "nova-compute:"

EVENTS = frozenset(
    {
        "service.create",
        "service.update",
        "service.delete",
        "instance.power_off.end",
        "instance.evacuate",
        "instance.rebuild_scheduled",
        "instance.rebuild.start",
        "instance.rebuild.end",
        "instance.rebuild.error",
        "instance.create.end",
        "instance.delete.end",
        "instance.live_migration_post.end",
        "instance.live_migration_post_dest.end",
        "instance.live_migration_rollback.end",
        "instance.live_migration_rollback_dest.end",
        "compute_task.rebuild_server.error",
        "libvirt.connect.error",
    }
)


class Listener(Protocol):
    """What is used of oslo.messaging's notification listener."""

    def start(self, override_pool_size: int | None = None) -> object: ...

    def stop(self) -> object: ...

    def wait(self) -> object: ...


def nudge_of(event_type: object, publisher_id: object, payload: object) -> Nudge | None:
    """The nudge in one notification, None if it is not of interest or not to be understood. Never raises.

    The host is the payload's (for an evacuation: the one it left); an event about a hypervisor has only its
    publisher's, and «no host was found» names none.
    """
    if not isinstance(event_type, str) or event_type not in EVENTS:
        return None
    data = payload.get("nova_object.data") if isinstance(payload, Mapping) else None
    if not isinstance(data, Mapping):
        return None
    if event_type.startswith("service.") and data.get("binary") != "nova-compute":
        return None
    server = ""
    if not event_type.startswith("service."):
        server = _name(data.get("uuid") or data.get("instance_uuid"))
    host = _name(data.get("host"))
    if not host and event_type == "libvirt.connect.error":
        host = _host_of_compute(publisher_id)
    return Nudge(host, server, event_type) if host or server else None


def _host_of_compute(publisher_id: object) -> str:
    if not isinstance(publisher_id, str) or not publisher_id.startswith(COMPUTE):
        return ""
    return _name(publisher_id.removeprefix(COMPUTE))


def _name(value: object) -> str:
    """A host's name or a server's id; '' for what can be neither."""
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX or not value.isprintable():
        return ""
    return value


class Pending:
    """The nudges not read yet: one per subject, the newest wins, the oldest gives way when there are too many."""

    def __init__(self, most: int = PENDING_MAX) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._nudges: dict[tuple[str, str], Nudge] = {}

    def add(self, nudge: Nudge) -> None:
        subject = (nudge.host, nudge.server)
        with self._lock:
            self._nudges.pop(subject, None)
            self._nudges[subject] = nudge
            while len(self._nudges) > self._most:
                del self._nudges[next(iter(self._nudges))]

    def drain(self) -> tuple[Nudge, ...]:
        """Oldest first."""
        with self._lock:
            nudges = tuple(self._nudges.values())
            self._nudges.clear()
        return nudges


class Endpoint:
    """What oslo.messaging calls, in its own threads: one method per queue that is listened to."""

    def __init__(self, pending: Pending, wake: Callable[[], object]) -> None:
        self._pending = pending
        self._wake = wake

    def info(self, ctxt: object, publisher_id: object, event_type: object, payload: object, metadata: object) -> None:
        try:
            nudge = nudge_of(event_type, publisher_id, payload)
            if nudge is not None:
                self._pending.add(nudge)
                self._wake()
        except Exception:
            LOG.exception("A notification could not be taken in; it is dropped, the polls will tell.")

    error = info


class NovaNotifications:
    """ports.Nudges over one topic that Nova writes a copy of its versioned notifications to.

    durable, quorum: as Nova's own amqp_durable_queues and rabbit_quorum_queue, else the broker refuses the queue.
    ca_file: speak TLS and trust this CA. wake: called, from another thread, when a nudge has come.
    Several engines may listen: each notification reaches one of them.
    """

    def __init__(
        self,
        transport_url: str,
        *,
        topic: str = "vmhad_notifications",
        exchange: str = "nova",
        durable: bool = False,
        quorum: bool = False,
        ca_file: str = "",
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        self._wake = wake
        self._transport_url = transport_url
        self._target = oslo_messaging.Target(topic=topic, exchange=exchange)
        self._rabbit = {
            "amqp_durable_queues": durable,
            "rabbit_quorum_queue": quorum,
            "rabbit_qos_prefetch_count": PREFETCH,
            "kombu_reconnect_delay": 1.0,
        } | ({"ssl": True, "ssl_ca_file": ca_file} if ca_file else {})
        self._pending = Pending()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Returns at once; connecting goes on in a thread of its own for as long as it takes."""
        if self._thread is None:
            self._ending = threading.Event()
            self._thread = threading.Thread(
                target=self._listen, args=(self._ending,), name="nova-notifications", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Returns within a few seconds, also while the broker is away."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(STOP_WITHIN_S)
            self._thread = None

    def read(self) -> Iterable[Nudge]:
        return self._pending.drain()

    def _listen(self, ending: threading.Event) -> None:
        """Tries for a listener until there is one; from then on oslo.messaging reconnects by itself."""
        said = False
        while not ending.is_set():
            try:
                transport, listener = self._connect()
            except Exception as exc:
                if not said:
                    LOG.warning("Nova's notifications cannot be listened to: %s. Trying on.", _why(exc))
                    said = True
                ending.wait(RETRY_S)
                continue
            LOG.info("Listening to Nova's notifications on topic %s.", self._target.topic)
            ending.wait()
            _close(listener, transport)

    def _connect(self) -> tuple[Any, Listener]:
        """Blocks while no broker answers; raises what the broker refuses."""
        conf = cfg.ConfigOpts()
        conf([], project="vmhad", default_config_files=[], default_config_dirs=[])
        conf.register_opts(dict(messaging_opts.list_opts())["oslo_messaging_rabbit"], group="oslo_messaging_rabbit")
        for option, value in self._rabbit.items():
            conf.set_override(option, value, group="oslo_messaging_rabbit")
        transport = oslo_messaging.get_notification_transport(conf, url=self._transport_url)
        try:
            listener: Listener = oslo_messaging.get_notification_listener(
                transport, [self._target], [Endpoint(self._pending, self._wake)], allow_requeue=False
            )
            listener.start(override_pool_size=LISTENER_THREADS)
        except BaseException:
            transport.cleanup()
            raise
        return transport, listener


def _why(exc: Exception) -> str:
    """In words that cannot hold the transport URL's password."""
    if "PRECONDITION_FAILED" in str(exc):
        return "the queue or exchange exists with another durability; durable and quorum must be as Nova's own"
    return type(exc).__name__


def _close(listener: Listener, transport: Any) -> None:
    try:
        listener.stop()
        listener.wait()
        transport.cleanup()
    except Exception as exc:
        LOG.info("The listener to Nova's notifications ended untidily (%s).", type(exc).__name__)
