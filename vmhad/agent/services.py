# SPDX-License-Identifier: Apache-2.0
"""The services of this host as its systemd sees them, over D-Bus, and their restart.

Where there is no systemd, or it does not answer, a service is UNKNOWN. So it is while it changes: a service that is
being started is neither up nor down.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from jeepney import DBusAddress, DBusErrorResponse, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.wrappers import unwrap_msg

from vmhad.agent.bootclock import boot_s
from vmhad.agent.told import Rounds, Told
from vmhad.kernel.signal import Reading

LOG = logging.getLogger(__name__)
SYSTEMD = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", bus_name=SYSTEMD, interface=f"{SYSTEMD}.Manager")
CALL_S = 2.0
STALE_S = 5.0


class Unheard(Exception):
    """systemd cannot be asked, or did not do as it was told; says nothing about the effect."""


class Systemd:
    """This host's systemd. For one thread. bus: an address of D-Bus, or «SYSTEM»."""

    def __init__(self, bus: str = "SYSTEM") -> None:
        self._bus = bus
        self._link: DBusConnection | None = None

    def states(self, units: Iterable[str]) -> dict[str, tuple[str, str, str]]:
        """Unit -> (whether it is loaded, its state, its sub-state), in systemd's words. Raises Unheard."""
        (rows,) = self._call(MANAGER, "ListUnitsByNames", "as", (list(units),))
        return {row[0]: (row[2], row[3], row[4]) for row in rows}

    def invocation(self, unit: str) -> str:
        """The id that systemd drew for this start of the unit; '' if it never started. Raises Unheard."""
        (path,) = self._call(MANAGER, "LoadUnit", "s", (unit,))
        properties = DBusAddress(path, bus_name=SYSTEMD, interface="org.freedesktop.DBus.Properties")
        ((_, drawn),) = self._call(properties, "Get", "ss", (f"{SYSTEMD}.Unit", "InvocationID"))
        return bytes(drawn).hex()

    def restart(self, unit: str) -> None:
        """Returns when systemd has taken the order. Raises Unheard."""
        self._call(MANAGER, "RestartUnit", "ss", (unit, "replace"))

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
        self._word: tuple[float, Mapping[str, Reading]] | None = None
        self._unheard = False

    def start(self) -> None:
        self._rounds.start()

    def stop(self) -> None:
        self._rounds.stop()

    def tell(self, now: float) -> Told:
        if self._word is not None and now - self._word[0] <= STALE_S:
            return Told(services=self._word[1])
        return Told(services=dict.fromkeys(self._units, Reading.UNKNOWN))

    def _look(self) -> None:
        began = boot_s()
        try:
            states = self._systemd.states(self._units.values())
        except Unheard as error:
            if not self._unheard:
                LOG.warning("the services of this host are not known: %s", error)
            self._unheard, self._word = True, None
            return
        self._unheard = False
        self._word = (began, {service: reading(*states[unit]) for service, unit in sorted(self._units.items())})


def reading(loaded: str, state: str, sub_state: str) -> Reading:
    """What systemd's words say. A unit that it waits with before it starts it again is down."""
    if loaded != "loaded":
        return Reading.UNKNOWN
    if state in ("active", "reloading"):
        return Reading.UP
    if state in ("inactive", "failed") or sub_state == "auto-restart":
        return Reading.DOWN
    return Reading.UNKNOWN


def restart(systemd: Systemd, unit: str, known: str) -> None:
    """The act of an order to restart. known: the invocation that whoever gave the order saw; one that runs since then
    is left alone, so that an order that comes late or twice harms nobody. Raises Unheard."""
    if systemd.invocation(unit) == known:
        systemd.restart(unit)


def restarted(systemd: Systemd, unit: str, known: str) -> Reading:
    """Its probe: UP where another invocation than the known one runs."""
    try:
        if systemd.invocation(unit) == known:
            return Reading.DOWN
        return reading(*systemd.states([unit])[unit])
    except Unheard:
        return Reading.UNKNOWN
