# SPDX-License-Identifier: Apache-2.0
"""Power of hosts by IPMI 2.0.

The rule kept: a BMC that is silent, wrong, garbled, or perhaps another host's says UNKNOWN when read, and is never told
to switch. Texts are made here from the kind of failure, never from a library's message, and what is raised carries
nothing of the library's with it, so no secret can be in one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pyipmi.errors import (
    AuthenticationError,
    CompletionCodeError,
    DecodingError,
    IpmiConnectionError,
    IpmiLongPasswordError,
    MessageStatusCodeError,
    NotSupportedError,
    RetryError,
)

from vmhad.drivers.power.ipmi_session import ABANDON_S, CLOSE_S, Bmc, IpmiSession, bare_guid, guid_spellings
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

__all__ = ["Bmc", "Ipmi", "PollSession"]

# The command cannot be done in the present state, which for a power command means: it is so already.
CC_NOT_IN_THIS_STATE = 0xD5
# Completion codes that say the command was not begun. Any other may hide an effect.
CC_NOT_BEGUN = frozenset({0xC1, 0xC2, 0xC7, 0xC8, 0xC9, 0xCC, 0xD4, 0xD6})
# How much of a poll's time a kept session gets before it is taken for lost: the BMC may have forgotten it by a reboot.
KEPT_SHARE = 0.4


class _WrongBmc(Exception):
    """The BMC is not the one that was configured, or cannot show that it is."""


class Ipmi:
    """ports.Power. Every call opens a session of its own, so calls for any hosts may run at the same time."""

    def __init__(self, bmcs: Mapping[str, Bmc], timeout_s: float = 5.0, asf_ping: bool = False) -> None:
        """timeout_s: over the whole of a call. asf_ping: ask for the RMCP pong first, which many BMCs never send."""
        self._bmcs = dict(bmcs)
        self._timeout_s = timeout_s
        self._asf_ping = asf_ping

    def read(self, host: str) -> tuple[Reading, str]:
        bmc = self._bmcs.get(host)
        if bmc is None:
            return Reading.UNKNOWN, f"no BMC is configured for {host}"
        session = None
        try:
            session = _open(bmc, self._deadline(), self._asf_ping)
            return _seen(bmc, session)
        except Exception as error:
            return Reading.UNKNOWN, _words(bmc, error)
        finally:
            if session is not None:
                session.close()

    def off(self, host: str) -> None:
        """Raises Refused where it is certain that nothing was switched, Unanswered otherwise."""
        self._switch(host, IpmiSession.power_down, wanted_on=False)

    def on(self, host: str) -> None:
        """Raises Refused where it is certain that nothing was switched, Unanswered otherwise."""
        self._switch(host, IpmiSession.power_up, wanted_on=True)

    def poll_session(self, host: str, timeout_s: float = 2.0) -> PollSession:
        """A reader of one host that keeps its session. Raises KeyError where the host has no BMC."""
        return PollSession(self._bmcs[host], timeout_s, self._asf_ping)

    def _deadline(self) -> float:
        return time.monotonic() + max(self._timeout_s - CLOSE_S, self._timeout_s / 2)

    def _switch(self, host: str, command: Callable[[IpmiSession], None], wanted_on: bool) -> None:
        bmc = self._bmcs.get(host)
        if bmc is None:
            raise Refused(f"no BMC is configured for {host}")
        failure = _tried(bmc, self._deadline(), self._asf_ping, command, wanted_on)
        if failure is not None:
            raise failure


class PollSession:
    """Reads one host's power again and again over one session; opens it anew after any trouble. For one thread."""

    def __init__(self, bmc: Bmc, timeout_s: float, asf_ping: bool = False) -> None:
        self._bmc = bmc
        self._timeout_s = timeout_s
        self._asf_ping = asf_ping
        self._session: IpmiSession | None = None

    def read(self) -> tuple[Reading, str]:
        """As ports.Power.read; ends within timeout_s."""
        began = time.monotonic()
        try:
            if self._session is not None:
                self._session.allow_until(began + self._timeout_s * KEPT_SHARE)
                try:
                    return _seen(self._bmc, self._session)
                except Exception:
                    self._drop()
            limit_s = max(self._timeout_s - 2 * ABANDON_S, self._timeout_s / 2)
            self._session = _open(self._bmc, began + limit_s, self._asf_ping)
            return _seen(self._bmc, self._session)
        except Exception as error:
            self._drop()
            return Reading.UNKNOWN, _words(self._bmc, error)

    def close(self) -> None:
        """Never raises."""
        self._drop()

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close(ABANDON_S)


_SAID_NO_AT_OPEN = (
    AuthenticationError,
    CompletionCodeError,
    IpmiLongPasswordError,
    MessageStatusCodeError,
    NotSupportedError,
    _WrongBmc,
)


def _tried(
    bmc: Bmc, deadline: float, asf_ping: bool, command: Callable[[IpmiSession], None], wanted_on: bool
) -> Refused | Unanswered | None:
    """Switches, and says what went wrong. The caller raises it, so that it has no frame of the library's in it, where
    the password is."""
    try:
        session = _open(bmc, deadline, asf_ping)
    except Exception as error:
        return (Refused if isinstance(error, _SAID_NO_AT_OPEN) else Unanswered)(_words(bmc, error))
    try:
        _command(session, command, wanted_on)
    except Exception as error:
        declined = isinstance(error, CompletionCodeError) and (error.cc in CC_NOT_BEGUN | {CC_NOT_IN_THIS_STATE})
        return (Refused if declined else Unanswered)(_words(bmc, error))
    finally:
        session.close()
    return None


def _open(bmc: Bmc, deadline: float, asf_ping: bool) -> IpmiSession:
    """A session with a BMC that is the right one as far as it can be known."""
    session = IpmiSession(bmc, deadline, asf_ping)
    if not bmc.guid:
        return session
    try:
        raw = session.guid()
        if raw is None:
            raise _WrongBmc(f"shows no GUID, host's is {bmc.guid}")
        if bare_guid(bmc.guid) not in guid_spellings(raw):
            raise _WrongBmc(f"answers with GUID {raw.hex()}, host's is {bmc.guid}")
    except BaseException:
        session.close()
        raise
    return session


def _seen(bmc: Bmc, session: IpmiSession) -> tuple[Reading, str]:
    if session.power_is_on():
        return Reading.ON, f"BMC {bmc.place} says power on"
    return Reading.OFF, f"BMC {bmc.place} says power off"


def _command(session: IpmiSession, command: Callable[[IpmiSession], None], wanted_on: bool) -> None:
    try:
        command(session)
    except CompletionCodeError as error:
        # Not taken at its word: the same code also comes from sessions that went wrong.
        if error.cc != CC_NOT_IN_THIS_STATE or session.power_is_on() != wanted_on:
            raise


def _words(bmc: Bmc, error: Exception) -> str:
    """What went wrong, without one word of the library's."""
    match error:
        case _WrongBmc():
            said = str(error)
        case AuthenticationError() | IpmiLongPasswordError():
            said = "authentication failed (wrong password?)"
        case MessageStatusCodeError():
            said = f"session refused with status 0x{error.msc:02x} ({error.msc_desc})"
        case CompletionCodeError():
            said = f"completion code 0x{error.cc:02x} ({error.cc_desc})"
        case NotSupportedError():
            said = "no IPMI 2.0 or no cipher suite in common (17, 3)"
        case TimeoutError() | RetryError() | IpmiConnectionError():
            said = "no answer"
        case ConnectionRefusedError():
            said = "connection refused"
        case OSError():
            said = f"network error: {error.strerror or type(error).__name__}"
        case DecodingError():
            said = "answered garbage"
        case _:
            said = f"answered garbage ({type(error).__name__})"
    return f"BMC {bmc.place}: {said}"
