# SPDX-License-Identifier: Apache-2.0
"""The part of the segments file that says how the power of a host is reached.

Rule kept: one host has one power switch and one switch has one host, on its first path and on its second, which may be
several outlets. Two names for one switch end the start, because a fence would turn off a host that lives.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from vmhad.conf.settings import BmcAccess, ConfigError
from vmhad.conf.yaml_file import Field, parse, read_secret_text

GUID = re.compile(r"[0-9a-f]{32}")
PRIVILEGES = ("user", "operator", "administrator")
VIA = ("engine", "agents")
PASSWORD_BYTES_MAX = 20
USER_BYTES_MAX = 16
SYSTEMS = "/redfish/v1/Systems"
OUTLETS = "/Outlets/"
# Of one host: each is asked by a thread of its own.
OUTLETS_MIN, OUTLETS_MAX = 2, 8
PORTS = {"ipmi": 623, "redfish": 443}
# What an entry may say beside address and user, by its driver.
OF_DRIVER = {"ipmi": ("privilege",), "redfish": ("system", "ca_file")}
# In the credentials file; no host's name has a slash. The outlets of one PDU have one password, that PDU's, which may
# stand under its address.
SECOND, OF_OUTLETS = "/second_power", "/outlets"


@dataclass(frozen=True, slots=True)
class BmcDefaults:
    """What an entry need not say, because [power] does."""

    driver: str = "ipmi"
    ca_file: str = ""


def bmc_of(entry: Field, defaults: BmcDefaults, path: str = "") -> BmcAccess:
    """Without its password. path: SECOND, or OF_OUTLETS for one of these. Raises ConfigError."""
    driver = _driver(entry, defaults)
    of_path = {"": ["via"], SECOND: ["outlet"], OF_OUTLETS: []}[path]
    fields = entry.mapping(["address", "user"], ["driver", "port", "guid", *OF_DRIVER[driver], *of_path])
    user = fields["user"].text()
    if driver == "ipmi" and len(user.encode()) > USER_BYTES_MAX:
        raise fields["user"].wrong(f"is longer than the {USER_BYTES_MAX} bytes of an IPMI user name")
    if driver == "redfish" and ":" in user:
        raise fields["user"].wrong("may have no colon: HTTP ends a user name with it")
    guid = fields["guid"].text().replace("-", "").lower() if "guid" in fields else ""
    if guid and not GUID.fullmatch(guid):
        raise fields["guid"].wrong("must be 32 hex digits, with or without dashes")
    via = _one_of(fields, "via", VIA, "engine")
    system = _path(fields["system"].text()) if "system" in fields else ""
    if OUTLETS in system and not path:
        raise fields["system"].wrong(
            "is an outlet, which can be a second_power or one of outlets only: its ON does not say that a host is on"
        )
    is_outlet = path == OF_OUTLETS or OUTLETS in system
    return BmcAccess(
        address=address_of(fields["address"], "a fence"),
        port=fields["port"].number(1, 65535) if "port" in fields else PORTS[driver],
        user=user,
        password="",
        privilege=_one_of(fields, "privilege", PRIVILEGES, "operator") if driver == "ipmi" else "",
        guid=guid,
        via="" if via == "engine" else via,
        driver=driver,
        system=system,
        ca_file=_ca_file(fields, defaults, via) if driver == "redfish" else "",
        outlet=fields["outlet"].truth() if "outlet" in fields else is_outlet,
    )


def address_of(field: Field, who_waits: str) -> str:
    try:
        return str(ipaddress.ip_address(field.text()))
    except ValueError:
        raise field.wrong(f"must be an IP address: {who_waits} waits for no name service") from None


class Passwords:
    """What the file of credentials says; its complaints show no secret. what: the option that names it."""

    def __init__(self, path: str, what: str) -> None:
        self._path, self._what = path, what
        document = parse(read_secret_text(path, what), path, what)
        self._fields = Field(path, "", document).entries()
        for one in self._fields.values():
            one.text()

    def known(self, host: str, path: str = "") -> bool:
        return f"{host}{path}" in self._fields or f"default{path}" in self._fields

    def put(self, bmc: BmcAccess, host: str, path: str = "") -> BmcAccess:
        """path: SECOND or OF_OUTLETS for a second power path. Raises ConfigError."""
        if not self.known(host, path):
            raise ConfigError(f"{self._what}: {self._path} has no password for {host + path!r} and no default{path}.")
        password = self._fields.get(f"{host}{path}") or self._fields[f"default{path}"]
        if bmc.driver == "ipmi" and len(password.text().encode()) > PASSWORD_BYTES_MAX:
            raise password.wrong(f"is longer than the {PASSWORD_BYTES_MAX} bytes of an IPMI password")
        return replace(bmc, password=password.text())


@dataclass
class Switches:
    """Takes the power paths of one host at a time, and refuses a switch that was taken before."""

    _taken: list[tuple[str, BmcAccess]] = field(default_factory=list)

    def take(self, entry: Field, host: str, bmc: BmcAccess) -> None:
        for other_host, other in self._taken:
            # One service may have many systems; for one host it is one thing that can fail, and no second path. But its
            # outlets have to go off together, and one device may have them all.
            may_share = host != other_host or (bmc.outlet and other.outlet)
            told_apart = may_share and bmc.system and other.system and _plain(bmc.system) != _plain(other.system)
            if (bmc.address, bmc.port) == (other.address, other.port) and not told_apart:
                raise entry.wrong(f"has the BMC {bmc.address} port {bmc.port}, which is the BMC of {other_host!r}")
            # One device that is named twice as two outlets would be read OFF while another one feeds the host.
            if bmc.guid and bmc.guid == other.guid and may_share:
                raise entry.wrong(f"has a BMC with the guid {bmc.guid}, which is that of {other_host!r}")
        self._taken.append((host, bmc))


def checked_paths(fields: Mapping[str, Field], host: str, passwords: Passwords, defaults: BmcDefaults) -> BmcAccess:
    """bmc, and second_power or outlets, of a host's entry with their passwords: none for a BMC that agents ask. Raises
    ConfigError."""
    bmc = bmc_of(fields["bmc"], defaults)
    if not bmc.via:
        bmc = passwords.put(bmc, host)
    if "second_power" in fields and "outlets" in fields:
        raise fields["outlets"].wrong("stands beside a second_power: a host has one second power path")
    if "second_power" in fields:
        return replace(bmc, second=passwords.put(bmc_of(fields["second_power"], defaults, SECOND), host, SECOND))
    return replace(bmc, outlets=_outlets(fields["outlets"], host, passwords, defaults)) if "outlets" in fields else bmc


def _outlets(entry: Field, host: str, passwords: Passwords, defaults: BmcDefaults) -> tuple[BmcAccess, ...]:
    entries = entry.items()
    if len(entries) < OUTLETS_MIN:
        raise entry.wrong("must have at least two entries: a single outlet is a second_power")
    if len(entries) > OUTLETS_MAX:
        raise entry.wrong(f"must have {OUTLETS_MAX} entries at most")
    told = []
    for one in entries:
        outlet = bmc_of(one, defaults, OF_OUTLETS)
        at = f"{OF_OUTLETS}/{outlet.address}"
        told.append(passwords.put(outlet, host, at if passwords.known(host, at) else OF_OUTLETS))
    return tuple(told)


def _driver(entry: Field, defaults: BmcDefaults) -> str:
    return _one_of(entry.entries(), "driver", tuple(PORTS), defaults.driver)


def _one_of(fields: Mapping[str, Field], name: str, known: tuple[str, ...], default: str) -> str:
    text = fields[name].text() if name in fields else default
    if text not in known:
        raise fields[name].wrong(f"must be one of {', '.join(known)}")
    return text


def _path(system: str) -> str:
    """One spelling for a path and an id, so that two names of one system are seen to be one."""
    return "/" + system.strip("/") if "/" in system else f"{SYSTEMS}/{system}"


def _plain(system: str) -> str:
    """What a service may take for the same: it need not tell A1 from a1, %41 from A, or two slashes from one."""
    return re.sub("/+", "/", unquote(system)).casefold()


def _ca_file(fields: Mapping[str, Field], defaults: BmcDefaults, via: str) -> str:
    """Where agents ask, the file is theirs, and need not be here."""
    path = fields["ca_file"].text() if "ca_file" in fields else defaults.ca_file
    if path and via == "engine" and not os.access(path, os.R_OK):
        if "ca_file" in fields:
            raise fields["ca_file"].wrong(f"names {path}, which cannot be read")
        raise ConfigError(f"[power] ca_file: {path} cannot be read.")
    return path
