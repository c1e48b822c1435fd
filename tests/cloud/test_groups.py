# SPDX-License-Identifier: Apache-2.0
"""What a VM was before its host died it is afterwards: with or apart from its group, stopped, locked, left alone."""

from __future__ import annotations

import pytest
from trial import Trial

pytestmark = pytest.mark.cloud


def test_hard_affinity_is_moved_as_one(trial: Trial) -> None:
    engine = trial.engine()
    group = trial.lab.group("affinity", "together")
    together = trial.lab.boot(3, host="host01", name="db", group=group)
    alone = trial.lab.boot(2, host="host01", name="app")
    trial.ready()
    trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved(together + alone)
    assert len(set(trial.hosts_of(together))) == 1


def test_hard_affinity_is_blocked_where_computes_refuse_it(trial: Trial) -> None:
    """No request is made that Nova would answer with an ERROR on the VM: the reason says what can be done."""
    engine = trial.engine(policy={"affinity_groups_movable": False})
    group = trial.lab.group("affinity", "together")
    together = trial.lab.boot(2, host="host01", name="db", group=group)
    alone = trial.lab.boot(2, host="host01", name="app")
    trial.ready()
    trial.hurt("cut", "host01")
    stuck = trial.wait_line(engine, "host host01", "STUCK", 90.0)
    assert "2 of 4 VMs are not recovered" in stuck["text"] and "blocked" in stuck["text"]
    assert "disable_group_policy_check_upcall" in stuck["text"]
    trial.assert_moved(alone)
    assert not [one for one in together if trial.lab.evacuations(one)]
    servers = trial.servers()
    assert {servers[one]["status"] for one in together} == {"ACTIVE"}


def test_anti_affinity_is_kept_and_serialised(trial: Trial) -> None:
    """Members of one group are sent one after another: two at once can collide in Nova and end in ERROR."""
    engine = trial.engine()
    apart = trial.lab.group("anti-affinity", "apart")
    pairs = trial.lab.group("anti-affinity", "pairs", max_per_host=2)
    ones = [trial.lab.boot(1, host=f"host0{n}", name=f"web{n}", group=apart)[0] for n in (1, 2, 3)]
    twos = trial.lab.boot(2, host="host01", name="pair", group=pairs)
    twos += trial.lab.boot(1, host="host02", name="pair-elder", group=pairs)
    trial.slow_spawns(2.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved([ones[0], *twos[:2]])
    assert trial.hosts_of(ones) == ["host04", "host02", "host03"]
    where = trial.hosts_of(twos)
    assert max(where.count(host) for host in where) <= 2
    early, late = sorted((trial.lab.evacuations(one)[0] for one in twos[:2]), key=lambda row: row["created_at"])
    assert late["created_at"] >= early["updated_at"], "two members of one group were on their way together"


def test_stopped_locked_and_opted_out(trial: Trial) -> None:
    engine = trial.engine()
    stopped, locked, both = trial.lab.boot(3, host="host01", name="kept")
    (left,) = trial.lab.boot(1, host="host01", name="left", metadata={"vmhad": "false"})
    (plain,) = trial.lab.boot(1, host="host01", name="plain")
    for one in (stopped, both):
        trial.lab.power_off(one)
    for one in (locked, both):
        trial.lab.act(one, "lock")
    trial.ready()
    trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved([locked, plain])
    trial.assert_records([stopped, both])
    servers, running = trial.servers(), trial.running([stopped, both])
    for one in (stopped, both):
        assert servers[one]["status"] == "SHUTOFF" and one not in running
        assert servers[one]["OS-EXT-SRV-ATTR:host"] != "host01"
    assert [servers[one]["locked"] for one in (stopped, locked, both, plain)] == [False, True, True, False]
    assert servers[left]["OS-EXT-SRV-ATTR:host"] == "host01" and not trial.lab.evacuations(left)
