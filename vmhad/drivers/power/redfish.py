# SPDX-License-Identifier: Apache-2.0
"""Power of hosts by Redfish.

The rule kept: a service that is silent, wrong, garbled, not trusted, or perhaps another host's says UNKNOWN when read,
and is never told to switch. Texts are made here from the kind of failure, never from a library's message, and what is
raised carries nothing of the library's with it, so no secret can be in one.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping

import requests
from sushy.exceptions import AccessError, HTTPError, MissingActionError
from sushy.resources.system.system import System

from vmhad.drivers.power.ipmi_session import bare_guid, guid_spellings
from vmhad.drivers.power.redfish_bmc import RedfishBmc
from vmhad.drivers.power.redfish_session import NoTrust, NotThisSystem, Outlet, RedfishSession, is_on, switch
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

__all__ = ["PollSession", "Redfish", "RedfishBmc"]

# How much of a poll's time a kept connection gets before it is taken for lost: the BMC may have been restarted.
KEPT_SHARE = 0.4
# What OpenSSL calls the ways in which a certificate is no good.
CERTIFICATE_FAULTS = {9: "is not valid yet", 10: "has expired", 62: "is another name's", 64: "is another address's"}


class Redfish:
    """ports.Power. Every call makes a connection of its own, so calls for any hosts may run at the same time."""

    def __init__(self, bmcs: Mapping[str, RedfishBmc], timeout_s: float = 5.0) -> None:
        """timeout_s: over the whole of a call."""
        self._bmcs = dict(bmcs)
        self._timeout_s = timeout_s

    def read(self, host: str) -> tuple[Reading, str]:
        if host not in self._bmcs:
            return Reading.UNKNOWN, f"no BMC is configured for {host}"
        poll = PollSession(self._bmcs[host], self._timeout_s)
        try:
            return poll.read()
        finally:
            poll.close()

    def off(self, host: str) -> None:
        """Raises Refused where it is certain that nothing was switched, Unanswered otherwise."""
        self._switch(host, on=False)

    def on(self, host: str) -> None:
        """Raises Refused where it is certain that nothing was switched, Unanswered otherwise."""
        self._switch(host, on=True)

    def poll_session(self, host: str, timeout_s: float = 2.0) -> PollSession:
        """A reader of one host that keeps its connection. Raises KeyError where the host has no BMC."""
        return PollSession(self._bmcs[host], timeout_s)

    def _switch(self, host: str, on: bool) -> None:
        bmc = self._bmcs.get(host)
        if bmc is None:
            raise Refused(f"no BMC is configured for {host}")
        failure = _tried(bmc, time.monotonic() + self._timeout_s, on)
        if failure is not None:
            raise failure


class PollSession:
    """Reads one host's power again and again over one connection; makes a new one after any trouble. For one thread
    at a time."""

    def __init__(self, bmc: RedfishBmc, timeout_s: float) -> None:
        self._bmc = bmc
        self._timeout_s = timeout_s
        self._session: RedfishSession | None = None

    def read(self) -> tuple[Reading, str]:
        """As ports.Power.read; ends within timeout_s."""
        began = time.monotonic()
        try:
            if self._session is not None:
                self._session.allow_until(began + self._timeout_s * KEPT_SHARE)
                try:
                    return _seen(self._bmc, self._session)
                except Exception:
                    self.close()
            self._session = RedfishSession(self._bmc, began + self._timeout_s)
            return _seen(self._bmc, self._session)
        except Exception as error:
            self.close()
            return Reading.UNKNOWN, f"BMC {self._bmc.place}: {_words(error)}"

    def close(self) -> None:
        """Never raises."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _tried(bmc: RedfishBmc, deadline: float, on: bool) -> Refused | Unanswered | None:
    """Switches, and says what went wrong. The caller raises it, so that it has no frame of the library's in it."""
    session = None
    try:
        session = RedfishSession(bmc, deadline)
        _command(bmc, session, on)
    except Exception as error:
        return (Refused if _said_no(error) else Unanswered)(f"BMC {bmc.place}: {_words(error)}")
    finally:
        if session is not None:
            session.close()
    return None


def _command(bmc: RedfishBmc, session: RedfishSession, on: bool) -> None:
    """Sent also where it is so already: a BMC's word alone is no reason to leave it."""
    system = _right_one(bmc, session)
    try:
        switch(system, on)
    except HTTPError as error:
        # Many BMCs call it an error to switch off what is off. It is looked at again, not taken at its word.
        if isinstance(error, AccessError) or is_on(_right_one(bmc, session)) is not on:
            raise


def _right_one(bmc: RedfishBmc, session: RedfishSession) -> System | Outlet:
    """The system that is the host's as far as it can be known."""
    system = session.system()
    if not bmc.guid:
        return system
    if not isinstance(system.uuid, str) or not system.uuid:
        raise NotThisSystem(f"shows no UUID, host's is {bmc.guid}")
    try:
        shown = bare_guid(system.uuid)
    except ValueError:
        raise NotThisSystem(f"shows a UUID that is none, host's is {bmc.guid}") from None
    if bare_guid(bmc.guid) not in guid_spellings(bytes.fromhex(shown)):
        raise NotThisSystem(f"answers with UUID {shown}, host's is {bmc.guid}")
    return system


def _seen(bmc: RedfishBmc, session: RedfishSession) -> tuple[Reading, str]:
    system = _right_one(bmc, session)
    on = is_on(system)
    if on is None:
        return Reading.UNKNOWN, f"BMC {bmc.place} does not say how its power stands"
    return (Reading.ON if on else Reading.OFF), f"BMC {bmc.place} says power {'on' if on else 'off'}"


def _said_no(error: Exception) -> bool:
    """Whether it is certain that nothing was switched: it was declined, or never asked."""
    if isinstance(error, HTTPError):
        return 400 <= error.status_code < 500
    if isinstance(error, (NotThisSystem, NoTrust, MissingActionError)):
        return True
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _words(error: Exception) -> str:
    """What went wrong, without one word of the library's."""
    causes = list(_causes(error))
    for one in causes:
        match one:
            case NotThisSystem() | NoTrust():
                return str(one)
            case ssl.SSLCertVerificationError():
                return f"its certificate {CERTIFICATE_FAULTS.get(one.verify_code, 'is not trusted')}"
            case HTTPError():
                return _status(one)
            case MissingActionError():
                return "offers no way to switch power"
            case TimeoutError() | requests.Timeout():
                return "no answer"
            case ConnectionRefusedError():
                return "connection refused"
    if any(isinstance(one, ssl.SSLError) for one in causes):
        return "answered garbage, or no TLS that is known here"
    for one in causes:
        if isinstance(one, OSError) and one.strerror:
            return f"network error: {one.strerror}"
    return f"answered garbage ({type(error).__name__})"


def _status(error: HTTPError) -> str:
    known = {401: "authentication failed (wrong password?)", 403: "its user may not do that", 404: "has no such system"}
    return known.get(error.status_code, f"declined with HTTP status {error.status_code}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it was made of, each once."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
