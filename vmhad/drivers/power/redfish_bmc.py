# SPDX-License-Identifier: Apache-2.0
"""How one host is found at a Redfish service. Apart from the driver, so that naming a BMC loads no HTTP library."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RedfishBmc:
    """address: an IP address, so that no fence needs a name service; its certificate must be good for it.

    system: the path of the host among the service's systems, or of an outlet; '' where it has one system only.
    ca_file: what its certificate is held against, '' for what this machine trusts. guid: 32 hex digits, as in the
    system's UUID; '' if not known.
    """

    address: str
    port: int = 443
    user: str = ""
    password: str = field(default="", repr=False)
    system: str = ""
    ca_file: str = ""
    guid: str = ""

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.address)

    @property
    def place(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"
