# SPDX-License-Identifier: Apache-2.0
"""What recovery stands on fails in the middle of it: the bus, the journal, Nova's API, a target, a BMC."""

from __future__ import annotations

import calendar
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_trio import EtcdTrio
from losing_api import LosingApi
from trial import Trial

from lab.cloud_lab import CloudLab
from lab.engine import EngineProcess
from lab.layout import Lab
from lab.processes import living

pytestmark = pytest.mark.cloud

NOVA_SEES_IT_S = 110.0


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[EtcdTrio]:
    three = EtcdTrio(tmp_path)
    yield three
    three.stop()


@pytest.fixture
def mended(lab: CloudLab) -> Iterator[CloudLab]:
    """The lab's services run again at the end, whatever the test stopped."""
    yield lab
    _nova_api(lab, signal.SIGCONT)
    for service in ("rabbitmq", "nova-api"):
        lab.command("start", service)
    # Every nova-compute must be connected again before its host can be cleaned up.
    lab.wait("all hosts report", lambda: all(_reports(lab, host) for host in lab.hosts if _lives(lab, host)), 90.0, 1.0)


def _lives(lab: CloudLab, host: str) -> bool:
    return (Path(lab.host(host)["state_dir"]) / "chassis.pid").exists()


def _reports(lab: CloudLab, host: str) -> bool:
    service = lab.service(host)
    return bool(service["state"] == "up" or service["forced_down"])


def _nova_api(lab: CloudLab, number: int) -> None:
    """To its master and all its workers."""
    pid = living(Lab(lab.name).pid / "nova-api.pid")
    if pid:
        os.killpg(pid, number)


@pytest.mark.parametrize("frozen", ["while it spawns", pytest.param("before it looked", marks=pytest.mark.chaos)])
def test_target_hangs_while_receiving(trial: Trial, frozen: str) -> None:
    """host02 freezes while VMs are sent to it: with one half spawned, or with the requests still in its queue. Nova
    would take a second evacuation at once; vmhad sends them elsewhere only after host02 was powered off. When host02
    is back and finds the old requests in its queue, no guest comes of them."""
    engine = trial.engine()
    ids = trial.lab.boot(4, host="host01")
    trial.lab.switch("host02", "hang_spawn")
    trial.ready()
    if frozen == "before it looked":
        trial.hurt("hang", "host02")
    trial.hurt("cut", "host01")
    trial.wait_line(engine, "vm", "EVACUATE STARTED", 40.0, "to host02")
    if frozen == "while it spawns":
        trial.lab.wait("VMs are spawning there", lambda: _bound_for(trial, ids, "host02", "pre-migrating"), 20.0)
        trial.hurt("hang", "host02")
    caught = trial.lab.wait("Nova has the requests on record", lambda: _bound_for(trial, ids, "host02"), 20.0)
    trial.stays("it was fenced on a whim", lambda: trial.has_power("host02"), 5.0)
    trial.lab.wait("host02 is fenced", lambda: not trial.has_power("host02"), NOVA_SEES_IT_S, 0.1)
    off_at = time.time()
    trial.recovered(engine, "host01", 60.0)
    trial.assert_moved(ids, dead=("host01", "host02"), once=False)
    for one in caught:
        last = trial.lab.evacuations(one)[0]
        sent_at = calendar.timegm(time.strptime(last["created_at"][:19], "%Y-%m-%dT%H:%M:%S"))
        assert sent_at >= int(off_at) - 1, f"sent elsewhere {off_at - sent_at:.0f} s before host02 was off"
    placed = trial.hosts_of(ids)
    trial.lab.switch("host02", "hang_spawn", None)
    trial.lab.command("restore", "host02")
    trial.stays("a VM left its place", lambda: trial.hosts_of(ids) == placed, 10.0)
    # Nova may leave such a VM's task_state at «rebuilding»; its guest is untouched by that.
    assert trial.running(ids) == {one: [host] for one, host in zip(ids, placed, strict=True)}


def _bound_for(trial: Trial, ids: list[str], host: str, status: str = "") -> list[str]:
    """Those that Nova is evacuating to the host now."""
    return [
        one
        for one in ids
        if any(
            row["dest_compute"] == host and row["status"] in ((status,) if status else ("accepted", "pre-migrating"))
            for row in trial.lab.evacuations(one)
        )
    ]


def test_bmc_that_lies_from_the_start(trial: Trial) -> None:
    """Promised: an OFF of a BMC that was never read ON counts for nothing while nova-compute reports. The host runs
    on, not one VM of it moves."""
    (trial.state_dir("host01") / "bmc_lie").touch()
    try:
        engine = trial.engine()
        ids = trial.lab.boot(3, host="host01")
        trial.ready()
        trial.stays("it was believed", lambda: not trial.lines(engine, "host01", "FENCING"), 30.0)
        trial.assert_untouched(ids)
        assert trial.running(ids) == {one: ["host01"] for one in ids}
    finally:
        (trial.state_dir("host01") / "bmc_lie").unlink()


@pytest.mark.chaos
def test_bmc_that_begins_to_lie(trial: Trial) -> None:
    """A BMC that told the truth says OFF from now on while its host runs and reports every 10 s.

    NOT promised: that no VM is doubled. Until the next heartbeat nothing belies the BMC, and the VMs that were sent by
    then run twice. Promised: from that heartbeat on not one more is sent, and STUCK says that this BMC is not believed.
    """
    trial.promised = False
    engine = trial.engine(policy={"evacuations_max": 1, "power_off_deadline_s": 5.0, "fence_attempts_max": 2})
    ids = trial.lab.boot(6, host="host01")
    trial.slow_spawns(8.0)
    trial.ready()
    lie = trial.state_dir("host01") / "bmc_lie"
    lie.touch()
    try:
        trial.wait_line(engine, "host host01", "STUCK", 90.0, "not believed")
        sent = [one for one in ids if trial.lab.evacuations(one)]
        assert len(sent) <= 3, f"{len(sent)} VMs were sent on the word of a BMC that heartbeats belied"
        trial.stays("another was sent", lambda: not _sent_beside(trial, ids, sent), 12.0)
        left = {one: hosts for one, hosts in trial.running(ids).items() if one not in sent}
        assert left == {one: ["host01"] for one in ids if one not in sent}
        print(f"sent before the heartbeat: {len(sent)}; doubles: {len(trial.watcher.report()['doubles'])}")
    finally:
        lie.unlink()


def _sent_beside(trial: Trial, ids: list[str], sent: list[str]) -> list[str]:
    return [one for one in ids if one not in sent and trial.lab.evacuations(one)]


def test_nova_api_freezes(trial: Trial, mended: CloudLab) -> None:
    """Requests time out at vmhad, and Nova carries them out afterwards: nobody is sent twice."""
    engine = trial.engine()
    ids = trial.lab.boot(5, host="host01")
    trial.slow_spawns(2.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(engine, "vm", "EVACUATE STARTED", 40.0)
    _nova_api(mended, signal.SIGSTOP)
    time.sleep(9.0)  # longer than vmhad waits for an answer
    _nova_api(mended, signal.SIGCONT)
    trial.recovered(engine, "host01", 120.0)
    trial.assert_moved(ids)


def test_nova_api_is_gone_and_back(trial: Trial, mended: CloudLab) -> None:
    """From before the host dies until after. Whether the fence is made or held meanwhile, nothing is lost: when Nova
    is back the recovery ends as ever."""
    engine = trial.engine()
    ids = trial.lab.boot(4, host="host01")
    trial.ready()
    mended.command("stop", "nova-api", "--kill")
    trial.hurt("cut", "host01")
    trial.wait_line(engine, "host host01", "SUSPECTED", 40.0)
    time.sleep(8.0)
    mended.command("start", "nova-api")
    trial.recovered(engine, "host01", 120.0)
    trial.assert_moved(ids)


@pytest.mark.chaos
def test_rabbitmq_restarts(trial: Trial, mended: CloudLab) -> None:
    """Killed at the first evacuation, back ten seconds later. Nova may lose requests it has accepted; they are sent
    again, to the same targets, and no VM ever runs twice."""
    engine = trial.engine()
    ids = trial.lab.boot(4, host="host01")
    trial.slow_spawns(2.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(engine, "vm", "EVACUATE STARTED", 40.0)
    mended.command("stop", "rabbitmq", "--kill")
    time.sleep(10.0)
    mended.command("start", "rabbitmq")
    trial.recovered(engine, "host01", 240.0)
    trial.assert_moved(ids, once=False)


@pytest.fixture
def losing(lab: CloudLab) -> Iterator[LosingApi]:
    """nova-api behind a door that loses the answers to three evacuations: in the catalog as interface «admin»."""
    compute = next(row["id"] for row in lab.identity("GET", "/services?type=compute")["services"])
    listed = lab.identity("GET", f"/endpoints?service_id={compute}&interface=admin")["endpoints"]
    endpoint, real = listed[0]["id"], listed[0]["url"]
    with LosingApi(real, errors=2, silences=1) as api:
        lab.identity("PATCH", f"/endpoints/{endpoint}", {"endpoint": {"url": api.url}})
        try:
            yield api
        finally:
            lab.identity("PATCH", f"/endpoints/{endpoint}", {"endpoint": {"url": real}})


def test_nova_loses_its_answers(trial: Trial, losing: LosingApi) -> None:
    """Two evacuations are accepted and answered with 500, one more is accepted and never answered. Each is looked for
    in Nova's records before anything is sent again, so each VM has one record and none is sent twice."""
    engine = trial.engine(nova={"interface": "admin", "timeout_s": 4.0})
    ids = trial.lab.boot(5, host="host01")
    trial.slow_spawns(3.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.recovered(engine, "host01", 90.0)
    assert len(set(losing.lost)) == 3, f"not all answers were lost: {losing.lost}"
    trial.assert_moved(ids)


def test_three_engines_on_three_etcd_members(trio: EtcdTrio, trial: Trial) -> None:
    """The leader of the journal's etcd dies in mid-recovery, and then the engine that decides. One of the two others
    finishes on the two members that are left; nothing is sent twice over it. They outlive the trial, which reads at its
    end what was written to them."""
    endpoints = {"etcd_endpoints": ",".join(trio.endpoints)}
    engines = [trial.engine(name, engine=endpoints) for name in ("one", "two", "three")]
    owner = trial.lab.wait("one owns the segment", lambda: _owner(engines), 60.0)
    ids = trial.lab.boot(5, host="host01")
    trial.slow_spawns(8.0)
    trial.ready()
    trial.hurt("cut", "host01")
    trial.wait_line(owner, "vm", "EVACUATE STARTED", 40.0)
    trio.kill_leader()
    # First one loss, then the other: the engine dies when the journal can be written again.
    trial.lab.wait("another member leads", trio.has_new_leader, 20.0)
    assert not trial.lines(owner, "host01", "RECOVERED"), "it was over before the engine could die"
    owner.kill()
    rest = [one for one in engines if one is not owner]
    trial.lab.wait(
        "another one finishes", lambda: any(trial.lines(one, "host host01", "RECOVERED") for one in rest), 120.0
    )
    trial.assert_moved(ids)


def _owner(engines: list[EngineProcess]) -> EngineProcess | None:
    return next((one for one in engines if "segment lab is ours" in one.log_of_this_start()), None)
