# SPDX-License-Identifier: Apache-2.0
"""One IPMI 2.0 session with one BMC that ends when its time is up, whatever the BMC sends or does not send.

python-ipmi waits 2 s per packet with no limit on the whole, and puts the password into its debug log. Both are closed
here. Nothing is sent once the deadline has passed: a command that leaves late is a command that nobody waits for.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pyipmi
from pyipmi.errors import MessageStatusCodeError
from pyipmi.interfaces.rmcpplus import CipherSuite, RmcpPlus
from pyipmi.msgs.constants import MSC_NO_CIPHER_SUITE_MATCH
from pyipmi.session import Session

CLOSE_S = 0.3
ABANDON_S = 0.05
PACKET_S = 1.0
RESENDS = 1
BMC_ADDRESS = 0x20
NETFN_APP = 0x06
CMD_GET_SYSTEM_GUID = b"\x37"
PRIVILEGES = ("user", "operator", "administrator")
PASSWORD_BYTES_MAX = 20
USER_BYTES_MAX = 16


@dataclass(frozen=True, slots=True)
class Bmc:
    """How to reach the BMC of one host.

    address: an IP address, so that no fence needs a name service. privilege: operator is enough for power.
    guid: 32 hex digits, with or without dashes, as the BMC or the host's SMBIOS shows it; '' if not known.
    """

    address: str
    port: int = 623
    user: str = ""
    password: str = field(default="", repr=False)
    privilege: str = "operator"
    guid: str = ""

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.address)
        if self.privilege not in PRIVILEGES:
            raise ValueError(f"privilege must be one of {', '.join(PRIVILEGES)}")
        if len(self.password.encode()) > PASSWORD_BYTES_MAX:
            raise ValueError(f"an IPMI password has at most {PASSWORD_BYTES_MAX} bytes")
        if len(self.user.encode()) > USER_BYTES_MAX:
            raise ValueError(f"an IPMI user name has at most {USER_BYTES_MAX} bytes")
        if self.guid:
            bare_guid(self.guid)

    @property
    def place(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def bare_guid(text: str) -> str:
    """32 lower-case hex digits. Raises ValueError."""
    bare = text.replace("-", "").lower()
    if len(bare) != 32 or len(bytes.fromhex(bare)) != 16:
        raise ValueError(f"not a GUID: {text!r}")
    return bare


def guid_spellings(raw: bytes) -> tuple[str, str, str]:
    """The three orders in which BMCs send the 16 bytes of one GUID: as written, reversed (IPMI), mixed (SMBIOS)."""
    mixed = raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]
    return raw.hex(), raw[::-1].hex(), mixed.hex()


class _SilentSession(Session):  # type: ignore[misc]
    """python-ipmi logs str(session) when it closes one."""

    def __str__(self) -> str:
        return f"session 0x{self.sid:08x}"

    __repr__ = __str__


class _BoundedRmcpPlus(RmcpPlus):  # type: ignore[misc]
    """The RMCP+ interface, bounded by one deadline over everything it waits for."""

    def __init__(self, deadline: float, asf_ping: bool) -> None:
        super().__init__(keep_alive_interval=0, max_retries=RESENDS)
        self.deadline = deadline
        self._asf_ping = asf_ping
        self._family = socket.AF_INET

    def open_for(self, address: str) -> None:
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.open()

    def open(self) -> None:
        self._sock = socket.socket(self._family, socket.SOCK_DGRAM)
        self.set_timeout(PACKET_S)

    def ping(self) -> None:
        if self._asf_ping:
            super().ping()

    def _left_s(self) -> float:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _send_rmcp_msg(self, sdu: bytes | None, class_of_msg: int) -> None:
        self._left_s()
        super()._send_rmcp_msg(sdu, class_of_msg)

    def _receive_rmcp_msg(self) -> tuple[int | None, int | None, bytes]:
        self._sock.settimeout(min(PACKET_S, self._left_s()))
        received: tuple[int | None, int | None, bytes] = super()._receive_rmcp_msg()
        return received

    def _open_session(self, session: Session, suite: CipherSuite) -> int:
        """Some BMCs answer an unknown suite with silence; that must lead to the next suite, not to the end."""
        try:
            managed: int = super()._open_session(session, suite)
        except TimeoutError:
            if suite.id == self.cipher_suites[-1]:
                raise
            raise MessageStatusCodeError(MSC_NO_CIPHER_SUITE_MATCH) from None
        return managed


class IpmiSession:
    """An open session, for one thread. Every method may raise any exception of python-ipmi's, or OSError."""

    def __init__(self, bmc: Bmc, deadline: float, asf_ping: bool = False) -> None:
        """Opens it. deadline: on time.monotonic(). Whatever is raised, nothing stays open."""
        self._interface = _BoundedRmcpPlus(deadline, asf_ping)
        session = _SilentSession()
        session.set_session_type_rmcp(bmc.address, port=bmc.port)
        session.set_auth_type_user(bmc.user, bmc.password)
        session.set_priv_level(bmc.privilege)
        self._ipmi: Any = pyipmi.Ipmi(
            interface=self._interface, session=session, target=pyipmi.Target(ipmb_address=BMC_ADDRESS)
        )
        try:
            self._interface.open_for(bmc.address)
            session.establish()
        except BaseException:
            self.close()
            raise

    def allow_until(self, deadline: float) -> None:
        """A kept session gets a new deadline for each use."""
        self._interface.deadline = deadline

    def power_is_on(self) -> bool:
        return bool(self._ipmi.get_chassis_status().power_on)

    def power_down(self) -> None:
        self._ipmi.chassis_control_power_down()

    def power_up(self) -> None:
        self._ipmi.chassis_control_power_up()

    def guid(self) -> bytes | None:
        """The system GUID's 16 bytes as sent; None where the BMC has no such command."""
        answer = bytes(self._ipmi.send_raw(0, NETFN_APP, CMD_GET_SYSTEM_GUID))
        return answer[1:17] if len(answer) >= 17 and answer[0] == 0 else None

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Frees the BMC's session slot if the BMC still answers. Never raises: what was found out stays true."""
        self._interface.max_retries = 0
        self._interface.deadline = time.monotonic() + wait_s
        try:
            self._interface.close_session()
        except Exception:  # noqa: S110 - the BMC drops an idle session by itself
            pass
        finally:
            self._interface.close()
