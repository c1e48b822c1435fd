# SPDX-License-Identifier: Apache-2.0
"""The keys of agents, from the command that makes them to both ends that read them; no key shows anywhere else."""

from __future__ import annotations

import re
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from vmhad.bus.signature import HostKey, Verifier, derive, sign
from vmhad.cmd.manage import main
from vmhad.conf.keys_file import agent_key_text, master_keys_text, read_agent_key, read_master_keys
from vmhad.conf.load import agent_bus, load, parse
from vmhad.conf.settings import AgentBusSettings, AgentKey, ConfigError
from vmhad.drivers.clock import SystemClock
from vmhad.wiring import open_beats

HEX = "5a" * 32
SEGMENT = {"name": "s1", "hosts": [{"name": "h1", "bmc": {"address": "192.0.2.1", "user": "vmhad"}}]}


class Site:
    """The files of an engine that hears agents, and of one agent."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.where, self._monkeypatch, self._capsys = where, monkeypatch, capsys
        self.keys, self.key = where / "agent-keys.yaml", where / "h1.yaml"
        secret(where / "bmc.yaml", "default: pw-of-bmc\n")
        (where / "segments.yaml").write_text(yaml.safe_dump({"segments": [SEGMENT]}))
        self.configure(f"[agents]\nkeys_file = {self.keys}\n")

    def configure(self, more: str) -> None:
        (self.where / "vmhad.conf").write_text(
            f"[engine]\nsegments_file = {self.where}/segments.yaml\netcd_endpoints = http://127.0.0.1:1\n"
            f"[nova]\nauth_url = http://127.0.0.1:1/v3\npassword = pw-of-nova\n"
            f"[power]\ncredentials_file = {self.where}/bmc.yaml\n{more}"
        )

    @property
    def arguments(self) -> list[str]:
        return ["--config-file", str(self.where / "vmhad.conf")]

    def manage(self, *words: str) -> str:
        """What it said, on both ways out. Whatever it is, no key is in it."""
        self._monkeypatch.setattr(sys, "argv", ["vmhad-manage", *self.arguments, *words])
        status = main()
        said = "".join(self._capsys.readouterr())
        assert status == (2 if said.startswith("vmhad-manage: ") else 0), said
        assert not re.search(r"[0-9a-f]{32}", said), said
        return said

    def agent_bus(self, options: str, host: str = "h1") -> AgentBusSettings:
        (self.where / "agent.conf").write_text(f"[agent]\n{options}")
        return agent_bus(parse(["--config-file", str(self.where / "agent.conf")]), host)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, monkeypatch, capsys)


def secret(path: Path, text: str, mode: int = 0o600) -> Path:
    path.touch(0o600)
    path.write_text(text)
    path.chmod(mode)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_from_the_command_to_both_ends(site: Site) -> None:
    assert site.manage("agent-key", "new", "--id", "first") == f"{site.keys} has 1 keys, the current one is 'first'\n"
    site.manage("agent-key", "derive", "h1", "--output", str(site.key))
    assert (mode(site.keys), mode(site.key)) == (0o600, 0o600)
    site.manage("agent-key", "new", "--id", "second")
    newer = site.where / "h1-newer.yaml"
    site.manage("agent-key", "derive", "h1", "--output", str(newer))
    assert mode(site.keys) == 0o600 and sorted(site.where.glob("*.new")) == []

    site.configure(f"[agents]\nkeys_file = {site.keys}\nenabled = true\ntransport_urls = rabbit://u:pw-of-rabbit@a/\n")
    told = load(site.arguments).agents
    assert list(told.master_keys) == ["second", "first"]
    assert "pw-of" not in repr(told) and told.master_keys["first"].hex() not in repr(told)
    assert repr(told.master_keys["first"]) not in repr(told)
    verifier = Verifier(told.master_keys)
    for path, key_id in ((site.key, "first"), (newer, "second")):
        bus = site.agent_bus(f"transport_urls = rabbit://u:pw-of-rabbit@a/\nkey_file = {path}\n")
        assert (bus.key.host, bus.key.id) == ("h1", key_id)
        assert "pw-of" not in repr(bus) and repr(bus.key.key) not in repr(bus)
        assert verifier.open(sign(HostKey(bus.key.host, bus.key.id, bus.key.key), b"hello")) == ("h1", b"hello")


def test_where_no_agents_are_heard_no_keys_are_needed(site: Site) -> None:
    told = load(site.arguments).agents
    assert (told.enabled, told.master_keys, told.transport_urls) == (False, {}, ())


def test_the_notifications_broker_is_the_agents_too(site: Site) -> None:
    site.manage("agent-key", "new")
    site.configure(
        f"[agents]\nkeys_file = {site.keys}\nenabled = true\n[nova_notifications]\ntransport_urls = rabbit://a/\n"
    )
    assert load(site.arguments).agents.transport_urls == ("rabbit://a/",)


def test_what_the_wiring_opens(site: Site) -> None:
    site.manage("agent-key", "new")
    with ExitStack() as opened:
        assert open_beats(load(site.arguments), SystemClock(), opened) == ()
        agents = f"[agents]\nkeys_file = {site.keys}\nenabled = true\ntransport_urls = "
        site.configure(f"{agents}rabbit://u:p@127.0.0.1:1/\n")
        (beats,) = open_beats(load(site.arguments), SystemClock(), opened)
        assert list(beats.read()) == []
        site.configure(f"{agents}rabbit://a/\ntransport_urls = kafka://u:pw-of-kafka@a/\n")
        with pytest.raises(ConfigError, match=r"^\[agents\] transport_urls: number 2 is not a URL of rabbit://\.$"):
            open_beats(load(site.arguments), SystemClock(), opened)


def test_what_the_command_refuses(site: Site) -> None:
    derive_h1 = ("agent-key", "derive", "h1", "--output", str(site.key))
    assert site.manage(*derive_h1) == f"vmhad-manage: [agents] keys_file: there is no file {site.keys}.\n"
    site.manage("agent-key", "new", "--id", "k1")
    assert site.manage("agent-key", "new", "--id", "k1").endswith(f"--id: {site.keys} has a key 'k1' already.\n")
    assert "--id: a key's id has at most 32 letters" in site.manage("agent-key", "new", "--id", "k 2")
    assert "no segment has a host 'h9'" in site.manage("agent-key", "derive", "h9", "--output", str(site.key))
    site.key.symlink_to(site.where / "elsewhere")
    assert site.manage(*derive_h1) == f"vmhad-manage: --output: {site.key} exists already.\n"
    assert not (site.where / "elsewhere").exists()
    site.keys.chmod(0o640)
    assert site.manage(*derive_h1).endswith("has mode 0640, it must be 0600.\n")
    assert list(read_master_keys(str(secret(site.keys, site.keys.read_text())))) == ["k1"]


ENTRY = f'{{id: k1, key: "{HEX}"}}'
BAD_KEYS = [
    ("keys: []", r"keys must be a list with at least one entry"),
    (f"key: {ENTRY}", r"the file has an unknown field 'key'; known are keys"),
    (f"keys: [{ENTRY}, {ENTRY}]", r"keys\[1\]\.id repeats the id 'k1'"),
    (f'keys: [{{id: k/1, key: "{HEX}"}}]', r"keys\[0\]\.id may have at most 32 letters.*"),
    (f'keys: [{{id: k1, key: "{HEX}00"}}]', r"keys\[0\]\.key must be 64 lower-case hex digits in quotes"),
    (f"keys: [{{id: k1, key: {'5' * 64}}}]", r"keys\[0\]\.key must be 64 lower-case hex digits in quotes"),
    (f"keys: [{HEX}", r"line \d: this is not YAML"),
]


@pytest.mark.parametrize("text, sentence", BAD_KEYS)
def test_bad_master_keys(tmp_path: Path, text: str, sentence: str) -> None:
    path = secret(tmp_path / "keys.yaml", text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_master_keys(str(path))
    assert "keys.yaml" in str(caught.value) and "5a5a" not in str(caught.value) and "5555" not in str(caught.value)


BAD_KEY = [
    (f'host: h1\nid: k1\nkey: "{HEX[1:]}"', r"key must be 64 lower-case hex digits"),
    (f'host: h1\nkey: "{HEX}"', r"lacks the field 'id'"),
    (f'host: ""\nid: k1\nkey: "{HEX}"', r"host must be a text"),
]


@pytest.mark.parametrize("text, sentence", BAD_KEY)
def test_bad_key_of_a_host(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_agent_key(str(secret(tmp_path / "key.yaml", text)))
    assert "5a5a" not in str(caught.value)


def test_a_key_file_that_others_can_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\[agent\] key_file: .*key\.yaml has mode 0644, it must be 0600\.$"):
        read_agent_key(str(secret(tmp_path / "key.yaml", agent_key_text(AgentKey("h1", "k1", bytes(32))), 0o644)))
    with pytest.raises(ConfigError, match=r"^\[agents\] keys_file: .*keys\.yaml has mode 0660, it must be 0600\.$"):
        read_master_keys(str(secret(tmp_path / "keys.yaml", master_keys_text({"k1": bytes(32)}), 0o660)))


def test_bad_options_of_an_agent(site: Site) -> None:
    key = derive("k1", bytes(32), "h1")
    secret(site.key, agent_key_text(AgentKey(key.host, key.id, key.key)))
    good = {"transport_urls": "rabbit://a/", "key_file": str(site.key)}
    for changes, sentence in (
        ({"transport_urls": ""}, r"\[agent\] transport_urls: number 1 is not a transport URL"),
        ({"transport_urls": None}, r"\[agent\] transport_urls is not set"),
        ({"ca_file": "/nowhere/ca"}, r"\[agent\] ca_file: /nowhere/ca cannot be read"),
        ({"key_file": "/nowhere/key"}, r"\[agent\] key_file: there is no file /nowhere/key"),
    ):
        options = good | changes
        with pytest.raises(ConfigError, match=sentence):
            site.agent_bus("".join(f"{name} = {value}\n" for name, value in options.items() if value is not None))
    with pytest.raises(
        ConfigError, match=r"^\[agent\] key_file: .*h1\.yaml is the key of 'h1', and this host is 'h2'\.$"
    ):
        site.agent_bus("".join(f"{name} = {value}\n" for name, value in good.items()), "h2")
