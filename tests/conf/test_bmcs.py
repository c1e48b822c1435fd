# SPDX-License-Identifier: Apache-2.0
"""Which driver asks which host's BMC, and the second power path: what an operator may say, and what ends the start."""

# One mistake, one line: a table that is wrapped is not read.
# ruff: noqa: E501
from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_load import BMC_PASSWORD, HOST, House

from vmhad.conf.keys_file import master_keys_text
from vmhad.conf.settings import ConfigError
from vmhad.ports import Unanswered
from vmhad.wiring import open_hands, open_power

Change = Callable[[House], object]
PDU = "/redfish/v1/PowerEquipment/RackPDUs/1"


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_each_host_has_a_driver_of_its_own(house: House) -> None:
    house.set("power", driver="redfish", ca_file=house.where / "vmhad.conf")
    house.credentials = f"default: {BMC_PASSWORD * 4}\nh2: short\ndefault/second_power: of-the-chassis\n"
    house.host(0)["bmc"]["system"] = "System.Embedded.1"
    house.host(1)["bmc"].update(driver="ipmi")
    house.host(2)["bmc"].update(address="192.0.2.1", system="/redfish/v1/Systems/2/", ca_file="/etc/hostname")
    house.host(2)["second_power"] = {"address": "192.0.2.77", "user": "x", "driver": "redfish", "system": "bay-3"}
    house.host(3)["second_power"] = {"address": "192.0.2.77", "user": "x", "system": f"{PDU}/Outlets/A4"}
    told = house.load()
    first, ipmi, third, fourth = (told.power.bmcs[host] for host in ("h1", "h2", "h3", "h4"))
    assert (first.driver, first.port, first.password) == ("redfish", 443, BMC_PASSWORD * 4)
    assert (first.system, third.system) == ("/redfish/v1/Systems/System.Embedded.1", "/redfish/v1/Systems/2")
    assert (first.ca_file, third.ca_file) == (str(house.where / "vmhad.conf"), "/etc/hostname")
    assert (ipmi.driver, ipmi.port, ipmi.privilege, ipmi.password) == ("ipmi", 623, "operator", "short")
    assert sorted(told.power.second) == ["h3", "h4"] and fourth.second is not None and fourth.second.outlet
    assert fourth.second.system == f"{PDU}/Outlets/A4"
    bay = told.power.second["h3"]
    assert (bay.system, bay.password, bay.outlet) == ("/redfish/v1/Systems/bay-3", "of-the-chassis", False)
    assert "of-the-chassis" not in repr(told) and BMC_PASSWORD not in repr(told)


def test_outlets_have_passwords_by_their_pdus(house: House) -> None:
    house.credentials += f"default/outlets: of-all\n'default/outlets/192.0.2.77': of-one\nh1/outlets: {'x' * 40}\n"
    one, two = ({"address": f"192.0.2.{n}", "user": "x"} for n in (77, 78))
    both = [{**one, "driver": "redfish", "system": f"{PDU}/Outlets/{name}"} for name in ("A1", "A2")]
    house.host(0)["outlets"] = [{**one, "driver": "redfish", "system": "x"}, {**two, "driver": "redfish"}]
    house.host(1)["outlets"] = [{**one, "port": 1}, {**two, "port": 1, "guid": "0" * 32}]
    house.host(2)["outlets"] = both
    told = house.load().power
    assert sorted(told.outlets) == ["h1", "h2", "h3"] and not told.second
    assert [one.password for one in told.outlets["h1"]] == ["of-one", "x" * 40]
    assert [one.password for one in told.outlets["h2"]] == ["of-one", "of-all"]
    assert [one.system for one in told.outlets["h3"]] == [f"{PDU}/Outlets/A1", f"{PDU}/Outlets/A2"]
    assert all(one.outlet for ours in told.outlets.values() for one in ours)
    assert "of-one" not in repr(told) and "of-all" not in repr(told)


def test_outlets_are_opened_as_one_path(house: House) -> None:
    """Nobody is there; who was asked is told by the words. The hosts have different numbers of them."""
    for number, port in enumerate((9, 10, 11, 12)):
        house.host(number)["bmc"].update(address="127.0.0.1", port=port)
    places = [{"address": "127.0.0.1", "port": port, "user": "x"} for port in range(20, 26)]
    house.host(0)["outlets"], house.host(1)["outlets"] = places[:3], [{**places[3], "driver": "redfish"}, places[4]]
    house.host(2)["second_power"] = places[5]
    house.credentials += "default/outlets: x\ndefault/second_power: x\n"
    power = open_power(house.load())
    gone = "connection refused"
    first = f"first path: BMC 127.0.0.1:%d: {gone}; second path: "
    assert power.read("h1")[1] == first % 9 + "; ".join(
        f"{n} of 3: BMC 127.0.0.1:{port}: {gone}" for n, port in ((1, 20), (2, 21), (3, 22))
    )
    assert power.read("h2")[1] == (
        first % 10 + f"1 of 2: BMC 127.0.0.1:23: {gone}; 2 of 2: BMC 127.0.0.1:24: {gone}"
    )
    assert power.read("h3")[1] == first % 11 + f"BMC 127.0.0.1:25: {gone}"
    assert power.read("h4")[1] == f"BMC 127.0.0.1:12: {gone}"
    for host in ("h1", "h2", "h3", "h4"):
        with pytest.raises(Unanswered):
            power.off(host)


def test_a_driver_is_opened_for_each_host(house: House, tmp_path: Path) -> None:
    """Nobody is there; who was asked is told by the words."""
    for number, port in enumerate((9, 10, 11, 12)):
        house.host(number)["bmc"].update(address="127.0.0.1", port=port)
    house.host(0)["bmc"].update(driver="redfish", system="1")
    house.host(1)["second_power"] = {"address": "127.0.0.1", "port": 13, "user": "x", "driver": "redfish"}
    house.credentials = f"default: {BMC_PASSWORD}\ndefault/second_power: x\n"
    power = open_power(house.load())
    assert power.read("h1")[1] == "BMC 127.0.0.1:9: connection refused"
    assert power.read("h2")[1] == (
        "first path: BMC 127.0.0.1:10: connection refused; second path: BMC 127.0.0.1:13: connection refused"
    )
    assert power.read("h3")[1] == "BMC 127.0.0.1:11: connection refused"
    for host in ("h1", "h2", "h3"):
        with pytest.raises(Unanswered):
            power.off(host)
    assert power.read("h9")[1] == "no BMC is configured for h9"


def bmc(**fields: Any) -> Change:
    return lambda house: house.host()["bmc"].update(**fields)


def no_ca(house: House) -> None:
    house.set("power", driver="redfish", ca_file="/nowhere/ca")


def redfish(**fields: Any) -> Change:
    return lambda house: house.host()["bmc"].update(driver="redfish", **fields)


def one_system(house: House) -> None:
    for number, system in enumerate(("1", "/redfish/v1/Systems/1")):
        house.host(number)["bmc"].update(driver="redfish", address="192.0.2.1", system=system)


def second(**fields: Any) -> Change:
    def spoil(house: House) -> None:
        house.credentials += "default/second_power: x\n"
        house.host()["second_power"] = {"address": "192.0.2.99", "user": "x", **fields}

    return spoil


def outlets(*entries: Any, **beside: Any) -> Change:
    """Two that are well, in each of which what the entry says is changed."""

    def spoil(house: House) -> None:
        house.credentials += "default/second_power: x\ndefault/outlets: x\n"
        told = [{"address": f"192.0.2.{90 + n}", "user": "x", **entry} for n, entry in enumerate(entries)]
        house.host().update(outlets=told, **beside)

    return spoil


def outlets_as(value: Any) -> Change:
    return lambda house: house.host().update(outlets=value)


def outlet_of_two_hosts(house: House) -> None:
    outlets({}, {})(house)
    house.host(1)["outlets"] = [{"address": "192.0.2.95", "user": "x"}, {"address": "192.0.2.91", "user": "x"}]


def outlets_without_password(house: House) -> None:
    house.host()["outlets"] = [{"address": f"192.0.2.{n}", "user": "x"} for n in (90, 91)]


def long_password_of_outlets(house: House) -> None:
    house.credentials += f"'h1/outlets/192.0.2.91': {'p' * 21}\n"
    outlets({}, {})(house)


def second_without_password(house: House) -> None:
    house.host()["second_power"] = {"address": "192.0.2.99", "user": "x"}


def test_agents_ask_the_first_path_and_the_engine_the_second(house: House, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.touch(0o600)
    keys.write_text(master_keys_text({"k1": bytes(32)}))
    house.set("agents", enabled="true", transport_urls="rabbit://a/", keys_file=keys)
    house.host()["bmc"].update(via="agents", driver="redfish", ca_file="/nowhere/but/at/the/agents")
    house.host()["second_power"] = {"address": "127.0.0.1", "port": 13, "user": "x"}
    house.credentials += "default/second_power: x\n"
    told = house.load()
    with ExitStack() as opened:
        power = open_power(told, open_hands(replace(told, agents=replace(told.agents, transport_urls=())), opened))
        with pytest.raises(Unanswered) as caught:
            power.off("h1")
    assert str(caught.value) == (
        "first path: the order did not reach the agent of h2: there is no broker; "
        "second path: BMC 127.0.0.1:13: connection refused"
    )


BAD: list[tuple[str, Change, str]] = [
    ("power ca", no_ca, r"\[power\] ca_file: /nowhere/ca cannot be read"),
    ("driver of a BMC", bmc(driver="snmp"), HOST + r"\.bmc\.driver must be one of ipmi, redfish"),
    ("system of an IPMI BMC", bmc(system="1"), HOST + r"\.bmc has an unknown field 'system'; .*"),
    ("privilege of a Redfish BMC", redfish(privilege="user"), HOST + r"\.bmc has an unknown field 'privilege'; .*"),
    ("ca of a BMC", redfish(ca_file="/nowhere/ca"), HOST + r"\.bmc\.ca_file names /nowhere/ca, which cannot be read"),
    ("trust in anybody", redfish(verify=False), HOST + r"\.bmc has an unknown field 'verify'; .*"),
    ("user of a Redfish BMC", redfish(user="a:b"), HOST + r"\.bmc\.user may have no colon.*"),
    ("one service, two hosts", redfish(address="192.0.2.2", port=623), r".*hosts\[1\] has the BMC 192\.0\.2\.2 port 623, which is the BMC of 'h1'"),
    ("one system, two hosts", one_system, r".*hosts\[1\] has the BMC 192\.0\.2\.1 port 443, which is the BMC of 'h1'"),
    ("second path through the first", second(address="192.0.2.1"), HOST + r" has the BMC 192\.0\.2\.1 port 623, which is the BMC of 'h1'"),
    ("second path of one, BMC of another", second(address="192.0.2.2"), r".*hosts\[1\] has the BMC 192\.0\.2\.2 port 623, which is the BMC of 'h1'"),
    ("second path by agents", second(via="agents"), HOST + r"\.second_power has an unknown field 'via'; .*"),
    ("outlet as BMC", bmc(outlet=True), HOST + r"\.bmc has an unknown field 'outlet'; .*"),
    ("outlet of a PDU as BMC", redfish(system=f"{PDU}/Outlets/A1"), HOST + r"\.bmc\.system is an outlet, which can be a second_power or one of outlets only.*"),
    ("outlet perhaps", second(outlet="perhaps"), HOST + r"\.second_power\.outlet must be true or false"),
    ("outlets that are none", outlets_as({"address": "192.0.2.9"}), HOST + r"\.outlets must be a list with at least one entry"),
    ("no outlets", outlets_as([]), HOST + r"\.outlets must be a list with at least one entry"),
    ("one outlet", outlets({}), HOST + r"\.outlets must have at least two entries: a single outlet is a second_power"),
    ("nine outlets", outlets(*[{}] * 9), HOST + r"\.outlets must have 8 entries at most"),
    ("outlets beside a second path", outlets({}, {}, second_power={"address": "192.0.2.99", "user": "x"}), HOST + r"\.outlets stands beside a second_power: a host has one second power path"),
    ("outlet without user", outlets({}, {"user": ""}), HOST + r"\.outlets\[1\]\.user must be a text.*"),
    ("outlet by name", outlets({"address": "pdu-1"}, {}), HOST + r"\.outlets\[0\]\.address must be an IP address.*"),
    ("outlet that says it is one", outlets({}, {"outlet": True}), HOST + r"\.outlets\[1\] has an unknown field 'outlet'; .*"),
    ("outlet by agents", outlets({"via": "agents"}, {}), HOST + r"\.outlets\[0\] has an unknown field 'via'; .*"),
    ("driver of an outlet", outlets({}, {"driver": "snmp"}), HOST + r"\.outlets\[1\]\.driver must be one of ipmi, redfish"),
    ("one switch twice", outlets({}, {"address": "192.0.2.90"}), HOST + r" has the BMC 192\.0\.2\.90 port 623, which is the BMC of 'h1'"),
    ("one outlet twice", outlets({"driver": "redfish", "system": "a"}, {"driver": "redfish", "address": "192.0.2.90", "system": "a"}), HOST + r" has the BMC 192\.0\.2\.90 port 443, which is the BMC of 'h1'"),
    ("one outlet by two spellings", outlets({"driver": "redfish", "system": f"{PDU}/Outlets/A1"}, {"driver": "redfish", "address": "192.0.2.90", "system": f"{PDU}//outlets/%611"}), HOST + r" has the BMC 192\.0\.2\.90 port 443, which is the BMC of 'h1'"),
    ("one device under two addresses", outlets({"guid": "1" * 32}, {"guid": "1" * 32}), HOST + r" has a BMC with the guid 1{32}, which is that of 'h1'"),
    ("outlet that is the BMC", outlets({}, {"address": "192.0.2.1"}), HOST + r" has the BMC 192\.0\.2\.1 port 623, which is the BMC of 'h1'"),
    ("outlet of two hosts", outlet_of_two_hosts, r".*hosts\[1\] has the BMC 192\.0\.2\.91 port 623, which is the BMC of 'h1'"),
    ("outlets without password", outlets_without_password, r"\[power\] credentials_file: .* has no password for 'h1/outlets' and no default/outlets"),
    ("password of an IPMI outlet", long_password_of_outlets, r".*h1/outlets/192\.0\.2\.91 is longer than the 20 bytes of an IPMI password"),
    ("second path without password", second_without_password, r"\[power\] credentials_file: .* has no password for 'h1/second_power' and no default/second_power"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_bmc(house: House, change: Change, sentence: str) -> None:
    change(house)
    with pytest.raises(ConfigError) as caught:
        house.load()
    said = str(caught.value)
    assert re.search(rf"(^|/){sentence}", said), said
    assert said.endswith(".") and "\n" not in said and BMC_PASSWORD not in said
