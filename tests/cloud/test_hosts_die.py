# SPDX-License-Identifier: Apache-2.0
"""Hosts die in every way a host dies, under a real engine: fenced first and seen off, then every VM elsewhere, once.

Every trial is watched at the hypervisors; a guest seen on two powered hosts fails it, whatever else went well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kept_secrets import journal_of
from trial import Trial, manage, rewrite_bmc_password

pytestmark = pytest.mark.cloud

NOVA_SEES_IT_S = 110.0
HOLD = {"silent_means": "hold"}


def test_cut(trial: Trial) -> None:
    """Lost power is seen at the BMC: nobody waits for the 60 s after which Nova calls a host down. From the fence to
    the last VM vmhad asks Nova at most six times for each of them, its polls of all services included."""
    engine = trial.engine()
    ids = trial.lab.boot(20, host="host01")
    trial.ready()
    born = trial.hurt("cut", "host01")
    trial.recovered(engine, "host01")
    trial.assert_moved(ids)
    assert trial.lines(engine, "host01", "POWER_OFF DONE", "already off")
    first = trial.wait_line(engine, "vm", "EVACUATE STARTED", 1.0)["at"] - born
    assert first < 40.0, f"the first evacuation began after {first:.1f} s"
    assert len(set(trial.hosts_of(ids))) == 3, "they were not spread"
    service = trial.lab.service("host01")
    assert service["forced_down"] and service["status"] == "disabled"
    calls = {row["word"]: row["nova_calls"] for row in engine.lines() if row["subject"] == "host host01"}
    assert calls["RECOVERED"] - calls["FENCING"] <= 6 * len(ids)


@pytest.mark.parametrize("fault", ["crash", "hang", "stop-compute"])
def test_silent_host_is_held_then_fenced(trial: Trial, fault: str) -> None:
    """Silent with its power on. By default it is held and not a hair of it is touched; where the segment says
    silent_means = fence, it is powered off before the first VM starts elsewhere: those of a hang and of a dead
    nova-compute run on until then, so one evacuation too early would be seen as a double."""
    held = trial.engine(policy=HOLD)
    ids = trial.lab.boot(4, host="host01")
    trial.ready()
    trial.hurt(fault, "host01")
    trial.wait_line(held, "host host01", "HELD", NOVA_SEES_IT_S, "silent_means = hold")
    trial.stays("it was fenced", lambda: trial.has_power("host01"), 3.0)
    trial.assert_untouched(ids)
    alive = set(trial.running(ids))
    assert alive == (set() if fault == "crash" else set(ids))
    held.stop()
    engine = trial.engine()
    trial.recovered(engine, "host01")
    trial.assert_moved(ids)
    assert not trial.has_power("host01")
    assert trial.lines(engine, "host01", "POWER_OFF DONE", "by us")


def test_no_proof_no_evacuation(trial: Trial) -> None:
    """host01 is unplugged together with its BMC; host02 crashes, and its BMC refuses our password. Nothing proves
    either of them off: both are STUCK, in words that say what is missing, and no VM of theirs moves, until an operator
    says of host02 that it is down. The certificates of its VMs tell what its BMC said, and no password (Trial.end)."""
    engine = trial.make(policy={"power_off_deadline_s": 5.0, "fence_attempts_max": 2})
    rewrite_bmc_password(engine, "host02", "not-the-password")
    engine.start()
    first, second = trial.lab.boot(2, host="host01"), trial.lab.boot(2, host="host02")
    trial.ready()
    trial.hurt("unplug", "host01")
    trial.hurt("crash", "host02")
    silent = trial.wait_line(engine, "host host01", "STUCK", NOVA_SEES_IT_S + 40.0)
    refused = trial.wait_line(engine, "host host02", "STUCK", 40.0)
    assert "no proof that host01 is off" in silent["text"]
    assert "no proof that host02 is off" in refused["text"] and "password" in refused["text"].lower()
    trial.assert_untouched(first, "host01")
    trial.assert_untouched(second, "host02")
    manage(engine, "host", "confirm-down", "host02", "--why", "its rack was looked at")
    trial.recovered(engine, "host02")
    trial.assert_moved(second, dead=("host01", "host02"))
    trial.assert_untouched(first, "host01")
    certificates = [text for key, text in journal_of(trial.lab.facts["etcd"]).items() if "/certificate/" in key]
    assert len(certificates) == len(second) and all(b"wrong password" in one for one in certificates)


def test_two_hosts_at_once(trial: Trial) -> None:
    """No VM goes from one dead host to the other."""
    engine = trial.engine()
    ids = trial.lab.boot(3, host="host01", name="one") + trial.lab.boot(3, host="host02", name="two")
    trial.ready()
    trial.cut_together(("host01", "host02"))
    trial.recovered(engine, "host01")
    trial.recovered(engine, "host02")
    trial.assert_moved(ids, dead=("host01", "host02"))


def test_rack_at_once(trial: Trial) -> None:
    """Three of four hosts is more than failed_share_max; read OFF and of one rack they are one event: acted upon."""
    dead = ("host01", "host02", "host03")
    engine = trial.engine(racks=dict.fromkeys(dead, "r1"))
    ids = [one for host in dead for one in trial.lab.boot(2, host=host, name=host)]
    trial.ready()
    trial.cut_together(dead)
    for host in dead:
        trial.recovered(engine, host, 120.0)
    trial.assert_moved(ids, dead)
    assert set(trial.hosts_of(ids)) == {"host04"}


def test_all_hosts_at_once_are_held(trial: Trial) -> None:
    """When everything is gone at once there is nowhere to go, and the fault may be ours: hold, and say so."""
    engine = trial.engine()
    ids = [trial.lab.boot(1, host=host, name=host)[0] for host in trial.lab.hosts]
    trial.ready()
    trial.cut_together(trial.lab.hosts)
    trial.wait_line(engine, "host", "HELD", 40.0, "failed at once")
    trial.stays("a VM was sent", lambda: not trial.lines(engine, "vm", "EVACUATE STARTED"), 8.0)
    assert not [one for one in ids if trial.lab.evacuations(one)]
    held = {row["subject"] for row in trial.lines(engine, "host", "HELD", "failed at once")}
    assert len(held) >= 2, f"only {held} were held"


def test_cut_while_vms_boot(trial: Trial) -> None:
    """A VM that was being built when its host died has nothing to save yet, and Nova would refuse: it is named with
    the reason. The VMs that ran are saved."""
    engine = trial.engine()
    ids = trial.lab.boot(3, host="host01")
    trial.lab.switch("host01", "spawn_delay", "60")
    early = trial.order(2, "host01")
    trial.lab.wait("they are being built there", lambda: _spawning(trial, early), 30.0)
    trial.ready()
    trial.hurt("cut", "host01")
    stuck = trial.wait_line(engine, "host host01", "STUCK", 90.0)
    assert "early-" in stuck["text"] and "building" in stuck["text"]
    trial.assert_moved(ids)
    assert not [one for one in early if trial.lab.evacuations(one)]


def _spawning(trial: Trial, ids: list[str]) -> bool:
    rows = trial.servers()
    return all(one in rows and rows[one]["OS-EXT-STS:task_state"] == "spawning" for one in ids)


@pytest.mark.chaos
def test_without_the_proof_guard_a_hang_doubles_vms(trial: Trial) -> None:
    """The guard guards something: an engine that neither fences nor reads the power again makes every VM of a hung host
    run twice, and the watcher sees it."""
    trial.promised = False
    engine = trial.engine(command=(sys.executable, str(Path(__file__).with_name("unguarded_engine.py"))))
    ids = trial.lab.boot(3, host="host01")
    trial.ready()
    trial.hurt("hang", "host01")
    trial.wait_line(engine, "host host01", "RECOVERED", NOVA_SEES_IT_S)
    doubled = {double["uuid"] for double in trial.watcher.report()["doubles"]}
    assert doubled == set(ids)
