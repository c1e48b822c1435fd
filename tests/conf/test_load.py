# SPDX-License-Identifier: Apache-2.0
"""What an operator can get wrong ends the start with one sentence that says where, and no secret is in it."""

# One mistake, one line: a table that is wrapped is not read.
# ruff: noqa: E501
from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vmhad.conf import policy as policy_options
from vmhad.conf.keys_file import master_keys_text
from vmhad.conf.load import load
from vmhad.conf.opts import list_opts
from vmhad.conf.settings import ConfigError, Settings
from vmhad.kernel.policy import AfterFence, CutStorage, OnIoError, Policy, SilentMeans
from vmhad.ports import Unanswered
from vmhad.wiring import open_hands, open_power

SAMPLES = Path(__file__).parents[2] / "etc" / "vmhad"
BMC_PASSWORD = "pw-of-bmc"
NOVA_PASSWORD = "pw-of-nova"
Options = dict[str, dict[str, Any]]
Change = Callable[["House"], object]


class House:
    """The files of one engine, good until a test spoils them."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.options: Options = {
            "engine": {"segments_file": where / "segments.yaml", "etcd_endpoints": "http://a:2379,http://b:2379"},
            "nova": {"auth_url": "http://k/v3", "password": NOVA_PASSWORD},
            "power": {"credentials_file": where / "secret.yaml"},
            "policy": {},
            "nova_notifications": {},
            "agents": {},
        }
        self.segments: Any = {"segments": [segment("s1", "h1", "h2"), segment("s2", "h3", "h4", first=3)]}
        self.credentials = f"default: {BMC_PASSWORD}\n"
        self.credentials_mode = 0o600
        self.more_lines = ""

    def load(self) -> Settings:
        lines = []
        for group, options in self.options.items():
            lines.append(f"[{group}]")
            for name, value in options.items():
                lines.extend(f"{name} = {one}" for one in (value if isinstance(value, list) else [value]))
        (self.where / "vmhad.conf").write_text("\n".join(lines) + "\n" + self.more_lines)
        if self.segments is not None:
            text = self.segments if isinstance(self.segments, str) else yaml.safe_dump(self.segments)
            (self.where / "segments.yaml").write_text(text)
        secret = self.where / "secret.yaml"
        secret.touch()
        secret.chmod(0o600)
        secret.write_text(self.credentials)
        secret.chmod(self.credentials_mode)
        return load(["--config-file", str(self.where / "vmhad.conf")])

    def set(self, group: str, **options: Any) -> None:
        self.options[group].update(options)

    def drop(self, group: str, name: str) -> None:
        del self.options[group][name]

    def host(self, number: int = 0) -> dict[str, Any]:
        hosts = [host for entry in self.segments["segments"] for host in entry["hosts"]]
        found: dict[str, Any] = hosts[number]
        return found

    def override(self, **policy: Any) -> None:
        self.segments["segments"][0]["policy"] = policy


def segment(name: str, *hosts: str, first: int = 1) -> dict[str, Any]:
    return {
        "name": name,
        "hosts": [
            {"name": host, "domains": {"rack": "r1"}, "bmc": {"address": f"192.0.2.{number}", "user": "vmhad"}}
            for number, host in enumerate(hosts, first)
        ],
    }


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_good_house(house: House) -> None:
    guid = "A1234567-89AB-CDEF-A123-456789ABCDEF"
    house.host()["bmc"].update(port=6230, privilege="administrator", guid=guid)
    house.override(silent_means="fence", on_io_error="resume", failed_share_max=1, evacuations_max=3, shared_ephemeral=True)
    house.set("policy", after_fence="power_on", evacuations_max=5)
    told = house.load()
    assert [s.name for s in told.segments] == ["s1", "s2"]
    assert told.segments[0].names == ("h1", "h2")
    assert told.segments[0].host("h1").domains == {"rack": "r1"}
    bmc = told.power.bmcs["h1"]
    assert (bmc.address, bmc.port, bmc.user, bmc.password) == ("192.0.2.1", 6230, "vmhad", BMC_PASSWORD)
    assert (bmc.privilege, bmc.guid) == ("administrator", guid.replace("-", "").lower())
    assert (told.power.bmcs["h2"].port, told.power.bmcs["h2"].privilege) == (623, "operator")
    first, second = told.policies["s1"], told.policies["s2"]
    assert first.on_io_error is OnIoError.RESUME
    assert (first.silent_means, first.evacuations_max, first.shared_ephemeral) == (SilentMeans.FENCE, 3, True)
    assert first.failed_share_max == 1.0 and first.after_fence is AfterFence.POWER_ON
    assert second == Policy(after_fence=AfterFence.POWER_ON, evacuations_max=5)
    assert told.engine.membership_url == "etcd3+http://a:2379,b:2379"
    assert told.nova.password == NOVA_PASSWORD
    assert told.notifications.transport_urls == ()


def test_no_secret_in_a_repr(house: House) -> None:
    house.set("nova_notifications", transport_urls=["rabbit://u:pw-of-rabbit@a:5672,u:pw-of-rabbit@b:5672/"])
    told = house.load()
    assert told.notifications.transport_urls == ("rabbit://u:pw-of-rabbit@a:5672,u:pw-of-rabbit@b:5672/",)
    assert "pw-of" not in repr(told)


def test_several_brokers(house: House) -> None:
    house.set("nova_notifications", transport_urls=["rabbit://cell1/", "rabbit://cell2/"])
    assert house.load().notifications.transport_urls == ("rabbit://cell1/", "rabbit://cell2/")


def test_standalone(house: House) -> None:
    house.drop("engine", "etcd_endpoints")
    house.set("engine", journal="sqlite", standalone="true", sqlite_path="/var/lib/x/j.sqlite")
    told = house.load()
    assert (told.engine.journal, told.engine.membership_url) == ("sqlite", "file:///var/lib/x/members")


def test_password_file(house: House) -> None:
    house.drop("nova", "password")
    path = house.where / "nova-password"
    path.touch(mode=0o600)
    path.write_text("from-file\n")
    house.set("nova", password_file=path)
    assert house.load().nova.password == "from-file"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"^\[nova\] password_file: .*nova-password has mode 0640, it must be 0600\.$"):
        house.load()


def test_own_password_before_default(house: House) -> None:
    house.credentials = f"default: {BMC_PASSWORD}\nh2: 'another'\n"
    bmcs = house.load().power.bmcs
    assert (bmcs["h1"].password, bmcs["h2"].password) == (BMC_PASSWORD, "another")


def test_a_bmc_that_peers_ask_needs_no_password_here(house: House, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.touch(0o600)
    keys.write_text(master_keys_text({"k1": bytes(32)}))
    house.set("agents", enabled="true", transport_urls="rabbit://a/", keys_file=keys)
    house.host(0)["bmc"]["via"] = "agents"
    house.host(1)["bmc"]["via"] = "engine"
    house.credentials = f"h2: {BMC_PASSWORD}\nh3: {BMC_PASSWORD}\nh4: {BMC_PASSWORD}\n"
    told = house.load()
    assert told.power.via_agents == {"h1"}
    assert (told.power.bmcs["h1"].password, told.power.bmcs["h2"].password) == ("", BMC_PASSWORD)
    with ExitStack() as opened:
        power = open_power(told, open_hands(replace(told, agents=replace(told.agents, transport_urls=())), opened))
        # Its only peer is asked, on no bus here; of the others nobody is.
        with pytest.raises(Unanswered, match="the order did not reach the agent of h2: there is no broker"):
            power.off("h1")


def alone_via_agents(house: House) -> None:
    house.segments["segments"].append(segment("s3", "h5", first=5))
    house.host(4)["bmc"]["via"] = "agents"


def shared_address(house: House) -> None:
    house.host(2)["bmc"]["address"] = "192.0.2.1"


def shared_guid(house: House) -> None:
    house.host(0)["bmc"]["guid"] = "a" * 32
    house.host(3)["bmc"]["guid"] = "A" * 32


def nested(path: str, value: Any) -> Change:
    """Spoils one field of the first host."""

    def spoil(house: House) -> None:
        *steps, last = path.split(".")
        place = house.host()
        for step in steps:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return spoil


def whole(value: Any) -> Change:
    return lambda house: setattr(house, "segments", value)


def credentials(text: str, mode: int = 0o600) -> Change:
    def spoil(house: House) -> None:
        house.credentials, house.credentials_mode = text, mode

    return spoil


def option(group: str, **options: Any) -> Change:
    return lambda house: house.set(group, **options)


def override(**policy: Any) -> Change:
    return lambda house: house.override(**policy)


def without(group: str, name: str) -> Change:
    return lambda house: house.drop(group, name)


def lines(text: str) -> Change:
    return lambda house: setattr(house, "more_lines", text)


def shared_plane(house: House) -> None:
    for number in (0, 3):
        house.host(number)["planes"] = {"tenant": "192.0.2.77"}


HOST = r"segments\.yaml: segments\[0\]\.hosts\[0\]"
BAD: list[tuple[str, Change, str]] = [
    ("no segments file", option("engine", segments_file="/nowhere/s.yaml"), r"\[engine\] segments_file: there is no file /nowhere/s\.yaml"),
    ("plane shared", shared_plane, r".*segments\[1\]\.hosts\[1\] has the tenant address 192\.0\.2\.77, which is that of 'h1'"),
    ("plane misspelt", nested("planes", {"tenants": "192.0.2.77"}), HOST + r"\.planes has an unknown field 'tenants'"),
    ("no credentials file", option("power", credentials_file="/nowhere/c"), r"\[power\] credentials_file: there is no file /nowhere/c"),
    ("credentials readable", credentials("default: x\n", 0o644), r"\[power\] credentials_file: .*secret\.yaml has mode 0644, it must be 0600"),
    ("credentials not yaml", credentials(f"default: [{BMC_PASSWORD}\nx"), r"\[power\] credentials_file: .*, line \d: this is not YAML"),
    ("credentials a text", credentials(BMC_PASSWORD), r"secret\.yaml: the file must be a mapping"),
    ("credentials a number", credentials("default: 1234"), r"secret\.yaml: default must be a text"),
    ("password too long", credentials("default: " + "x" * 21), r"secret\.yaml: default is longer than the 20 bytes"),
    ("no password", credentials("h1: x\nh2: x\nh3: x\n"), r"\[power\] credentials_file: .* has no password for 'h4' and no default"),
    ("journal", option("engine", journal="mysql"), r"\[engine\] journal: .*"),
    ("power driver", option("power", driver="snmp"), r"\[power\] driver: .*"),
    ("lease not a number", option("engine", lease_s="soon"), r"\[engine\] lease_s: .*"),
    ("lease too long", option("engine", lease_s="301"), r"\[engine\] lease_s: .*"),
    ("sqlite", option("engine", journal="sqlite"), r"\[engine\] journal = sqlite needs standalone = true.*"),
    ("no etcd", without("engine", "etcd_endpoints"), r"\[engine\] journal = etcd needs etcd_endpoints"),
    ("endpoint", option("engine", etcd_endpoints="a:2379"), r"\[engine\] etcd_endpoints: 'a:2379' must be http.*"),
    ("mixed endpoints", option("engine", etcd_endpoints="http://a:1,https://b:1"), r"\[engine\] etcd_endpoints: 'https://b:1' must be .*"),
    ("certificate without https", option("engine", etcd_ca_file="/etc/hostname"), r"\[engine\] etcd_ca_file is of no use: .*not https.*"),
    ("no such certificate", option("engine", etcd_endpoints="https://a:1", etcd_ca_file="/nowhere/ca.pem"), r"\[engine\] etcd_ca_file: /nowhere/ca.pem cannot be read.*"),
    ("certificate without key", option("engine", etcd_endpoints="https://a:1", etcd_cert_file="/etc/hostname"), r"\[engine\] etcd_cert_file and etcd_key_file go together.*"),
    ("membership", option("engine", membership_url="etcd"), r"\[engine\] membership_url must be a URL.*"),
    ("engine name", option("engine", name=""), r"\[engine\] name must not be empty"),
    ("lease", option("engine", lease_s="9"), r"\[engine\] lease_s = 9 is too short: two thirds of it must be at least 7 s, .*"),
    ("lease for nova", option("nova", timeout_s="12"), r"\[engine\] lease_s = 15 is too short: .*\[nova\] timeout_s = 12.*"),
    ("lease for power", option("power", timeout_s="9"), r"\[engine\] lease_s = 15 is too short: .*\[power\] timeout_s = 9.*"),
    ("no auth_url", without("nova", "auth_url"), r"\[nova\] auth_url is not set"),
    ("no password of nova", without("nova", "password"), r"\[nova\] needs either password or password_file, and not both"),
    ("two passwords", option("nova", password_file="/x"), r"\[nova\] needs either password or password_file, and not both"),
    ("transport", option("nova_notifications", transport_urls="host"), r"\[nova_notifications\] transport_urls: number 1 is not .*"),
    ("agents' transport", option("agents", enabled="true", transport_urls="host"), r"\[agents\] transport_urls: number 1 is not .*"),
    ("agents without a bus", option("agents", enabled="true"), r"\[agents\] enabled = true needs transport_urls, here or in \[nova_notifications\]"),
    ("agents without keys", option("agents", enabled="true", transport_urls="rabbit://a/", keys_file="/nowhere/k"), r"\[agents\] keys_file: there is no file /nowhere/k"),
    ("agents' ca", option("agents", enabled="true", transport_urls="rabbit://a/", ca_file="/nowhere/ca"), r"\[agents\] ca_file: /nowhere/ca cannot be read"),
    ("replay window", option("agents", replay_window_s="1"), r"\[agents\] replay_window_s: .*"),
    ("misspelt option", option("policy", failed_share="0.2"), r".*vmhad\.conf: \[policy\] has an unknown option 'failed_share'"),
    ("misspelt section", lines("[polcy]\nevacuations_max = 1\n"), r".*vmhad\.conf: there is no section \[polcy\]"),
    ("not an ini file", lines("what is this"), r".*vmhad\.conf: this is not an ini file"),
    ("policy value", option("policy", silent_means="shoot"), r"\[policy\] silent_means: .*"),
    ("policy value of another option", option("policy", on_crash="resume"), r"\[policy\] on_crash: .*restart, leave.*"),
    ("policy limit", option("policy", failed_share_max="1.5"), r"\[policy\] failed_share_max: .*"),
    ("policy sense", option("policy", retry_backoff_s="200"), r"\[policy\]: retry_backoff_s is greater than retry_backoff_max_s"),
    ("stale at once", option("policy", channel_stale_s="3"), r"segment 's1': channel_stale_s = 3 must exceed .*"),
    ("override key", override(silent="x"), r".*segments\[0\]\.policy has an unknown key 'silent'"),
    ("override value", override(silent_means="shoot"), r".*segments\[0\]\.policy\.silent_means is not a value of \[policy\] silent_means.*"),
    ("override value of another option", override(on_panic="resume"), r".*policy\.on_panic is not a value of \[policy\] on_panic: .*restart, leave.*"),
    ("override limit", override(failed_share_max=2), r".*policy\.failed_share_max is not a value of \[policy\] failed_share_max.*"),
    ("override bool", override(evacuations_max=True), r".*policy\.evacuations_max is not a value of \[policy\] evacuations_max.*"),
    ("override type", override(shared_ephemeral="perhaps"), r".*policy\.shared_ephemeral is not a value of .*"),
    ("kind of domain", override(spread_over="rak"), r".*segments\[0\] has no host with a domain of the kind 'rak', which spread_over of its policy names"),
    ("override sense", override(retry_backoff_s=200), r".*segments\[0\]\.policy: retry_backoff_s is greater than .*"),
    ("segments not yaml", whole("segments: [\n"), r"\[engine\] segments_file: .*segments\.yaml, line \d: this is not YAML"),
    ("key twice", whole("segments: []\nsegments: []\n"), r"\[engine\] segments_file: .*segments\.yaml, line 2: a key stands twice"),
    ("empty file", whole(""), r".*segments\.yaml: the file must be a mapping"),
    ("no segments", whole({"segments": []}), r".*segments\.yaml: segments must be a list with at least one entry"),
    ("no hosts", whole({"segments": [{"name": "s", "hosts": []}]}), r".*segments\[0\]\.hosts must be a list with at least one entry"),
    ("segment twice", whole({"segments": [segment("s", "a"), segment("s", "b", first=2)]}), r".*segments\[1\]\.name repeats the segment 's'"),
    ("unknown field", nested("rack", "r1"), HOST + r" has an unknown field 'rack'; known are bmc, cut_storage, domains, inventory, name, outlets, planes, second_power"),
    ("when its storage is cut", nested("cut_storage", "soon"), HOST + r"\.cut_storage must be one of beside_power, after_power, never"),
    ("when its storage is cut, as a number", nested("cut_storage", 3), HOST + r"\.cut_storage must be a text.*"),
    ("no bmc", nested("bmc", None), HOST + r" lacks the field 'bmc'"),
    ("no address", nested("bmc.address", None), HOST + r"\.bmc lacks the field 'address'"),
    ("password in the wrong file", nested("bmc.password", "x"), HOST + r"\.bmc has an unknown field 'password'; .*"),
    ("host name", nested("name", "a/b"), HOST + r"\.name may have letters, digits.*"),
    ("numeric name", nested("name", 7), HOST + r"\.name must be a text.*"),
    ("name of a BMC", nested("bmc.address", "bmc1.example"), HOST + r"\.bmc\.address must be an IP address.*"),
    ("port", nested("bmc.port", 70000), HOST + r"\.bmc\.port must be a whole number from 1 to 65535"),
    ("guid", nested("bmc.guid", "xyz"), HOST + r"\.bmc\.guid must be 32 hex digits.*"),
    ("user", nested("bmc.user", "u" * 17), HOST + r"\.bmc\.user is longer than the 16 bytes.*"),
    ("privilege", nested("bmc.privilege", "root"), HOST + r"\.bmc\.privilege must be one of user, operator, administrator"),
    ("way to a BMC", nested("bmc.via", "peers"), HOST + r"\.bmc\.via must be one of engine, agents"),
    ("agents' BMC, no agents", nested("bmc.via", "agents"), r"bmc\.via = agents of 'h1' needs \[agents\] enabled = true"),
    ("agents' BMC, no peers", alone_via_agents, r".*segments\[2\] has one host only, and no agent of a peer can ask the BMC of 'h5'"),
    ("domain", nested("domains.rack", 1), HOST + r"\.domains\.rack must be a text.*"),
    ("host twice", nested("name", "h3"), r".*segments\[1\]\.hosts\[0\] repeats the host 'h3', which is in segment 's1'"),
    ("one BMC, two hosts", shared_address, r".*segments\[1\]\.hosts\[0\] has the BMC 192\.0\.2\.1 port 623, which is the BMC of 'h1'"),
    ("one guid, two hosts", shared_guid, r".*segments\[1\]\.hosts\[1\] has a BMC with the guid a{32}, which is that of 'h1'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_house(house: House, change: Change, sentence: str) -> None:
    change(house)
    with pytest.raises(ConfigError) as caught:
        house.load()
    said = str(caught.value)
    assert re.search(rf"(^|/){sentence}", said), said
    assert said.endswith(".") and "\n" not in said
    assert BMC_PASSWORD not in said and NOVA_PASSWORD not in said


def test_missing_config_file() -> None:
    with pytest.raises(ConfigError, match=r"^--config-file: there is no file /nowhere/vmhad\.conf\.$"):
        load(["--config-file", "/nowhere/vmhad.conf"])


def test_every_policy_field_is_an_option_with_its_default() -> None:
    options = {opt.name: opt for opt in policy_options.OPTS}
    plain = Policy()
    assert set(options) == {field.name for field in fields(Policy)}
    for name, opt in options.items():
        assert opt.default == getattr(plain, name), name


def test_every_option_is_explained() -> None:
    for group, options in list_opts():
        for opt in options:
            assert opt.help and opt.help.endswith((".", ")")), f"[{group.name}] {opt.name}"


def test_samples_load(house: House) -> None:
    house.segments = (SAMPLES / "segments.yaml.sample").read_text()
    house.credentials += "compute-02/second_power: x\ndefault/outlets: x\n"
    told = house.load()
    assert [s.name for s in told.segments] == ["general", "gpu"]
    assert told.policies["gpu"].silent_means is SilentMeans.FENCE
    assert told.power.bmcs["gpu-01"].address == "2001:db8::201"
    assert [one.address for one in told.power.outlets["compute-03"]] == ["192.0.2.130", "192.0.2.131"]
    assert told.segments[0].host("compute-03").cut_storage is CutStorage.AFTER_POWER


def test_options_come_from_the_environment(house: House) -> None:
    os.environ["OS_ENGINE__CALL_TIMEOUT_S"] = "2.5"
    try:
        assert house.load().engine.call_timeout_s == 2.5
    finally:
        del os.environ["OS_ENGINE__CALL_TIMEOUT_S"]
