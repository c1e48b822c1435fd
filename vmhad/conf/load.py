# SPDX-License-Identifier: Apache-2.0
"""From a command line to Settings. What cannot be right ends the start, in one sentence; nothing is guessed."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar
from urllib.parse import urlencode

from oslo_config import cfg
from oslo_log import log

from vmhad.conf.keys_file import KEY_OPTION, KEYS_OPTION, read_agent_key, read_master_keys
from vmhad.conf.opts import list_opts
from vmhad.conf.segments_file import POLICY_ENUMS, checked, load_segments
from vmhad.conf.settings import (
    AgentBusSettings,
    AgentsSettings,
    ConfigError,
    EngineSettings,
    NotificationSettings,
    NovaSettings,
    PowerSettings,
    Settings,
)
from vmhad.conf.yaml_file import read_secret_text
from vmhad.kernel.policy import Policy

Kind = TypeVar("Kind")

# Between a call's end and the next renewal of the lease the engine still has to tick.
LEASE_MARGIN_S = 2.0
# A segment's name is part of a routing key, which has 255 bytes.
TOPIC_NAME_MAX = 250
# What tooz calls our files in its URLs.
TOOZ_NAMES = {"etcd_ca_file": "ca_cert", "etcd_cert_file": "cert_cert", "etcd_key_file": "cert_key"}


def load(args: Sequence[str]) -> Settings:
    """args: the command line without the program. Raises ConfigError."""
    return settings(parse(args))


def parse(args: Sequence[str]) -> cfg.ConfigOpts:
    """The raw options, with those of oslo.log; for what needs them as they are. Raises ConfigError."""
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    for group, options in list_opts():
        conf.register_group(group)
        conf.register_opts(options, group=group)
    try:
        conf(list(args), project="vmhad", prog="vmhad")
    except cfg.ConfigFilesNotFoundError as error:
        raise ConfigError(f"--config-file: there is no file {', '.join(error.config_files)}.") from None
    except cfg.ConfigDirNotFoundError as error:
        raise ConfigError(f"--config-dir: there is no directory {error.config_dir}.") from None
    except cfg.ConfigFileParseError as error:
        raise ConfigError(f"{error.config_file}: this is not an ini file.") from None
    except cfg.Error as error:
        raise ConfigError(f"{error}".rstrip(".") + ".") from None
    _refuse_unknown_options(conf)
    return conf


def policy_defaults(args: Sequence[str]) -> Policy:
    """What [policy] says for every segment; nothing else of the configuration need be complete. Raises ConfigError."""
    return checked(_policy(parse(args)), "[policy]")


def settings(conf: cfg.ConfigOpts) -> Settings:
    """Raises ConfigError."""
    engine = _engine(conf)
    nova = _nova(conf)
    notifications = _notifications(conf)
    defaults = checked(_policy(conf), "[policy]")
    told = load_segments(engine.segments_file, _value(conf, "power", "credentials_file"), defaults)
    power = filled(PowerSettings, conf, "power", bmcs=told.bmcs)
    agents = _agents(conf, notifications.transport_urls, [segment.name for segment in told.segments])
    timeout_s = _value(conf, "storage", "timeout_s")
    result = Settings(
        engine.kept, nova, notifications, agents, power, told.segments, told.policies, told.storages, timeout_s
    )
    if power.via_agents and not agents.enabled:
        raise ConfigError(f"bmc.via = agents of {min(power.via_agents)!r} needs [agents] enabled = true.")
    _check_lease(result)
    _check_intervals(result)
    return result


class _Engine:
    """The engine's settings and the one option that ends here."""

    def __init__(self, segments_file: str, kept: EngineSettings) -> None:
        self.segments_file = segments_file
        self.kept = kept


def _engine(conf: cfg.ConfigOpts) -> _Engine:
    journal = _value(conf, "engine", "journal")
    endpoints = tuple(_value(conf, "engine", "etcd_endpoints"))
    if journal == "sqlite" and not _value(conf, "engine", "standalone"):
        raise ConfigError("[engine] journal = sqlite needs standalone = true, which says that no other engine exists.")
    if journal == "etcd" and not endpoints:
        raise ConfigError("[engine] journal = etcd needs etcd_endpoints.")
    for endpoint in endpoints:
        scheme, _, place = endpoint.partition("://")
        if scheme not in ("http", "https") or not place.strip("/") or scheme != endpoints[0].partition("://")[0]:
            raise ConfigError(f"[engine] etcd_endpoints: {endpoint!r} must be http://host:port, or all of them https.")
    _check_etcd_files(conf, endpoints)
    kept = filled(
        EngineSettings, conf, "engine", etcd_endpoints=endpoints, membership_url=_membership_url(conf, endpoints)
    )
    if not kept.name:
        raise ConfigError("[engine] name must not be empty.")
    return _Engine(_value(conf, "engine", "segments_file"), kept)


def _check_etcd_files(conf: cfg.ConfigOpts, endpoints: Sequence[str]) -> None:
    """A file that cannot be read would look like an etcd that is away, and be waited for."""
    told = {name: _value(conf, "engine", name) for name in TOOZ_NAMES if _value(conf, "engine", name)}
    for name, path in told.items():
        if not endpoints or not endpoints[0].startswith("https://"):
            raise ConfigError(f"[engine] {name} is of no use: etcd_endpoints are not https.")
        if not os.access(path, os.R_OK):
            raise ConfigError(f"[engine] {name}: {path} cannot be read.")
    if ("etcd_cert_file" in told) != ("etcd_key_file" in told):
        raise ConfigError("[engine] etcd_cert_file and etcd_key_file go together: one of them is not set.")


def _membership_url(conf: cfg.ConfigOpts, endpoints: Sequence[str]) -> str:
    url = _value(conf, "engine", "membership_url")
    if url:
        if "://" not in url:
            raise ConfigError("[engine] membership_url must be a URL that tooz knows, such as etcd3+http://host:port.")
        return str(url)
    if _value(conf, "engine", "journal") == "etcd":
        scheme = endpoints[0].partition("://")[0]
        hosts = ",".join(endpoint.partition("://")[2].rstrip("/") for endpoint in endpoints)
        files = {TOOZ_NAMES[name]: path for name in TOOZ_NAMES if (path := _value(conf, "engine", name))}
        return f"etcd3+{scheme}://{hosts}" + (f"?{urlencode(files, safe='/')}" if files else "")
    return "file://" + os.path.join(os.path.dirname(_value(conf, "engine", "sqlite_path")), "members")


def _nova(conf: cfg.ConfigOpts) -> NovaSettings:
    if not _value(conf, "nova", "auth_url"):
        raise ConfigError("[nova] auth_url is not set.")
    password, path = _value(conf, "nova", "password"), _value(conf, "nova", "password_file")
    if bool(password) == bool(path):
        raise ConfigError("[nova] needs either password or password_file, and not both.")
    if path:
        password = read_secret_text(path, "[nova] password_file").strip("\n")
        if not password:
            raise ConfigError(f"[nova] password_file: {path} is empty.")
    return filled(NovaSettings, conf, "nova", password=password)


def _notifications(conf: cfg.ConfigOpts) -> NotificationSettings:
    return filled(
        NotificationSettings, conf, "nova_notifications", transport_urls=_transport_urls(conf, "nova_notifications")
    )


def _agents(conf: cfg.ConfigOpts, others_urls: tuple[str, ...], segments: Sequence[str]) -> AgentsSettings:
    """Nothing of it is looked at where no agents are listened to."""
    if not _value(conf, "agents", "enabled"):
        return filled(AgentsSettings, conf, "agents", transport_urls=(), master_keys={})
    urls = _transport_urls(conf, "agents") or others_urls
    if not urls:
        raise ConfigError("[agents] enabled = true needs transport_urls, here or in [nova_notifications].")
    for name in segments:
        if len(name) > TOPIC_NAME_MAX:
            raise ConfigError(f"segment {name!r}: for [agents] a name has at most {TOPIC_NAME_MAX} characters.")
    _check_ca_file(conf, "agents")
    keys = read_master_keys(_value(conf, "agents", "keys_file"), KEYS_OPTION)
    return filled(AgentsSettings, conf, "agents", transport_urls=urls, master_keys=keys)


def agent_bus(conf: cfg.ConfigOpts, host: str) -> AgentBusSettings:
    """What the agent of this host needs to be heard; nothing else need be configured. Raises ConfigError."""
    urls = _transport_urls(conf, "agent")
    if not urls:
        raise ConfigError("[agent] transport_urls is not set.")
    _check_ca_file(conf, "agent")
    path = _value(conf, "agent", "key_file")
    key = read_agent_key(path, KEY_OPTION)
    if key.host != host:
        raise ConfigError(f"{KEY_OPTION}: {path} is the key of {key.host!r}, and this host is {host!r}.")
    return filled(AgentBusSettings, conf, "agent", transport_urls=urls, key=key)


def _transport_urls(conf: cfg.ConfigOpts, group: str) -> tuple[str, ...]:
    urls = tuple(_value(conf, group, "transport_urls"))
    for number, url in enumerate(urls, 1):
        if "://" not in url:
            raise ConfigError(f"[{group}] transport_urls: number {number} is not a transport URL.")
    return urls


def _check_ca_file(conf: cfg.ConfigOpts, group: str) -> None:
    path = _value(conf, group, "ca_file")
    if path and not os.access(path, os.R_OK):
        raise ConfigError(f"[{group}] ca_file: {path} cannot be read.")


def _policy(conf: cfg.ConfigOpts) -> Policy:
    enums = {name: enum(_value(conf, "policy", name)) for name, enum in POLICY_ENUMS.items()}
    return filled(Policy, conf, "policy", **enums)


def filled(kind: type[Kind], conf: cfg.ConfigOpts, group: str, **given: Any) -> Kind:
    """A frozen value of kind: what is given, the rest from the options of the same names."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    rest = {name: _value(conf, group, name) for name in names if name not in given}
    return kind(**given, **rest)


def _value(conf: cfg.ConfigOpts, group: str, name: str) -> Any:
    try:
        return conf[group][name]
    except cfg.ConfigFileValueError as error:
        # The library's text shows the value; a secret has no limits to be wrong about, so none can be in it.
        reason = str(error).rpartition("is not valid: ")[2] or str(error)
        raise ConfigError(f"[{group}] {name}: {reason.rstrip('.')}.") from None


def _check_lease(told: Settings) -> None:
    """An act may begin only while the lease outlives it; a lease too short would never let one begin."""
    longest_s, name = max(
        (told.engine.call_timeout_s, "[engine] call_timeout_s"),
        (told.nova.timeout_s, "[nova] timeout_s"),
        (told.power.timeout_s, "[power] timeout_s"),
        (told.storage_timeout_s if told.storages else 0.0, "[storage] timeout_s"),
    )
    needed_s = longest_s + LEASE_MARGIN_S
    if told.engine.lease_s * 2 / 3 < needed_s:
        raise ConfigError(
            f"[engine] lease_s = {told.engine.lease_s:g} is too short: two thirds of it must be at least "
            f"{needed_s:g} s, for {name} = {longest_s:g} and its margin."
        )


def _check_intervals(told: Settings) -> None:
    """A channel that is read more seldom than it goes stale would be UNKNOWN for ever."""
    hosts = sum(len(segment.hosts) for segment in told.segments)
    power_s = max(told.power.poll_interval_s, hosts / told.power.reads_per_s_max) + told.power.poll_timeout_s
    nova_s = told.nova.poll_interval_s + told.nova.timeout_s
    for name, policy in told.policies.items():
        for pace_s, option in ((power_s, "[power] poll_interval_s"), (nova_s, "[nova] poll_interval_s")):
            if policy.channel_stale_s <= pace_s:
                raise ConfigError(
                    f"segment {name!r}: channel_stale_s = {policy.channel_stale_s:g} must exceed {pace_s:g} s, "
                    f"which one round of {option} may take."
                )


def _refuse_unknown_options(conf: cfg.ConfigOpts) -> None:
    """oslo.config overlooks a misspelt option; here that could be a limit that somebody relies on."""
    known = {group.name: {option.dest for option in options} for group, options in list_opts()}
    paths = list(conf.config_file or [])
    for directory in conf.config_dir or []:
        paths.extend(sorted(glob.glob(os.path.join(directory, "*.conf"))))
    for path in paths:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(path, sections).parse()
        for section, values in sections.items():
            if section not in known and section != "DEFAULT" and not section.startswith("oslo_"):
                raise ConfigError(f"{path}: there is no section [{section}].")
            for name in values:
                if section in known and name.replace("-", "_") not in known[section]:
                    raise ConfigError(f"{path}: [{section}] has an unknown option {name!r}.")
