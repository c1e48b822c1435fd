# SPDX-License-Identifier: Apache-2.0
"""What a policy of VMs says of who is waited for: as a file and a command line have it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmhad.conf.settings import ConfigError
from vmhad.conf.vm_policies_file import load_policies, load_policy, policies_text, with_said
from vmhad.journal import codec
from vmhad.kernel.cloud import Server, ServerState
from vmhad.kernel.vm_policy import VmPolicies, VmPolicy
from vmhad.kernel.vm_resolve import NOWHERE, settings_of, spelled

APP = "{name: app, match: {metadata: {tier: app}}, settings: {order_group: app, after: %s, ready_after_s: %s}}"


def loaded(tmp_path: Path, after: str = "[db, cache]", ready_after_s: str = "20") -> VmPolicy:
    (tmp_path / "app.yaml").write_text(APP % (after, ready_after_s))
    return load_policy(str(tmp_path / "app.yaml"))


def test_it_is_put_on_the_servers_that_match(tmp_path: Path) -> None:
    server = Server("s", "s", "h1", ServerState.ACTIVE, metadata={"tier": "app"})
    said = settings_of((loaded(tmp_path),), server, NOWHERE)
    assert (said.order_group, said.after, said.ready_after_s) == ("app", ("cache", "db"), 20.0)
    assert spelled(said.after) == "cache, db"


def test_a_file_and_the_journal_give_back_what_they_were_given(tmp_path: Path) -> None:
    held = VmPolicies(3, (loaded(tmp_path),))
    (tmp_path / "all.yaml").write_text(policies_text(held))
    assert load_policies(str(tmp_path / "all.yaml")) == (3, held.policies)
    assert codec.decode(VmPolicies, "key", codec.encode(held)) == held


@pytest.mark.parametrize("text", ["db,cache", "db, cache", "[cache, db]"])
def test_a_command_line_names_several_with_commas(tmp_path: Path, text: str) -> None:
    assert with_said(loaded(tmp_path, after="web"), [f"after={text}"]).settings.after == ("cache", "db")


@pytest.mark.parametrize(
    ("after", "ready_after_s", "words"),
    [
        ("['a,b']", "20", "settings.after[0] must be the name of an order group, without a comma"),
        ("[7]", "20", "settings.after[0] must be a text"),
        ("db", "3601", "settings.ready_after_s must be a whole number from 0 to 3600"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, after: str, ready_after_s: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, after, ready_after_s)
    assert words in str(refused.value)


@pytest.mark.parametrize("gate", ["port", "agent", "tcp:5432", "http:8080/healthz", "'http:[2001:db8::7]:80/x'"])
def test_a_gate_is_kept_as_it_is_written(tmp_path: Path, gate: str) -> None:
    (tmp_path / "db.yaml").write_text("{name: db, match: all, settings: {order_group: db, ready: %s}}" % gate)
    policy = load_policy(str(tmp_path / "db.yaml"))
    assert policy.settings.ready == gate.strip("'")
    held = VmPolicies(1, (policy,))
    (tmp_path / "all.yaml").write_text(policies_text(held))
    assert load_policies(str(tmp_path / "all.yaml")) == (1, held.policies)
    assert codec.decode(VmPolicies, "key", codec.encode(held)) == held
    assert with_said(policy, ["ready=tcp:1"]).settings.ready == "tcp:1"
    assert with_said(policy, ["ready="]).settings.ready is None


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("open", "settings.ready must be one of port, agent, tcp:PORT, http:PORT/PATH"),
        ("tcp:70000", "settings.ready names port 70000; ports go from 1 to 65535"),
        ("5432", "settings.ready must be a text"),
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(tmp_path: Path, gate: str, words: str) -> None:
    (tmp_path / "db.yaml").write_text("{name: db, match: all, settings: {ready: %s}}" % gate)
    with pytest.raises(ConfigError) as refused:
        load_policy(str(tmp_path / "db.yaml"))
    assert words in str(refused.value)
