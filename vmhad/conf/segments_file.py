# SPDX-License-Identifier: Apache-2.0
"""The segments file: which hosts take over for each other, and whose BMC is whose (conf/bmcs.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oslo_config import cfg

from vmhad.conf import policy as policy_options
from vmhad.conf.bmcs import BmcDefaults, Passwords, Switches, address_of, bmc_of, checked_paths
from vmhad.conf.settings import BmcAccess, ConfigError, StorageAccess
from vmhad.conf.storages_file import storages_of, with_backends
from vmhad.conf.yaml_file import Field, parse, read_text
from vmhad.kernel.beat import Plane
from vmhad.kernel.policy import AfterFence, CutOff, CutStorage, Drain, OnFailure, OnIoError, Policy, SilentMeans
from vmhad.kernel.topology import Host, Segment

SEGMENTS_OPTION = "[engine] segments_file"
CREDENTIALS_OPTION = "[power] credentials_file"
# What an export adds for rehearsals; an engine asks Nova for it and never reads it here.
EXPORTED_PARTS = ("exported", "servers", "groups")
OPTIONAL_PARTS = ("storages", *EXPORTED_PARTS)
# What an entry of a host may say beside its name.
HOST_FIELDS = ("bmc", "second_power", "outlets", "cut_storage", "domains", "planes", "inventory")
# Names become parts of journal keys.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
YAML_TYPES = {cfg.BoolOpt: (bool,), cfg.StrOpt: (str,), cfg.IntOpt: (int,), cfg.FloatOpt: (int, float)}
POLICY_ENUMS = {
    "silent_means": SilentMeans,
    "after_fence": AfterFence,
    "cut_storage": CutStorage,
    "isolated": CutOff,
    "storage_lost": CutOff,
    **dict.fromkeys(("on_crash", "on_panic", "on_silent_agent", "on_service_failure"), OnFailure),
    "on_io_error": OnIoError,
    "drain": Drain,
}


@dataclass(frozen=True, slots=True)
class SegmentsFile:
    segments: tuple[Segment, ...]
    policies: Mapping[str, Policy]
    bmcs: Mapping[str, BmcAccess]
    storages: tuple[StorageAccess, ...] = ()


def load_segments(path: str, credentials_path: str, defaults: Policy, bmc_defaults: BmcDefaults) -> SegmentsFile:
    """Raises ConfigError."""
    document = parse(read_text(path, SEGMENTS_OPTION), path, SEGMENTS_OPTION)
    top = Field(path, "", document).mapping(["segments"], OPTIONAL_PARTS)
    passwords = Passwords(credentials_path, CREDENTIALS_OPTION)
    segments: dict[str, Segment] = {}
    policies: dict[str, Policy] = {}
    bmcs: dict[str, BmcAccess] = {}
    at_home: dict[str, str] = {}
    addresses, switches = Addresses(), Switches()
    for entry in top["segments"].items():
        fields = entry.mapping(["name", "hosts"], ["policy"])
        name = name_of(fields["name"])
        if name in segments:
            raise fields["name"].wrong(f"repeats the segment {name!r}")
        hosts = []
        for host_entry in fields["hosts"].items():
            parts = host_entry.mapping(["name", "bmc"], HOST_FIELDS)
            host = host_of(parts)
            bmc = checked_paths(parts, host.name, passwords, bmc_defaults)
            if host.name in at_home:
                raise host_entry.wrong(f"repeats the host {host.name!r}, which is in segment {at_home[host.name]!r}")
            for switch in filter(None, (bmc, bmc.second, *bmc.outlets)):
                switches.take(host_entry, host.name, switch)
            addresses.take(host_entry, host)
            at_home[host.name], bmcs[host.name] = name, bmc
            hosts.append(host)
        if len(hosts) == 1 and bmcs[hosts[0].name].via:
            raise entry.wrong(f"has one host only, and no agent of a peer can ask the BMC of {hosts[0].name!r}")
        segments[name] = Segment(name, tuple(hosts))
        policies[name] = overridden(defaults, fields["policy"]) if "policy" in fields else defaults
        _refuse_unknown_kind(entry, policies[name].spread_over, hosts)
    storages = storages_of(top["storages"], tuple(segments.values())) if "storages" in top else ()
    return SegmentsFile(tuple(with_backends(one, storages) for one in segments.values()), policies, bmcs, storages)


def load_bmcs(
    path: str, what: str, credentials_path: str, credentials_what: str, own: str, bmc_defaults: BmcDefaults
) -> Mapping[str, BmcAccess]:
    """The BMCs of the peers of a host, as its agent may ask them: those that the file names and that have a password.
    A second power path is the engines' to ask. what, credentials_what: the options that name the files. Raises
    ConfigError."""
    top = Field(path, "", parse(read_text(path, what), path, what)).mapping(["segments"], OPTIONAL_PARTS)
    passwords, switches = Passwords(credentials_path, credentials_what), Switches()
    bmcs: dict[str, BmcAccess] = {}
    for entry in top["segments"].items():
        rows = [row.entries() for row in entry.entries()["hosts"].items()]
        names = [row["name"].text() for row in rows]
        for name, row in zip(names, rows, strict=True) if own in names else ():
            if name != own and "bmc" in row and passwords.known(name):
                bmcs[name] = passwords.put(bmc_of(row["bmc"], bmc_defaults), name)
                switches.take(row["bmc"], name, bmcs[name])
    if not bmcs:
        raise ConfigError(
            f"{credentials_what}: no peer of {own!r} has a bmc in {path} and a password in {credentials_path}."
        )
    return bmcs


def load_hosts(path: str, what: str) -> tuple[Segment, ...]:
    """The same file as an agent reads it: who its peers are. It has no business with BMCs and policies, and a copy
    without them will do. what: the option that names the file. Raises ConfigError."""
    top = Field(path, "", parse(read_text(path, what), path, what)).mapping(["segments"], OPTIONAL_PARTS)
    segments: list[Segment] = []
    at_home: dict[str, str] = {}
    addresses = Addresses()
    for entry in top["segments"].items():
        fields = entry.mapping(["name", "hosts"], ["policy"])
        hosts = []
        for host_entry in fields["hosts"].items():
            host = host_of(host_entry.mapping(["name"], HOST_FIELDS))
            if host.name in at_home:
                raise host_entry.wrong(f"repeats the host {host.name!r}, which is in segment {at_home[host.name]!r}")
            addresses.take(host_entry, host)
            at_home[host.name] = fields["name"].text()
            hosts.append(host)
        segments.append(Segment(name_of(fields["name"]), tuple(hosts)))
    return tuple(segments)


def overridden(defaults: Policy, entry: Field) -> Policy:
    """defaults with the fields of entry, each held to the type and the limits of its option."""
    options = {option.name: option for option in policy_options.OPTS}
    changes: dict[str, Any] = {}
    for name, field in entry.entries().items():
        option = options.get(name)
        if option is None:
            raise entry.wrong(f"has an unknown key {name!r}")
        changes[name] = _policy_value(option, field)
    return checked(replace(defaults, **changes), f"{entry.file}: {entry.where}")


def _refuse_unknown_kind(entry: Field, kind: str, hosts: Sequence[Host]) -> None:
    """A word that is misspelled would keep nothing apart, and nobody would see it."""
    if kind and not any(kind in host.domains for host in hosts):
        raise entry.wrong(f"has no host with a domain of the kind {kind!r}, which spread_over of its policy names")


def checked(policy: Policy, where: str) -> Policy:
    """What one option alone cannot say. Raises ConfigError."""
    if policy.retry_backoff_s > policy.retry_backoff_max_s:
        raise ConfigError(f"{where}: retry_backoff_s is greater than retry_backoff_max_s.")
    if policy.readings_apart_s >= policy.channel_stale_s:
        raise ConfigError(f"{where}: readings_apart_s must be less than channel_stale_s.")
    return policy


def _policy_value(option: cfg.Opt, field: Field) -> Any:
    if type(field.value) not in YAML_TYPES[type(option)]:
        raise field.wrong(f"is not a value of [policy] {option.name}, which is a {option.type}")
    try:
        value = option.type(field.value)
    except ValueError as error:
        raise field.wrong(f"is not a value of [policy] {option.name}: {error}") from None
    return POLICY_ENUMS[option.name](value) if option.name in POLICY_ENUMS else value


def host_of(fields: Mapping[str, Field]) -> Host:
    """A host by its name, domains, planes and cut_storage; its other fields are for others to read. Raises
    ConfigError."""
    domains = fields["domains"].entries() if "domains" in fields else {}
    planes = fields["planes"].mapping([], list(Plane)) if "planes" in fields else {}
    return Host(
        name_of(fields["name"]),
        {kind: domain.text() for kind, domain in domains.items()},
        {str(plane): address_of(planes[plane], "a look") for plane in Plane if plane in planes},
        _cut_storage(fields["cut_storage"]) if "cut_storage" in fields else None,
    )


def _cut_storage(field: Field) -> CutStorage:
    try:
        return CutStorage(field.text())
    except ValueError:
        raise field.wrong(f"must be one of {', '.join(CutStorage)}") from None


class Addresses:
    """Takes one host at a time. A look at an address that two hosts have would say of one what is true of the other."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, str], str] = {}

    def take(self, entry: Field, host: Host) -> None:
        for plane, address in host.planes.items():
            other = self._hosts.setdefault((plane, address), host.name)
            if other != host.name:
                raise entry.wrong(f"has the {plane} address {address}, which is that of {other!r}")


def name_of(field: Field) -> str:
    name = field.text()
    if not NAME.fullmatch(name):
        raise field.wrong("may have letters, digits, '.', '_' and '-' only")
    return name
