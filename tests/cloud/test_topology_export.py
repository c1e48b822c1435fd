# SPDX-License-Identifier: Apache-2.0
"""A cloud that runs becomes a topology file, and that file is rehearsed: what the lab has is what the file has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess
from vmhad.conf.bmcs import BmcDefaults
from vmhad.conf.segments_file import load_segments
from vmhad.conf.topology_file import load_topology
from vmhad.kernel.cloud import ServerState
from vmhad.kernel.policy import Policy, SilentMeans

pytestmark = pytest.mark.cloud

LIMIT_S = 120.0


def command(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [str(Path(sys.executable).with_name(name)), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)


def test_a_live_cloud_is_exported_and_rehearsed(lab: CloudLab, tmp_path: Path) -> None:
    apart = lab.group("anti-affinity", "apart")
    ones = [lab.boot(1, host=f"host0{n}", name=f"web{n}", group=apart)[0] for n in (1, 2)]
    (left,) = lab.boot(1, host="host01", name="left", metadata={"vmhad": "false", "owner": "somebody"})
    (off,) = lab.boot(1, host="host03", name="off")
    lab.power_off(off)
    racks = {"host01": "r1", "host02": "r1"}
    config = EngineProcess(lab.facts, tmp_path, racks=racks).config_file
    exported = tmp_path / "cloud.yaml"

    done = command("vmhad-manage", "--config-file", config, "topology", "export", "--output", exported)
    assert done.returncode == 0, done.stderr
    assert f"1 segments, {len(lab.hosts)} hosts, 4 servers, 1 groups" in done.stderr
    text = exported.read_text()
    secrets = [Path(host["bmc"]["password_file"]).read_text().strip() for host in lab.facts["hosts"]]
    for secret in (*secrets, lab.auth["password"], "somebody", "bmc", "address"):
        assert secret not in text

    told = load_topology(str(exported))
    assert told.segments[0].names == lab.hosts and told.segments[0].host("host02").domains == {"rack": "r1"}
    assert told.policies["lab"].silent_means is SilentMeans.FENCE
    servers = {server.id: server for server in told.servers}
    assert [servers[one].host for one in (*ones, left, off)] == ["host01", "host02", "host01", "host03"]
    assert servers[left].metadata == {"vmhad": "false"} and servers[off].state is ServerState.STOPPED
    assert (servers[left].vcpus, servers[left].ram_mib) == (1, 64)
    assert [(group.policy, set(group.members)) for group in told.groups] == [("anti-affinity", set(ones))]
    for host in lab.hosts:
        stock = told.inventories[host]
        assert stock.zone == "nova" and (stock.vcpus or 0) >= 1 and (stock.ram_mib or 0) >= 512

    again = command("vmhad-manage", "--config-file", config, "topology", "export", "--output", exported)
    assert again.returncode == 2 and again.stderr == f"vmhad-manage: --output: there is a file {exported} already.\n"

    words = ("--fail", "rack:r1", "--seeds", "3", "--hours", "1", "--jobs", "1", "--json")
    rehearsed = command("vmhad-sim", "rehearse", "--topology", exported, *words)
    assert rehearsed.returncode == 0, rehearsed.stderr
    figures = json.loads(rehearsed.stdout)
    assert (figures["vms_struck"], figures["recovered"], figures["opted_out"]) == (9, 6, 3), figures


def test_with_its_bmcs_an_export_is_the_engines_segments_file(clean_cloud: CloudLab, tmp_path: Path) -> None:
    engine = EngineProcess(clean_cloud.facts, tmp_path)
    words = ("--config-file", engine.config_file, "topology", "export", "--with-bmc")
    done = command("vmhad-manage", *words)
    assert done.returncode == 0, done.stderr
    (tmp_path / "exported.yaml").write_text(done.stdout)
    credentials = str(engine.folder / "bmc-credentials.yaml")
    exported, configured = (
        load_segments(str(path), credentials, Policy(), BmcDefaults())
        for path in (tmp_path / "exported.yaml", engine.folder / "segments.yaml")
    )
    assert exported == configured


def test_a_wrong_password_is_one_sentence(clean_cloud: CloudLab, tmp_path: Path) -> None:
    engine = EngineProcess(clean_cloud.facts, tmp_path)
    (engine.folder / "nova-password").write_text("not-this-one")
    done = command("vmhad-manage", "--config-file", engine.config_file, "topology", "export")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("vmhad-manage: ") and len(done.stderr.splitlines()) == 1
    assert "not-this-one" not in done.stderr and "Unauthorized" in done.stderr
