# SPDX-License-Identifier: Apache-2.0
"""Services as a real systemd sees them, process 1 of a namespace, and their restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhad.agent.acts import RestartService
from vmhad.agent.bootclock import boot_s
from vmhad.agent.services import MANAGER, Services, Systemd, Unheard, reading, restart, restarted
from vmhad.kernel.beat import Unit, UnitState
from vmhad.kernel.signal import Reading
from vmhad.ports import Refused, Unanswered

LIMIT_S = 30.0
UNIT = "nova-compute.service"
SLEEPS = "[Service]\nExecStart=/bin/sleep infinity\n"
# Those of systemd's own units that would change the machine outside of the namespace, and those that have no use in it.
MASKED = (
    "systemd-sysctl systemd-remount-fs systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-udevd "
    "systemd-journald systemd-logind systemd-random-seed systemd-update-utmp systemd-machine-id-commit "
    "systemd-journal-flush"
)
BOOT = f"""
set -e
echo $$ > $1/cgroup.procs
exec unshare --pid --fork --kill-child=KILL --mount --mount-proc --uts --ipc --net --cgroup sh -c '
mount --make-rprivate /
mount -t tmpfs groups /sys/fs/cgroup
mount -t cgroup2 groups /sys/fs/cgroup
mount -t tmpfs run /run
mkdir -p /run/lock /run/systemd/system/basic.target.wants /run/dbus
cd /run/systemd/system
for one in {MASKED}; do ln -s /dev/null $one.service; done
printf "[Service]\\nExecStart=/bin/sleep infinity\\n" > {UNIT}
ln -s ../{UNIT} basic.target.wants/{UNIT}
exec env container=docker /lib/systemd/systemd --system --unit=basic.target --log-target=null \
  systemd.unified_cgroup_hierarchy=1'
"""


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """The root directory of a machine with a systemd that runs."""
    if os.geteuid() != 0 or not shutil.which("dbus-daemon") or not Path("/lib/systemd/systemd").exists():
        pytest.skip("a systemd of its own needs root, systemd and dbus")
    tree = Path("/sys/fs/cgroup/unified")
    tree = tree if tree.exists() else tree.parent
    if not (tree / "cgroup.procs").exists():
        pytest.skip("a systemd of its own needs a cgroup2 to live in")
    # All that it makes is below this group, the root of its cgroup namespace.
    group = tree / f"vmhad-test-{os.getpid()}"
    group.mkdir()
    shell = subprocess.Popen(["sh", "-c", BOOT, "sh", str(group)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield booted(shell)
    finally:
        shell.kill()
        shell.wait()
        forget(group)


def booted(shell: subprocess.Popen[bytes]) -> Path:
    """Process 1 is the child of what the shell became."""
    until = time.monotonic() + LIMIT_S
    children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
    while time.monotonic() < until:
        if shell.poll() is not None:
            assert shell.stdout is not None
            pytest.skip(f"no systemd of its own can be had here: {shell.stdout.read().decode()}")
        pids = children.read_text().split()
        place = Path(f"/proc/{pids[0]}/root") if pids else None
        if place is not None and (place / "run/dbus/system_bus_socket").exists():
            return place
        time.sleep(0.05)
    pytest.skip(f"systemd has not come up within {LIMIT_S:g} s")


def forget(group: Path) -> None:
    until = time.monotonic() + LIMIT_S
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError:
                assert time.monotonic() < until, f"{folder} stays"
                time.sleep(0.05)


@pytest.fixture
def systemd(root: Path) -> Systemd:
    return Systemd(f"unix:path={root}/run/dbus/system_bus_socket")


def wait(eye: Services, wanted: dict[str, Reading]) -> None:
    until = time.monotonic() + LIMIT_S
    while (said := dict(eye.tell(boot_s()).services)) != wanted:
        assert time.monotonic() < until, said
        time.sleep(0.02)


def test_a_service_that_runs_dies_and_is_restarted(systemd: Systemd, root: Path) -> None:
    eye = Services({"nova-compute": UNIT, "libvirtd": "no-such.service"}, systemd, interval_s=0.1)
    other = Systemd(f"unix:path={root}/run/dbus/system_bus_socket")
    assert eye.tell(boot_s()).services == {"nova-compute": Reading.UNKNOWN, "libvirtd": Reading.UNKNOWN}
    eye.start()
    try:
        wait(eye, {"nova-compute": Reading.UP, "libvirtd": Reading.UNKNOWN})
        known = other.invocation(UNIT)
        assert known and restarted(other, UNIT, known) is Reading.DOWN
        kill_in(root, "sleep")
        wait(eye, {"nova-compute": Reading.DOWN, "libvirtd": Reading.UNKNOWN})
        restart(other, UNIT, known)
        wait(eye, {"nova-compute": Reading.UP, "libvirtd": Reading.UNKNOWN})
        assert restarted(other, UNIT, known) is Reading.UP
        # The same order once more, late: what runs now is left alone.
        fresh = other.invocation(UNIT)
        restart(other, UNIT, known)
        assert other.invocation(UNIT) == fresh and fresh != known
        the_order_as_the_agent_does_it(root, other, known, fresh)
    finally:
        eye.stop()


def the_order_as_the_agent_does_it(root: Path, systemd: Systemd, known: str, fresh: str) -> None:
    act = RestartService({"nova-compute": UNIT}, f"unix:path={root}/run/dbus/system_bus_socket")
    with pytest.raises(Refused, match="another start"):
        act({"service": "nova-compute", "known": known})
    with pytest.raises(Refused, match="no unit of 'cron'"):
        act({"service": "cron", "known": fresh})
    assert systemd.invocation(UNIT) == fresh
    act({"service": "nova-compute", "known": fresh})
    until = time.monotonic() + LIMIT_S
    while systemd.invocation(UNIT) == fresh:
        assert time.monotonic() < until, "not restarted"
        time.sleep(0.02)


def test_an_order_where_systemd_does_not_answer_says_nothing_of_its_effect(tmp_path: Path) -> None:
    with pytest.raises(Unanswered, match="systemd was not reached"):
        RestartService({"nova-compute": UNIT}, f"unix:path={tmp_path}/nobody")({"service": "nova-compute", "known": ""})


def told(eye: Services, state: UnitState, kept_off: str = "") -> Unit:
    """Waited for."""
    until = time.monotonic() + LIMIT_S
    while True:
        unit = eye.tell(boot_s()).units.get("nova-compute", Unit(UnitState.OTHER))
        if (unit.state, unit.kept_off) == (state, kept_off):
            return unit
        assert time.monotonic() < until, unit
        time.sleep(0.02)


def test_what_somebody_stopped_is_told_apart_from_what_died(systemd: Systemd, root: Path) -> None:
    eye, other = Services({"nova-compute": UNIT}, systemd, interval_s=0.05), bus(root)
    restarted_by_hand(other)
    eye.start()
    try:
        first = told(eye, UnitState.RUNS)
        assert first.invocation == other.invocation(UNIT) and not first.is_wanted_off
        kill_in(root, "sleep")
        died = told(eye, UnitState.FAILED)
        assert (died.detail, died.invocation) == ("signal", first.invocation) and not died.is_wanted_off
        assert died.since_s > first.since_s and eye.tell(boot_s()).units["nova-compute"] is died
        restarted_by_hand(other)
        again = told(eye, UnitState.RUNS)
        assert again.invocation not in ("", first.invocation)
        other._call(MANAGER, "StopUnit", "ss", (UNIT, "replace"))
        stopped = told(eye, UnitState.STOPPED)
        assert (stopped.detail, stopped.invocation) == ("success", again.invocation) and stopped.is_wanted_off
        # An order that was given before somebody stopped it comes too late.
        act = RestartService({"nova-compute": UNIT}, f"unix:path={root}/run/dbus/system_bus_socket")
        with pytest.raises(Refused, match=r"somebody stopped nova-compute.service: it is stopped \(success\)"):
            act({"service": "nova-compute", "known": again.invocation})
        assert other.states([UNIT])[UNIT] == ("loaded", "inactive", "dead")
        mask(root)
        other._call(MANAGER, "Reload", "", ())
        assert told(eye, UnitState.STOPPED, "masked-runtime").is_wanted_off
    finally:
        eye.stop()
        (root / "run/systemd/system" / UNIT).unlink()
        (root / "run/systemd/system" / UNIT).write_text(SLEEPS)
        other._call(MANAGER, "Reload", "", ())
        restarted_by_hand(other)


def test_a_stop_that_had_to_kill_is_a_wish_all_the_same(systemd: Systemd, root: Path) -> None:
    unit = root / "run/systemd/system" / UNIT
    unit.write_text(f"{SLEEPS}KillSignal=SIGCONT\nTimeoutStopSec=1\n")
    eye, other = Services({"nova-compute": UNIT}, systemd, interval_s=0.05), bus(root)
    other._call(MANAGER, "Reload", "", ())
    restarted_by_hand(other)
    eye.start()
    try:
        told(eye, UnitState.RUNS)
        invocation = other.invocation(UNIT)
        other._call(MANAGER, "StopUnit", "ss", (UNIT, "replace"))
        told(eye, UnitState.CHANGING)
        assert restart(other, UNIT, invocation) == f"{UNIT} is just being started or stopped"
        killed = told(eye, UnitState.FAILED, "a stop was ordered")
        assert killed.detail == "timeout" and killed.is_wanted_off
        restarted_by_hand(other)
        told(eye, UnitState.RUNS)
        kill_in(root, "sleep")
        assert not told(eye, UnitState.FAILED).is_wanted_off
    finally:
        eye.stop()
        unit.write_text(SLEEPS)
        other._call(MANAGER, "Reload", "", ())
        restarted_by_hand(other)


# A shell that is stopped before it has its trap dies of the signal, which is a clean end.
TRAPS = "trap \"exit 1\" TERM; touch /run/trapped; while :; do sleep 0.05; done"
FAILS_WHEN_STOPPED = f"[Service]\nExecStart=/bin/sh -c '{TRAPS}'\n"
FAILS_TO_START = "[Service]\nType=notify\nExecStart=/bin/sh -c 'sleep 0.2; exit 1'\n"


def test_a_stop_that_no_agent_saw_is_a_wish_all_the_same(systemd: Systemd, root: Path) -> None:
    unit, other = root / "run/systemd/system" / UNIT, bus(root)
    unit.write_text(FAILS_WHEN_STOPPED)
    other._call(MANAGER, "Reload", "", ())
    restarted_by_hand(other)
    waited_for(root / "run/trapped")
    invocation = other.invocation(UNIT)
    other._call(MANAGER, "StopUnit", "ss", (UNIT, "replace"))
    stopped = ended(other)
    try:
        assert stopped == Unit(UnitState.FAILED, "exit-code", "a stop was ordered", invocation)
        with pytest.raises(Refused, match=r"it is failed \(a stop was ordered\)"):
            act = RestartService({"nova-compute": UNIT}, f"unix:path={root}/run/dbus/system_bus_socket")
            act({"service": "nova-compute", "known": invocation})
        # It ran, was stopped, and fails to start: that start is nobody's wish.
        unit.write_text(FAILS_TO_START)
        other._call(MANAGER, "Reload", "", ())
        other.restart(UNIT)
        failed = ended(other, invocation)
        assert (failed.state, failed.kept_off) == (UnitState.FAILED, "") and not failed.is_wanted_off
    finally:
        unit.write_text(SLEEPS)
        other._call(MANAGER, "Reload", "", ())
        restarted_by_hand(other)


def waited_for(path: Path) -> None:
    until = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def ended(systemd: Systemd, old: str = "") -> Unit:
    """Waited for; old: not that start of it."""
    until = time.monotonic() + LIMIT_S
    while True:
        unit = systemd.unit(systemd.words([UNIT])[UNIT])
        if unit.state is UnitState.FAILED and unit.invocation != old:
            return unit
        assert time.monotonic() < until, unit
        time.sleep(0.02)


def bus(root: Path) -> Systemd:
    return Systemd(f"unix:path={root}/run/dbus/system_bus_socket")


def restarted_by_hand(systemd: Systemd) -> None:
    systemd.restart(UNIT)
    until = time.monotonic() + LIMIT_S
    while systemd.states([UNIT])[UNIT][1] != "active":
        assert time.monotonic() < until
        time.sleep(0.02)


def mask(root: Path) -> None:
    unit = root / "run/systemd/system" / UNIT
    unit.unlink()
    unit.symlink_to("/dev/null")



def kill_in(root: Path, name: str) -> None:
    """Every process of that name in the namespace."""
    home = os.readlink(root.parent / "ns/pid")
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                if os.readlink(entry / "ns/pid") == home:
                    os.kill(int(entry.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_what_systemd_refuses(systemd: Systemd) -> None:
    with pytest.raises(Unheard, match="systemd refused RestartUnit: org.freedesktop.systemd1.NoSuchUnit"):
        systemd.restart("no-such.service")
    assert systemd.states([UNIT])[UNIT][0] == "loaded"


def test_without_a_systemd_everything_is_unknown(tmp_path: Path) -> None:
    nobody = Systemd(f"unix:path={tmp_path}/nobody")
    eye = Services({"nova-compute": UNIT}, nobody)
    eye._look()
    assert eye.tell(boot_s()).services == {"nova-compute": Reading.UNKNOWN}
    assert restarted(nobody, UNIT, "") is Reading.UNKNOWN
    with pytest.raises(Unheard):
        restart(nobody, UNIT, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("loaded", "active", "running"), Reading.UP),
        (("loaded", "reloading", "reload"), Reading.UP),
        (("loaded", "inactive", "dead"), Reading.DOWN),
        (("loaded", "failed", "failed"), Reading.DOWN),
        (("loaded", "activating", "auto-restart"), Reading.DOWN),
        (("loaded", "activating", "start"), Reading.UNKNOWN),
        (("loaded", "deactivating", "stop-sigterm"), Reading.UNKNOWN),
        (("not-found", "inactive", "dead"), Reading.UNKNOWN),
        (("masked", "inactive", "dead"), Reading.UNKNOWN),
    ],
)
def test_systemds_words(words: tuple[str, str, str], said: Reading) -> None:
    assert reading(*words) is said
