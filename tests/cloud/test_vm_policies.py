# SPDX-License-Identifier: Apache-2.0
"""Policies of VMs as an operator types them while a host is dead: engine, journal, Nova and Keystone are real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from trial import Trial

from lab.engine import EngineProcess

pytestmark = pytest.mark.cloud

FLAGGED = {"name": "flagged", "match": "all", "settings": {"protect": "flagged"}}
OFF = "VM policy 'off' leaves it alone"


def typed(engine: EngineProcess, *words: str, fails: bool = False) -> str:
    """What vmhad-manage policy says; all of it is on stdout, or one sentence on stderr."""
    command = [str(Path(sys.executable).with_name("vmhad-manage")), "--config-file", str(engine.config_file)]
    done = subprocess.run([*command, "policy", *words], capture_output=True, text=True, timeout=60.0)
    assert done.returncode == (2 if fails else 0), f"{words}: {done.stdout}{done.stderr}"
    return done.stderr if fails else done.stdout


def counts(engine: EngineProcess, version: int) -> None:
    engine.wait_log(f"version {version} of the VM policies counts now", 15.0)


def test_a_policy_is_typed_while_vms_wait_for_their_turn(trial: Trial, tmp_path: Path) -> None:
    """As under Masakari only flagged VMs are recovered, but those of the project's domain are: told by Keystone. One of
    them is to be left alone once its host is dead already, by the one of two operators who was faster."""
    engine = trial.engine(policy={"evacuations_max": 1})
    waiting = trial.lab.boot(3, host="host01", name="vm", metadata={"role": "db"})
    (flagged,) = trial.lab.boot(host="host01", name="flagged", metadata={"HA_Enabled": "True"})
    (plain,) = trial.lab.boot(host="host01", name="plain")
    trial.slow_spawns(4.0)
    databases = {"match": {"metadata": {"role": "db"}, "domain": "default"}, "settings": {"protect": True}}
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump({"policies": [FLAGGED, {"name": "databases", **databases}]}))
    assert f"plain-01                 {plain} protect - -> no" in typed(engine, "load", "--dry-run", str(file))
    version = int(typed(engine, "load", str(file)).rsplit(" ", 1)[1])
    counts(engine, version)
    assert "yes                    policy 'databases' matches it by metadata role=db, domain default" in typed(
        engine, "explain", waiting[0]
    )
    trial.ready()
    trial.lab.command("cut", "host01")
    trial.wait_line(engine, "vm ", "EVACUATE STARTED", 60.0)
    last = next(one for one in reversed(waiting) if not _started(trial, engine, one))
    file.write_text(yaml.safe_dump({"name": "off", "match": {"server": last}, "settings": {"protect": False}}))
    typed(engine, "create", "-f", str(file), "--version", str(version))
    said = typed(engine, "delete", "databases", "--version", str(version), fails=True)
    assert said.endswith(f"at version {version + 1} now, and this was made from version {version}: look again\n")
    counts(engine, version + 1)
    row = trial.recovered(engine, "host01")
    assert OFF in row["text"] and "protects only those with HA_Enabled=True" in row["text"]
    moved = [one for one in (*waiting, flagged) if one != last]
    trial.assert_moved(moved)
    assert trial.hosts_of([last, plain]) == ["host01"] * 2 and not trial.lab.evacuations(last)
    assert not trial.lab.evacuations(plain)
    assert "no                     policy 'off' matches it by server" in typed(engine, "explain", last)


def _started(trial: Trial, engine: EngineProcess, server_id: str) -> bool:
    name = trial.servers()[server_id]["name"]
    return bool(trial.lines(engine, f"vm {name}", "EVACUATE STARTED"))
