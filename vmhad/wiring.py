# SPDX-License-Identifier: Apache-2.0
"""From settings to a running engine: the only file that knows both the core and the drivers."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from stevedore import driver as stevedore_driver
from stevedore.exception import NoMatches

from vmhad.bus.transport_url import Broker, read_urls
from vmhad.conf.settings import BmcAccess, ConfigError, EngineSettings, PowerSettings, Settings
from vmhad.conf.storages_file import names_backends
from vmhad.drivers.archive import Archive
from vmhad.drivers.beats.agent_beats import AgentBeats
from vmhad.drivers.clock import SystemClock
from vmhad.drivers.compute.nova import NovaCompute
from vmhad.drivers.hands.agent_orders import AgentOrders
from vmhad.drivers.membership.tooz_ring import ToozMembership
from vmhad.drivers.nudges.nova_notifications import NovaNotifications
from vmhad.drivers.power.all_of import AllOf
from vmhad.drivers.power.by_host import ByHost
from vmhad.drivers.power.by_proxy import ByProxy
from vmhad.drivers.power.ipmi_session import Bmc
from vmhad.drivers.power.redfish_bmc import RedfishBmc
from vmhad.drivers.power.two_paths import TwoPaths
from vmhad.drivers.readiness.gates import GateProbes
from vmhad.drivers.watch.bmc_power import BmcPowerWatch, PowerReader
from vmhad.drivers.watch.nova_services import NovaServicesWatch
from vmhad.drivers.workers import ThreadWorkers
from vmhad.engine.executor import nothing_before_send
from vmhad.engine.keeping import Keeping
from vmhad.engine.loop import Engine
from vmhad.engine.timeline import Line
from vmhad.kernel.step import Step
from vmhad.ports import Power, Storage, Store, Unanswered

LOG = logging.getLogger(__name__)
TIMELINE = logging.getLogger("vmhad.timeline")


@dataclass
class Service:
    """A wired engine with the clock that its loop waits on; stop() ends every thread that was started for it."""

    engine: Engine
    clock: SystemClock
    compute: NovaCompute
    closing: ExitStack

    def stop(self) -> None:
        """Lets the segments go and ends every thread and connection. A journal that is away changes nothing in that."""
        try:
            self.engine.close()
        except Unanswered as error:
            LOG.warning("the segments could not be let go: another engine takes them when the lease is over: %s", error)
        self.closing.close()


def open_store(settings: Settings) -> Store:
    """The journal's store. Raises ConfigError where it cannot be reached or opened."""
    engine = settings.engine
    arguments, place = {
        "etcd": (
            (
                list(engine.etcd_endpoints),
                engine.call_timeout_s,
                engine.etcd_ca_file,
                engine.etcd_cert_file,
                engine.etcd_key_file,
            ),
            "[engine] etcd_endpoints",
        ),
        "sqlite": ((engine.sqlite_path,), f"[engine] sqlite_path = {engine.sqlite_path}"),
    }[engine.journal]
    try:
        store = _driver("vmhad.store", engine.journal, *arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{place} cannot be opened: {error}.") from None
    try:
        store.get("/vmhad/v1/hello")
    except Unanswered as error:
        raise ConfigError(f"{place}: the journal does not answer: {error}.") from None
    return store  # type: ignore[no-any-return]


class PolledPower(Power, Protocol):
    """What a driver of vmhad.power offers: the port, and one long session a host for polling."""

    def poll_session(self, host: str, timeout_s: float) -> PowerReader: ...


def open_power(settings: Settings, hands: AgentOrders | None = None) -> PolledPower:
    """hands: with them the hosts whose BMC only their peers reach are read and switched by those."""
    told = settings.power
    power: PolledPower = _direct_power(told, {host: bmc for host, bmc in told.bmcs.items() if not bmc.via})
    for limit_s in (told.timeout_s, told.timeout_s / 2) if hands is not None else ():
        peers = {
            host: [peer for peer in segment.names if peer != host]
            for segment in settings.segments
            for host in segment.names
            if host in told.via_agents and _limit_s(told, host) == limit_s
        }
        power = ByProxy(power, peers, hands.power, limit_s) if peers and hands is not None else power
    second = _second_paths(told)
    outlets = [host for host in second if host in told.outlets or told.second[host].outlet]
    return TwoPaths(power, ByHost(second), second, outlets) if second else power


def _second_paths(told: PowerSettings) -> dict[str, PolledPower]:
    """The other device of each host that has one, or all of its outlets together."""
    most = max(map(len, told.outlets.values()), default=0)
    parts = [
        _direct_power(told, {host: ours[number] for host, ours in told.outlets.items() if number < len(ours)})
        for number in range(most)
    ]
    together = {host: AllOf(parts[: len(ours)]) for host, ours in told.outlets.items()}
    return dict.fromkeys(told.second, _direct_power(told, told.second)) | together


def _direct_power(told: PowerSettings, bmcs: Mapping[str, BmcAccess]) -> PolledPower:
    """Each host's own driver."""
    opened: dict[str, PolledPower] = {}
    of_kind: dict[tuple[str, float], dict[str, BmcAccess]] = {}
    for host, bmc in sorted(bmcs.items()):
        of_kind.setdefault((bmc.driver, _limit_s(told, host)), {})[host] = bmc
    for (name, limit_s), ours in sorted(of_kind.items()):
        kind: type[Any] = Bmc if name == "ipmi" else RedfishBmc
        more = (told.asf_ping,) if name == "ipmi" else ()
        driver = _driver(
            "vmhad.power", name, {host: kind(**_fields(kind, bmc)) for host, bmc in ours.items()}, limit_s, *more
        )
        opened |= dict.fromkeys(ours, driver)
    return ByHost(opened)


def _limit_s(told: PowerSettings, host: str) -> float:
    """Of two paths each has half of what a call may take."""
    return told.timeout_s / 2 if host in told.second or host in told.outlets else told.timeout_s


def _fields(kind: Any, access: BmcAccess) -> dict[str, Any]:
    return {field.name: getattr(access, field.name) for field in fields(kind)}


def open_storages(settings: Settings) -> dict[str, Storage]:
    """The shared storages that can cut a host off, by name. Raises ConfigError."""
    opened: dict[str, Storage] = {}
    for one in settings.storages:
        try:
            opened[one.name] = _driver(
                "vmhad.storage", one.driver, one.name, one.settings, one.clients, settings.storage_timeout_s
            )
        except ValueError as error:
            raise ConfigError(f"storage {one.name!r} of the segments file: {error}.") from None
    return opened


def open_compute(settings: Settings) -> NovaCompute:
    nova = settings.nova
    auth = {
        "auth_url": nova.auth_url,
        "username": nova.username,
        "password": nova.password,
        "project_name": nova.project_name,
        "user_domain_name": nova.user_domain_name,
        "project_domain_name": nova.project_domain_name,
    }
    verify: bool | str = nova.cafile or True
    return NovaCompute(
        auth,
        region=nova.region_name or "",
        interface=nova.interface,
        timeout_s=nova.timeout_s,
        verify=verify,
        ask_cinder=names_backends(settings.storages),
    )


def wire(settings: Settings, before_send: Callable[[Step], None] = nothing_before_send) -> Service:
    """Opens everything and starts the watches; raises ConfigError with nothing left running."""
    with ExitStack() as opened:
        store = open_store(settings)
        clock = SystemClock()
        hands = open_hands(settings, opened)
        power = open_power(settings, hands)
        compute = open_compute(settings)
        opened.callback(compute.close)
        workers = ThreadWorkers(settings.engine.workers, clock)
        opened.callback(workers.stop)
        me = f"{settings.engine.name}-{uuid.uuid4().hex[:8]}"
        membership = ToozMembership(
            settings.engine.membership_url, me.encode(), settings.engine.membership_group, settings.engine.lease_s
        )
        opened.callback(membership.stop)
        watches = _watches(settings, compute, power, clock, opened)
        nudges = _nudges(settings, clock, opened)
        engine = Engine(
            segments=settings.segments,
            policies=settings.policies,
            store=store,
            clock=clock,
            workers=workers,
            watches=watches,
            nudges=nudges,
            beats=open_beats(settings, clock, opened),
            compute=compute,
            power=power,
            hands=hands,
            readiness=GateProbes(compute),
            storages=open_storages(settings),
            membership=membership,
            me=me,
            lease_s=settings.engine.lease_s,
            call_timeout_s=_longest_call_s(settings),
            timeline=_timeline(settings.engine.timeline_file, compute),
            before_send=before_send,
            keeping=_keeping(settings.engine),
        )
        return Service(engine, clock, compute, opened.pop_all())
    raise AssertionError("unreachable: an ExitStack without exits swallows nothing")


def _keeping(told: EngineSettings) -> Keeping:
    """Raises ConfigError: a directory that cannot be written would keep the journal growing."""
    path = told.certificate_dir
    if path and not (os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)):
        raise ConfigError(f"[engine] certificate_dir = {path} is no directory that can be written.")
    export = Archive(path).put if path else None
    return Keeping(told.keep_incidents_days * 86400.0, told.keep_incidents_max, export)


def _longest_call_s(settings: Settings) -> float:
    storage_s = settings.storage_timeout_s if settings.storages else 0.0
    return max(settings.engine.call_timeout_s, settings.nova.timeout_s, settings.power.timeout_s, storage_s)


def _watches(
    settings: Settings, compute: NovaCompute, power: PolledPower, clock: SystemClock, opened: ExitStack
) -> tuple[NovaServicesWatch | BmcPowerWatch, ...]:
    hosts = sorted(host for segment in settings.segments for host in segment.names)
    pace = settings.power
    nova_watch = NovaServicesWatch(compute, hosts, clock, settings.nova.poll_interval_s)
    power_watch = BmcPowerWatch(
        lambda host: power.poll_session(host, pace.poll_timeout_s),
        [host for host in hosts if host in pace.bmcs],
        clock,
        pace.poll_interval_s,
        pace.poll_workers,
        pace.reads_per_s_max,
    )
    for watch in (nova_watch, power_watch):
        watch.start()
        opened.callback(watch.stop)
    return nova_watch, power_watch


def _nudges(settings: Settings, clock: SystemClock, opened: ExitStack) -> tuple[NovaNotifications, ...]:
    told = settings.notifications
    sources = []
    for url in told.transport_urls:
        source = NovaNotifications(
            url,
            topic=told.topic,
            exchange=told.exchange,
            durable=told.durable_queues,
            quorum=told.quorum_queues,
            wake=clock.wake,
        )
        source.start()
        opened.callback(source.stop)
        sources.append(source)
    return tuple(sources)


def open_beats(settings: Settings, clock: SystemClock, opened: ExitStack) -> tuple[AgentBeats, ...]:
    """One ear over all brokers; none where no agents are listened to. Raises ConfigError."""
    told = settings.agents
    if not told.enabled:
        return ()
    beats = AgentBeats(
        _brokers(settings),
        [segment.name for segment in settings.segments],
        [host for segment in settings.segments for host in segment.names],
        told.master_keys,
        clock,
        replay_window_s=told.replay_window_s,
    )
    beats.start()
    opened.callback(beats.stop)
    return (beats,)


def open_hands(settings: Settings, opened: ExitStack) -> AgentOrders | None:
    """None where no agents are listened to. Raises ConfigError."""
    if not settings.agents.enabled:
        return None
    hosts = [host for segment in settings.segments for host in segment.names]
    limit_s = settings.engine.call_timeout_s
    hands = AgentOrders(_brokers(settings), hosts, settings.agents.master_keys, limit_s=limit_s)
    opened.callback(hands.stop)
    return hands


def _brokers(settings: Settings) -> list[Broker]:
    try:
        return read_urls(settings.agents.transport_urls, settings.agents.ca_file)
    except ValueError as error:
        raise ConfigError(f"[agents] transport_urls: {error}.") from None


def _timeline(path: str, compute: NovaCompute) -> Callable[[Line], None]:
    """To the log, and to a file that has with each line how many requests went to Nova so far."""

    def write(line: Line) -> None:
        TIMELINE.info("%s %s %s", line.subject, line.word, line.text)
        if path:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(line) | {"nova_calls": compute.calls_made}) + "\n")

    if path:
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            open(path, "a", encoding="utf-8").close()
        except OSError as error:
            raise ConfigError(f"[engine] timeline_file = {path} cannot be written: {error.strerror}.") from None
    return write


def _driver(namespace: str, name: str, *args: Any) -> Any:
    """Raises ConfigError for a name that no installed package offers."""
    try:
        found: Any = stevedore_driver.DriverManager(namespace, name, invoke_on_load=False)
    except NoMatches:
        raise ConfigError(f"no driver named {name!r} is installed for {namespace}.") from None
    return found.driver(*args)
