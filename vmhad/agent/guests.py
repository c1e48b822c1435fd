# SPDX-License-Identifier: Apache-2.0
"""The guests of this host, by libvirt: events say «look now», the list of the domains says what is.

One thread serves libvirt's events, whoever connects; another one connects and lists. Events of a time without a
connection are lost, so every connection begins with the whole list. A storm of events costs a few lists a second.

Rule kept: a libvirtd that does not answer is DOWN, and its guests are not known: none of them is gone for that.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from vmhad.agent.bootclock import boot_s
from vmhad.agent.guest_states import GuestStates, Row
from vmhad.agent.own_sessions import OwnSessions
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.beat import Domain
from vmhad.kernel.signal import Reading

LOG = logging.getLogger(__name__)
SERVICE = "libvirtd"
LIST_S = 2.0
LISTS_APART_S = 0.2
# Two lists that fail to come; the keepalive has given the connection up by then.
STALE_S = 5.0
KEEPALIVE_S, KEEPALIVES = 1, 3
AGENT_PORTS_A_ROUND = 5
AGENT_PORT = "org.qemu.guest_agent.0"
# A memory page that failed under a guest is told for so long.
MEMORY_TOLD_S = 600.0


class LibvirtMissing(Exception):
    """libvirt's Python binding cannot be imported."""


def binding() -> Any:
    """The module libvirt; its errors go to our log and not to stderr. Raises LibvirtMissing."""
    try:
        import libvirt
    except ImportError as error:
        raise LibvirtMissing(str(error)) from None
    libvirt.registerErrorHandler(lambda context, error: None, None)
    return libvirt


class _Events:
    """libvirt's own event loop in a thread; it has one for the whole process."""

    _lock = threading.Lock()
    _thread: threading.Thread | None = None

    @classmethod
    def serve(cls, libvirt: Any) -> None:
        with cls._lock:
            if cls._thread is None:
                libvirt.virEventRegisterDefaultImpl()
                cls._thread = threading.Thread(target=cls._run, args=(libvirt,), name="libvirt events", daemon=True)
                cls._thread.start()

    @staticmethod
    def _run(libvirt: Any) -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError:
                # Without this thread no connection is kept alive and none is noticed to be dead.
                LOG.exception("libvirt's events could not be served; it is tried again")
                threading.Event().wait(LISTS_APART_S)


def serve_events(libvirt: Any) -> None:
    """Without it no connection that is made after this is kept alive, and none is noticed to be dead."""
    _Events.serve(libvirt)


class Guests:
    """The eye on libvirt. on_news: called from its threads when a guest's state changed."""

    def __init__(
        self,
        uri: str,
        on_news: Callable[[], None] = lambda: None,
        *,
        own_sessions: OwnSessions | None = None,
        list_s: float = LIST_S,
        stale_s: float = STALE_S,
    ) -> None:
        """Raises LibvirtMissing."""
        self._libvirt = binding()
        self._uri = uri
        self._on_news = on_news
        self._own_sessions = own_sessions or OwnSessions(())
        self._stale_s = stale_s
        self._rounds = Rounds("guests", self._look, list_s, LISTS_APART_S)
        self._link: Any = None
        self._closed = False
        self._states = GuestStates()
        # What the events say, in their order, for the thread that lists.
        self._heard: deque[Callable[[], None]] = deque(maxlen=1000)
        # Whose text is read next, first of all of those processes whose text was not read yet.
        self._ports: deque[str] = deque()
        self._unread: set[str] = set()
        self._processes: dict[str, int] = {}
        self._begun_at = boot_s()
        self._word: tuple[float, Mapping[str, Domain]] | None = None
        self._lost = False
        self._memory: tuple[float, str] | None = None

    def start(self) -> None:
        self._begun_at = boot_s()
        _Events.serve(self._libvirt)
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        word, memory = self._word, self._memory
        complaint = (memory[1],) if memory is not None and now - memory[0] <= MEMORY_TOLD_S else ()
        if word is not None and not self._lost and now - word[0] <= self._stale_s:
            return Told(services={SERVICE: Reading.UP}, domains=word[1], hardware=complaint)
        waiting = word is None and not self._lost and now - self._begun_at <= self._stale_s
        return Told(services={SERVICE: Reading.UNKNOWN if waiting else Reading.DOWN}, hardware=complaint)

    def _look(self) -> None:
        began = boot_s()
        libvirt = self._libvirt
        try:
            if self._link is None or self._closed:
                self._connect()
            flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
            listed = self._link.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, flags)
        except libvirt.libvirtError as error:
            self._lose(f"libvirt at {self._uri} does not answer: {error.get_error_message()}")
            return
        rows = [_row(domain, stats) for domain, stats in listed]
        self._states.meet(rows)
        while self._heard:
            self._heard.popleft()()
        self._read_agent_ports(rows, {row.server: domain for row, (domain, _) in zip(rows, listed, strict=True)})
        self._take(rows, began)

    def _take(self, rows: list[Row], began: float) -> None:
        old = self._word[1] if self._word is not None else {}
        domains = self._states.take(rows, began)
        if self._lost:
            LOG.info("libvirt at %s answers again", self._uri)
        changed = {server for server in {*old, *domains} if _state(old, server) is not _state(domains, server)}
        if self._word is None:
            LOG.info("libvirt at %s answers: %d guests", self._uri, len(domains))
        for server in sorted(changed if self._word is not None else ()):
            LOG.info("guest %s: %s -> %s", server, _text(old, server), _text(domains, server))
        news = bool(changed) or self._lost
        self._word, self._lost = (began, domains), False
        if news:
            self._on_news()

    def _lose(self, why: str) -> None:
        """Said once, and told with the next beat."""
        link, self._link = self._link, None
        if not self._lost:
            self._lost = True
            LOG.warning("%s", why)
            self._on_news()
        if link is not None:
            self._end(link)

    def _end(self, link: Any) -> None:
        try:
            link.close()
        except self._libvirt.libvirtError as error:
            LOG.debug("closing a lost connection: %s", error)

    def _connect(self) -> None:
        """Read-only: this eye only looks. What the gap had to say is lost, the list makes up for it."""
        libvirt = self._libvirt
        if self._link is not None:
            old, self._link = self._link, None
            self._end(old)
        link = libvirt.openReadOnly(self._uri)
        self._closed = False
        for begin in (
            lambda: link.setKeepAlive(KEEPALIVE_S, KEEPALIVES),
            lambda: link.registerCloseCallback(self._on_close, None),
        ):
            try:
                begin()
            except libvirt.libvirtError as error:
                # A driver inside this process has no connection that could break.
                LOG.debug("%s: %s", self._uri, error)
        self._heard.clear()
        for event, heard in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_any),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._on_any),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._on_disk_error),
            (libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent),
            (libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_FAILURE, self._on_memory),
        ):
            try:
                link.domainEventRegisterAny(None, event, heard, None)
            except libvirt.libvirtError as error:
                LOG.debug("%s knows no event %d: %s", self._uri, event, error)
        self._ports.clear()
        self._processes.clear()
        self._link = link

    def _read_agent_ports(self, rows: list[Row], domains: Mapping[str, Any]) -> None:
        """Whether guest agents are there is said by events and, for those that were lost, by the domain's text: of
        each process once at first, then of one guest after another. It is too long to be read of all every time."""
        running = {row.server: row.process for row in rows if row.process >= 0}
        self._unread = {server for server in self._unread if server in running}
        self._unread |= {server for server, process in running.items() if self._processes.get(server) != process}
        self._processes = running
        self._own_sessions.keep(running)
        turn = [server for server in self._ports if server in running and server not in self._unread]
        self._ports = deque([*sorted(self._unread), *turn])
        for server in list(self._ports)[: AGENT_PORTS_A_ROUND if self._unread else 1]:
            self._ports.rotate(-1)
            self._unread.discard(server)
            try:
                text = domains[server].XMLDesc(0)
            except self._libvirt.libvirtError as error:
                LOG.debug("guest %s went while it was looked at: %s", server, error)
                continue
            self._own_sessions.read(server, text)
            if (connected := _agent_port(text)) is not None:
                self._states.agent(server, connected)

    # Called by libvirt's event thread: they note and nudge, and never wait.

    def _on_any(self, link: Any, domain: Any, *what: Any) -> None:
        self._rounds.nudge()

    def _on_lifecycle(self, link: Any, domain: Any, event: int, detail: int, _: Any) -> None:
        """Nova's guests are destroyed when they panic: then only this event tells a panic from a crash."""
        libvirt = self._libvirt
        if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED):
            server = domain.UUIDString()
            self._heard.append(lambda: self._states.panic(server))
        self._rounds.nudge()

    def _on_disk_error(self, link: Any, domain: Any, source: str, disk: str, action: int, reason: str, _: Any) -> None:
        """The reason is often empty, and the action «report» is all that Nova's guests get: any error counts."""
        server, at = domain.UUIDString(), boot_s()
        self._heard.append(lambda: self._states.disk_error(server, disk, at))
        self._rounds.nudge()

    def _on_agent(self, link: Any, domain: Any, state: int, reason: int, _: Any) -> None:
        """A starting domain says «disconnected» of an agent that was never there."""
        if reason != self._libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_REASON_DOMAIN_STARTED:
            server = domain.UUIDString()
            connected = state == self._libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED
            self._heard.append(lambda: self._states.agent(server, connected))
        self._rounds.nudge()

    def _on_memory(self, link: Any, domain: Any, *what: Any) -> None:
        self._memory = (boot_s(), f"memory failed under guest {domain.UUIDString()}")
        self._rounds.nudge()

    def _on_close(self, link: Any, reason: int, _: Any) -> None:
        self._closed = True
        self._rounds.nudge()


def _row(domain: Any, stats: Mapping[str, int]) -> Row:
    return Row(domain.UUIDString(), domain.ID(), stats["state.state"], stats.get("state.reason", 0))


def _state(domains: Mapping[str, Domain], server: str) -> object:
    return domains[server].state if server in domains else None


def _text(domains: Mapping[str, Domain], server: str) -> str:
    if server not in domains:
        return "not there"
    return f"{domains[server].state.value} ({domains[server].detail})".replace(" ()", "")


def _agent_port(text: str) -> bool | None:
    """Whether the guest's agent has its port open; None where it has none, or libvirt does not say."""
    # libvirt wrote this text, not a stranger.
    for channel in ElementTree.fromstring(text).iterfind("devices/channel/target[@name='%s']" % AGENT_PORT):  # noqa: S314
        if "state" in channel.attrib:
            return channel.attrib["state"] == "connected"
    return None
