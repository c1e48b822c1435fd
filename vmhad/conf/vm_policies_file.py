# SPDX-License-Identifier: Apache-2.0
"""Policies of VMs as a file has them, read and written. Every complaint names the file and the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import yaml

from vmhad.conf.settings import ConfigError
from vmhad.conf.yaml_file import Field, parse, read_text
from vmhad.kernel.gate import read_gate
from vmhad.kernel.policy import OnFailure, OnIoError
from vmhad.kernel.vm_policy import (
    KEYS,
    PRIORITY_MAX,
    SETTINGS,
    Match,
    Protect,
    Settings,
    VmPolicies,
    VmPolicy,
)

# What a match says that is for every VM.
ALL = "all"
NAME_MAX = 255
# What is matched by its id, and how ids are written in Nova, Glance and Keystone.
IDS = ("server", "image", "project", "domain")
ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
CHOICES: Mapping[str, type[StrEnum]] = {
    "on_crash": OnFailure,
    "on_panic": OnFailure,
    "on_io_error": OnIoError,
    "on_silent_agent": OnFailure,
}
TRUTHS = ("storage_only_proof", "rebuild_local_disks")
STARTS_MAX, WINDOW_MAX_S = 100, 86400
READY_AFTER_MAX_S = 3600


def load_policies(path: str) -> tuple[int | None, tuple[VmPolicy, ...]]:
    """A whole set, and the version it was made from where the file says so. Raises ConfigError."""
    fields = _field(path).mapping(["policies"], ["version"])
    version = fields["version"].number(0, 1 << 53) if "version" in fields else None
    rows = fields["policies"].items() if fields["policies"].value != [] else []
    found: dict[str, VmPolicy] = {}
    for row in rows:
        one = policy_of(row)
        if one.name in found:
            raise row.wrong(f"is the second policy {one.name!r}")
        found[one.name] = one
    return version, tuple(found[name] for name in sorted(found))


def load_policy(path: str) -> VmPolicy:
    """A single one. Raises ConfigError."""
    return policy_of(_field(path))


def policies_text(held: VmPolicies) -> str:
    """The whole set as a file that load_policies reads."""
    return _text({"version": held.version, "policies": [_row(one) for one in held.policies]})


def policy_text(policy: VmPolicy) -> str:
    return _text(_row(policy))


def with_said(policy: VmPolicy, pairs: list[str]) -> VmPolicy:
    """The policy with SETTING=VALUE set; without what SETTING= takes away. Raises ConfigError."""
    said, told = dict(_row(policy)["settings"]), set[str]()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"{pair!r} must be SETTING=VALUE; SETTING= takes one away.")
        if name not in SETTINGS:
            raise ConfigError(f"there is no setting {name!r}; there are: {', '.join(SETTINGS)}.")
        if name in told:
            raise ConfigError(f"{name} is named twice.")
        told.add(name)
        said.pop(name, None)
        if text:
            value = parse(text, "the command line", name)
            said[name] = text if isinstance(value, dict | list) and name != "after" else value
    settings = _settings(Field("the command line", "settings", said))
    return VmPolicy(policy.name, policy.match, settings)


def _field(path: str) -> Field:
    return Field(path, "", parse(read_text(path, "the policies' file"), path, "the policies' file"))


def policy_of(row: Field) -> VmPolicy:
    """Raises ConfigError."""
    fields = row.mapping(["name", "match", "settings"])
    name = fields["name"].text()
    if len(name) > NAME_MAX or name != name.strip() or not name.isprintable():
        raise fields["name"].wrong(f"must be a name of at most {NAME_MAX} characters, without blanks around it")
    return VmPolicy(name, _match(fields["match"]), _settings(fields["settings"]))


def _match(entry: Field) -> Match:
    if entry.value == ALL:
        return Match()
    told = entry.mapping([], KEYS)
    if not told:
        raise entry.wrong(f"must name at least one of {', '.join(KEYS)}; «{ALL}» is for every VM")
    values: dict[str, Any] = {key: _values(one, key in IDS) for key, one in told.items() if key != "metadata"}
    if "metadata" in told:
        pairs = told["metadata"].entries()
        if not pairs:
            raise told["metadata"].wrong("must name at least one key and its value")
        values["metadata"] = {key: _values(one) for key, one in pairs.items()}
    return Match(**values)


def _values(entry: Field, is_id: bool = False) -> tuple[str, ...]:
    """One text, or several of which one is enough."""
    told = tuple(sorted(set(entry.texts()))) if isinstance(entry.value, list) else (entry.text(),)
    for one in told:
        if is_id and not ID.fullmatch(one):
            raise entry.wrong(f"must be an id, which {one!r} is none of; openstack lists them")
    return told


def _settings(entry: Field) -> Settings:
    told = entry.mapping([], SETTINGS)
    if not told:
        raise entry.wrong(f"must say at least one of {', '.join(SETTINGS)}")
    return Settings(**{name: _setting(name, one) for name, one in told.items()})


def _setting(name: str, entry: Field) -> Any:
    if name == "protect":
        return _protect(entry)
    if name in TRUTHS:
        return entry.truth()
    if name in CHOICES:
        return _choice(entry, CHOICES[name])
    if name == "priority":
        return entry.number(-PRIORITY_MAX, PRIORITY_MAX)
    if name == "instance_starts_max":
        return entry.number(1, STARTS_MAX)
    if name == "instance_window_s":
        return float(entry.number(1, WINDOW_MAX_S))
    if name == "ready_after_s":
        return float(entry.number(0, READY_AFTER_MAX_S))
    if name == "ready":
        return _gate(entry)
    return _order_groups(entry) if name == "after" else _order_group(entry)


def _gate(entry: Field) -> str:
    try:
        return str(read_gate(entry.text()))
    except ValueError as error:
        raise entry.wrong(str(error)) from None


def _order_groups(entry: Field) -> tuple[str, ...]:
    """A list, or one text with commas, as a command line has it."""
    if isinstance(entry.value, list):
        return tuple(sorted({_order_group(one) for one in entry.items()}))
    return tuple(sorted({name.strip() for name in entry.text().split(",")} - {""}))


def _order_group(entry: Field) -> str:
    name = entry.text()
    if "," in name:
        raise entry.wrong("must be the name of an order group, without a comma")
    return name


def _protect(entry: Field) -> Protect:
    """YAML takes a bare yes for true."""
    if isinstance(entry.value, bool):
        return Protect.YES if entry.value else Protect.NO
    return Protect(_choice(entry, Protect))


def _choice(entry: Field, kind: type[StrEnum]) -> StrEnum:
    known = [one.value for one in kind]
    if entry.value not in known:
        raise entry.wrong(f"must be one of {', '.join(known)}")
    return kind(entry.value)


def _row(policy: VmPolicy) -> dict[str, Any]:
    match: dict[str, Any] = {}
    for key in dict.fromkeys(policy.match.keys):
        told = getattr(policy.match, key)
        match[key] = {name: _plain(told[name]) for name in sorted(told)} if key == "metadata" else _plain(told)
    said = {name: _said(value) for name, value in policy.settings.said.items()}
    return {"name": policy.name, "match": match or ALL, "settings": said}


def _plain(values: tuple[str, ...]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)


def _said(value: object) -> Any:
    if value in (Protect.YES, Protect.NO):
        return value is Protect.YES
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    return int(value) if isinstance(value, float) else value


def _text(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
