# SPDX-License-Identifier: Apache-2.0
"""The services of this host as its systemd sees them, over D-Bus, and their restart.

Where there is no systemd, or it does not answer, a service is UNKNOWN. So it is while it changes: a service that is
being started is neither up nor down.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from vmhad.agent.bootclock import boot_s
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.beat import Unit, UnitState
from vmhad.kernel.signal import Reading

LOG = logging.getLogger(__name__)
SYSTEMD = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=SYSTEMD, interface=f"{SYSTEMD}.Manager")
CALL_S = 2.0
STALE_S = 5.0
RUNS = ("active", "reloading")
CLEAN = "success"
KEPT_OFF = ("disabled", "masked", "masked-runtime")
# systemd itself stops what did not answer its watchdog, or lost a process to the lack of memory.
BY_SYSTEMD = ("watchdog", "oom-kill")
STOP_ORDERED = "a stop was ordered"


class Unheard(Exception):
    """systemd cannot be asked, or did not do as it was told; says nothing about the effect."""


class Words(NamedTuple):
    """What systemd's list says of one unit, in its words. job: of the job that it has queued or runs, '' if none."""

    loaded: str
    state: str
    sub_state: str
    path: str
    job: str


class Systemd:
    """This host's systemd. For one thread. bus: an address of D-Bus, or «SYSTEM»."""

    def __init__(self, bus: str = "SYSTEM") -> None:
        self._bus = bus
        self._link: DBusConnection | None = None

    def states(self, units: Iterable[str]) -> dict[str, tuple[str, str, str]]:
        """Unit -> (whether it is loaded, its state, its sub-state), in systemd's words. Raises Unheard."""
        return {unit: words[:3] for unit, words in self.words(units).items()}

    def words(self, units: Iterable[str]) -> dict[str, Words]:
        """Raises Unheard."""
        (rows,) = self._call(MANAGER, "ListUnitsByNames", "as", (list(units),))
        return {row[0]: Words(*row[2:5], row[6], row[8]) for row in rows}

    def unit(self, words: Words) -> Unit:
        """How it is now; since when is not for systemd to say, whose clock stands still while a host sleeps. Raises
        Unheard."""
        if words.loaded not in ("loaded", "masked"):
            return Unit(UnitState.OTHER, words.loaded)
        invocation = bytes(self._property(words.path, "Unit", "InvocationID")).hex()
        if words.state in RUNS:
            return Unit(UnitState.RUNS, invocation=invocation)
        result = str(self._property(words.path, "Service", "Result"))
        by_file, state = str(self._property(words.path, "Unit", "UnitFileState")), _state(words, result)
        kept_off = by_file if by_file in KEPT_OFF else ""
        if state is UnitState.FAILED and not kept_off and self._was_stopped(words, result):
            kept_off = STOP_ORDERED
        return Unit(state, result, kept_off, invocation)

    def _was_stopped(self, words: Words, result: str) -> bool:
        """A unit that somebody stops leaves «active» before its main process ends, one that dies after it; and systemd
        knows so after any stop, however short, whoever looked. Before the process began it was another one."""
        if result in BY_SYSTEMD:
            return False
        names = ("ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic")
        began, ended = (int(self._property(words.path, "Service", name)) for name in names)
        return began < int(self._property(words.path, "Unit", "ActiveExitTimestampMonotonic")) < ended

    def invocation(self, unit: str) -> str:
        """The id that systemd drew for this start of the unit; '' if it never started. Raises Unheard."""
        (path,) = self._call(MANAGER, "LoadUnit", "s", (unit,))
        return bytes(self._property(path, "Unit", "InvocationID")).hex()

    def restart(self, unit: str) -> None:
        """Returns when systemd has taken the order. Raises Unheard."""
        self._call(MANAGER, "RestartUnit", "ss", (unit, "replace"))

    def _property(self, path: str, of: str, name: str) -> Any:
        properties = DBusAddress(path, bus_name=SYSTEMD, interface="org.freedesktop.DBus.Properties")
        ((_, value),) = self._call(properties, "Get", "ss", (f"{SYSTEMD}.{of}", name))
        return value

    def _call(self, whom: DBusAddress, method: str, signature: str, body: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            if self._link is None:
                self._link = open_dbus_connection(bus=self._bus)
            reply = self._link.send_and_get_reply(new_method_call(whom, method, signature, body), timeout=CALL_S)
            answer: tuple[Any, ...] = unwrap_msg(reply)
        except DBusErrorResponse as error:
            raise Unheard(f"systemd refused {method}: {error.name}") from None
        except Exception as error:
            # jeepney tells a broken bus by errors of many kinds; after any of them the connection is not to be used.
            self._drop()
            raise Unheard(f"systemd was not reached: {type(error).__name__} {error}") from None
        return answer

    def close(self) -> None:
        """It opens its connection again when it is asked again."""
        self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


class Services:
    """The eye on systemd. units: service, as a beat calls it -> unit."""

    def __init__(self, units: Mapping[str, str], systemd: Systemd, *, interval_s: float = 1.0) -> None:
        self._units = dict(units)
        self._systemd = systemd
        self._rounds = Rounds("services", self._look, interval_s)
        self._word: tuple[float, Told] | None = None
        self._known: dict[str, Unit] = {}
        self._ordered: set[str] = set()
        self._unheard = False

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        if self._word is not None and now - self._word[0] <= STALE_S:
            return self._word[1]
        return Told(services=dict.fromkeys(self._units, Reading.UNKNOWN))

    def _look(self) -> None:
        began = boot_s()
        try:
            words = self._systemd.words(self._units.values())
            for service, unit in sorted(self._units.items()):
                self._note(service, words[unit], began)
        except Unheard as error:
            if not self._unheard:
                LOG.warning("the services of this host are not known: %s", error)
            self._unheard, self._word = True, None
            return
        self._unheard = False
        readings = {service: reading(*words[unit][:3]) for service, unit in sorted(self._units.items())}
        self._word = began, Told(services=readings, units=dict(self._known))

    def _note(self, service: str, words: Words, now: float) -> None:
        """A stop that somebody ordered may end as a failure, of a service that has to be killed, say."""
        unit = self._systemd.unit(words)
        if words.job == "stop":
            self._ordered.add(service)
        elif unit.state is UnitState.RUNS:
            self._ordered.discard(service)
        if unit.state is UnitState.FAILED and service in self._ordered:
            unit = replace(unit, kept_off=unit.kept_off or STOP_ORDERED)
        old = self._known.get(service)
        if old is None or replace(old, since_s=0.0) != unit:
            self._known[service] = replace(unit, since_s=now)


def _state(words: Words, result: str) -> UnitState:
    """Of one that does not run. Before it was ever started it is as clean as after a stop."""
    if words.sub_state.startswith("auto-restart"):
        return UnitState.WAITS
    if words.job or words.state in ("activating", "deactivating"):
        return UnitState.CHANGING
    if words.state == "failed" or (words.state == "inactive" and result != CLEAN):
        return UnitState.FAILED
    return UnitState.STOPPED if words.state == "inactive" else UnitState.OTHER


def reading(loaded: str, state: str, sub_state: str) -> Reading:
    """What systemd's words say. A unit that it waits with before it starts it again is down."""
    if loaded != "loaded":
        return Reading.UNKNOWN
    if state in RUNS:
        return Reading.UP
    if state in ("inactive", "failed") or sub_state.startswith("auto-restart"):
        return Reading.DOWN
    return Reading.UNKNOWN


def restart(systemd: Systemd, unit: str, known: str) -> str:
    """The act of an order to restart. known: the invocation that whoever gave the order saw; one that runs since then
    is left alone, so that an order that comes late or twice harms nobody, and so is what somebody stops or stopped
    meanwhile.
    Answers '' or why it was left alone. Raises Unheard."""
    if systemd.invocation(unit) != known:
        return f"another start of {unit} runs than the one that was seen"
    now = systemd.unit(systemd.words([unit])[unit])
    if now.is_wanted_off:
        return f"somebody stopped {unit}: it is {now.state.value} ({now.kept_off or now.detail})"
    if now.state is UnitState.CHANGING:
        # Ours would take the place of a stop that is under way.
        return f"{unit} is just being started or stopped"
    systemd.restart(unit)
    return ""


def restarted(systemd: Systemd, unit: str, known: str) -> Reading:
    """Its probe: UP where another invocation than the known one runs."""
    try:
        if systemd.invocation(unit) == known:
            return Reading.DOWN
        return reading(*systemd.states([unit])[unit])
    except Unheard:
        return Reading.UNKNOWN
