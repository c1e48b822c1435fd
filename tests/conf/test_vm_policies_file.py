# SPDX-License-Identifier: Apache-2.0
"""Policies of VMs as a file has them: what is written is read again, and what is wrong is told by its field."""

# One mistake, one line: a table that is wrapped is not read.
# ruff: noqa: E501
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vmhad.conf.settings import ConfigError
from vmhad.conf.vm_policies_file import load_policies, load_policy, policies_text, policy_text, with_said
from vmhad.kernel.policy import OnFailure, OnIoError
from vmhad.kernel.vm_policy import SETTINGS, Match, Protect, Settings, VmPolicies, VmPolicy, ties

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "etc" / "vmhad" / "vm-policies.yaml.sample"
DOC = ROOT / "doc" / "source" / "admin" / "vm-policies.rst"
ALL_SAID = Settings(
    Protect.NO, -100, "on", ("db", "mq: 2"), 3600.0, "tcp:5432", False, True, 1, 86400.0,
    OnFailure.LEAVE, OnFailure.RESTART, OnIoError.RESUME, OnFailure.LEAVE,
)  # fmt: skip
HELD = VmPolicies(7, (
    VmPolicy("all: ü", Match(), ALL_SAID),
    VmPolicy("many", Match(server=("s1", "s2"), group=("no", "yes"), metadata={"role": ("db", "mq"), "tier": ("1",)}, zone=("az: 1",)), Settings(Protect.FLAGGED)),
    VmPolicy("one", Match(tag=("1.5",)), Settings(Protect.YES, instance_window_s=60.0)),
))  # fmt: skip
GOOD: dict[str, Any] = {"name": "p", "match": {"tag": "x"}, "settings": {"priority": 1}}


def read(tmp_path: Path, value: object) -> VmPolicy:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(value))
    return load_policy(str(tmp_path / "p.yaml"))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert set(ALL_SAID.said) == set(SETTINGS)
    (tmp_path / "all.yaml").write_text(policies_text(HELD))
    assert load_policies(str(tmp_path / "all.yaml")) == (7, HELD.policies)
    for one in HELD.policies:
        (tmp_path / "one.yaml").write_text(policy_text(one))
        assert load_policy(str(tmp_path / "one.yaml")) == one


def test_none_at_all_are_a_set_too(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(policies_text(VmPolicies(3)))
    assert load_policies(str(tmp_path / "all.yaml")) == (3, ())
    (tmp_path / "all.yaml").write_text("policies: []\n")
    assert load_policies(str(tmp_path / "all.yaml")) == (None, ())


def test_the_sample_is_good_and_names_every_setting() -> None:
    version, policies = load_policies(str(SAMPLE))
    assert version is None and len(policies) > 3 and not list(ties(policies))
    assert {name for one in policies for name in one.settings.said} == set(SETTINGS)


def test_every_setting_stands_in_the_guide() -> None:
    text = DOC.read_text()
    assert [name for name in SETTINGS if f"``{name}``" not in text] == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"name": ""}, "name must be a text"),
        ({"name": " x"}, "name must be a name of at most 255 characters, without blanks around it"),
        ({"name": "x" * 256}, "name must be a name of at most 255"),
        ({"name": "a\nb"}, "name must be a name"),
        ({"more": 1}, "the file has an unknown field 'more'; known are match, name, settings"),
        ({"match": {}}, "match must name at least one of server, group, metadata, .*; «all» is for every VM"),
        ({"match": "everything"}, "match must be a mapping"),
        ({"match": None}, "match must be a mapping"),
        ({"match": {"host": "h1"}}, "match has an unknown field 'host'"),
        ({"match": {"tag": []}}, "match.tag must be a list with at least one entry"),
        ({"match": {"tag": 5}}, "match.tag must be a text"),
        ({"match": {"tag": ["a", 5]}}, r"match.tag\[1\] must be a text"),
        ({"match": {"project": "my shop"}}, "match.project must be an id, which 'my shop' is none of"),
        ({"match": {"domain": ["d1", "x" * 65]}}, "match.domain must be an id"),
        ({"match": {"metadata": "role"}}, "match.metadata must be a mapping"),
        ({"match": {"metadata": {}}}, "match.metadata must name at least one key and its value"),
        ({"match": {"metadata": {"role": ""}}}, "match.metadata.role must be a text"),
        ({"settings": {}}, "settings must say at least one of protect, priority"),
        ({"settings": {"readiness": "tcp"}}, "settings has an unknown field 'readiness'; known are "),
        ({"settings": {"spares": 1}}, "settings has an unknown field 'spares'"),
        ({"settings": {"protect": "maybe"}}, "settings.protect must be one of yes, no, flagged"),
        ({"settings": {"protect": None}}, "settings.protect must be one of"),
        ({"settings": {"priority": 101}}, "settings.priority must be a whole number from -100 to 100"),
        ({"settings": {"priority": True}}, "settings.priority must be a whole number"),
        ({"settings": {"priority": 1.5}}, "settings.priority must be a whole number"),
        ({"settings": {"order_group": ""}}, "settings.order_group must be a text"),
        ({"settings": {"storage_only_proof": "x"}}, "settings.storage_only_proof must be true or false"),
        ({"settings": {"instance_starts_max": 0}}, "settings.instance_starts_max must be a whole number from 1 to 100"),
        ({"settings": {"instance_window_s": 0}}, "settings.instance_window_s must be a whole number from 1 to 86400"),
        ({"settings": {"on_crash": "resume"}}, "settings.on_crash must be one of restart, leave"),
        ({"settings": {"on_io_error": "ignore"}}, "settings.on_io_error must be one of restart, leave, resume"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(tmp_path: Path, changed: dict[str, Any], complaint: str) -> None:
    assert read(tmp_path, GOOD) == VmPolicy("p", Match(tag=("x",)), Settings(priority=1))
    with pytest.raises(ConfigError, match=f"p.yaml: {complaint}"):
        read(tmp_path, GOOD | changed)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file must be a mapping"),
        ("- 1", "the file must be a mapping"),
        ("policies: {}", "policies must be a list with at least one entry"),
        ("policies:\n- name: x", r"policies\[0\] lacks the field 'match'"),
        ("version: -1\npolicies: []", "version must be a whole number from 0"),
        ("policies: []\nsegments: []", "the file has an unknown field 'segments'"),
        ("policies: [", "line 1: this is not YAML"),
        ("policies: []\npolicies: []", "line 2: a key stands twice"),
    ],
)
def test_a_set_that_is_wrong_is_told_by_its_field(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "all.yaml").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_policies(str(tmp_path / "all.yaml"))


def test_two_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"policies": [GOOD, GOOD]}))
    with pytest.raises(ConfigError, match=r"policies\[1\] is the second policy 'p'"):
        load_policies(str(tmp_path / "all.yaml"))


@pytest.mark.parametrize(
    ("pairs", "settings"),
    [
        (["priority=5"], Settings(priority=5, order_group="db")),
        (["priority=", "protect=flagged"], Settings(Protect.FLAGGED, order_group="db")),
        (["order_group=a=b"], Settings(priority=1, order_group="a=b")),
        (["order_group=[1]"], Settings(priority=1, order_group="[1]")),
        (["protect=no", "instance_window_s=60"], Settings(Protect.NO, 1, "db", instance_window_s=60.0)),
        (["storage_only_proof=no"], Settings(priority=1, order_group="db", storage_only_proof=False)),
        (["on_panic=leave", "on_panic ="], "there is no setting 'on_panic '; there are: protect, "),
        (["priority=5", "priority=6"], "priority is named twice"),
        (["priority"], "'priority' must be SETTING=VALUE; SETTING= takes one away"),
        (["priority=", "order_group="], "settings must say at least one of"),
        (["priority=x"], "the command line: settings.priority must be a whole number"),
        (["priority=[1"], "this is not YAML"),
    ],
)
def test_settings_are_said_on_the_command_line(pairs: list[str], settings: Settings | str) -> None:
    policy = VmPolicy("p", Match(tag=("x",)), Settings(priority=1, order_group="db"))
    if isinstance(settings, str):
        with pytest.raises(ConfigError, match=settings):
            with_said(policy, pairs)
    else:
        assert with_said(policy, pairs) == VmPolicy("p", policy.match, settings)
