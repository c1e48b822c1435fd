# SPDX-License-Identifier: Apache-2.0
"""The lab with real guests must do what it says, seen from outside: power through IPMI, guests in /proc, and disks.

The lab is named `qemu-labtest` and is taken down and wiped at the end.
"""
import os
import pathlib
import subprocess
import time

import pytest

from lab import hostpower, processes
from lab.cloud_lab import CloudLab
from lab.layout import Lab
from lab.qemu import hypervisor, network
from lab.report import watcher_of

pytestmark = [pytest.mark.cloud, pytest.mark.chaos]

NAME = os.environ.get("VMHAD_REAL_LAB", "qemu-labtest")


@pytest.fixture(scope="module")
def cloud():
    up = CloudLab.up(NAME, 2, "--virt", "qemu")
    up.reset()
    yield up
    up.command("down", "--wipe")


@pytest.fixture(scope="module")
def server(cloud):
    return cloud.boot(1, host="host01")[0]


@pytest.fixture
def guest(cloud, server):
    """A server of host01 that counts, and who watches it."""
    if not cloud.running_on(server):
        # Nova may just have noticed that it is off, and refuses until it has put that down.
        cloud.wait("Nova is done with it", lambda: cloud.server(server)["OS-EXT-STS:task_state"] is None)
        cloud.act(server, "reboot", {"type": "HARD"})
    watcher = watcher_of(Lab(NAME)).start()
    cloud.wait("it counts", lambda: server in watcher.report()["disks"] and counts(server, watcher, 0.3))
    yield server, watcher
    assert not watcher.stop()["doubles"]


def power(host):
    bmc = Lab(NAME).host(host)["bmc"]
    done = subprocess.run(
        ["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-H", bmc["host"], "-p", str(bmc["port"]), "-U",
         bmc["user"], "-f", bmc["password_file"], "power", "status"], capture_output=True, text=True, timeout=60)
    return done.stdout.strip().rsplit(" ", 1)[-1] if done.returncode == 0 else "unknown"


def order(host, word):
    """What the BMC's button does, without IPMI's own time limits."""
    hook = Lab(NAME).etc / "bmc" / host / "chassis-control"
    subprocess.run([str(hook), "set", *word], check=True)


def counts(uuid, watcher, seconds=1.5):
    """Does the guest write now?"""
    before = watcher.report()["disks"][uuid][-1]["last"]
    time.sleep(seconds)
    return watcher.report()["disks"][uuid][-1]["last"] > before


def look(cloud, guest):
    """(power by the BMC, nova-compute, whether the guest has a QEMU, whether it writes)"""
    uuid, watcher = guest
    agent = hostpower.compute(Lab(NAME).state_dir("host01"))[1]
    return power("host01"), agent, bool(cloud.running_on(uuid)), counts(uuid, watcher)


@pytest.mark.parametrize(
    ("verb", "seen"),
    [
        ("cut", ("off", "dead", False, False)),
        ("unplug", ("unknown", "dead", False, False)),
        ("crash", ("on", "dead", False, False)),
        ("hang", ("on", "hung", True, True)),
        ("stop-compute", ("on", "dead", True, True)),
        ("isolate", ("on", "running", True, True)),
        ("stop-libvirtd", ("on", "running", True, True)),
        ("lose-storage", ("on", "running", True, True)),
    ],
)
def test_verb(cloud, guest, verb, seen):
    cloud.command(verb, "host01")
    assert look(cloud, guest) == seen
    cloud.command("restore", "host01")
    assert look(cloud, guest) == ("on", "running", *seen[2:])


def test_a_frozen_host_goes_on_or_loses_its_power(cloud, guest):
    """Whoever entered it and waits for a process there, as whoever starts an agent does, does not keep its power on."""
    cloud.command("freeze", "host01")
    assert look(cloud, guest) == ("on", "hung", True, False)
    cloud.command("restore", "host01")
    assert look(cloud, guest) == ("on", "running", True, True)
    waiting = subprocess.Popen(hypervisor.inside(Lab(NAME).state_dir("host01"), "sleep", "1000"))
    cloud.wait("it has entered", lambda: any(name == "sleep" for _, name in of_host01()))
    cloud.command("freeze", "host01")
    order("host01", ("power", "0"))
    assert look(cloud, guest) == ("off", "dead", False, False)
    waiting.wait(10)
    cloud.command("restore", "host01")


def of_host01():
    return list(hypervisor.processes_of(Lab(NAME).state_dir("host01")))


def test_a_panic_is_seen_where_there_is_a_device_for_it(cloud, guest):
    uuid, watcher = guest
    boots = len(watcher.report()["disks"][uuid])
    cloud.command("panic", "host01", uuid)
    cloud.wait("it has rebooted", lambda: len(watcher.report()["disks"][uuid]) > boots)
    assert cloud.running_on(uuid) == ["host01"]
    cloud.switch("host01", "panic_device")
    cloud.act(uuid, "reboot", {"type": "HARD"})
    cloud.wait("it is anew", lambda: len(watcher.report()["disks"][uuid]) > boots + 1)
    cloud.command("panic", "host01", uuid)
    cloud.wait("it is ended", lambda: not cloud.running_on(uuid))
    cloud.switch("host01", "panic_device", None)


def test_an_isolated_host_hears_nothing_of_its_cloud(cloud):
    port = str(Lab(NAME).port("keystone"))
    leader = hostpower.chassis(Lab(NAME).state_dir("host01"))
    call = ["nsenter", "--target", str(leader), "--net", "timeout", "3", "bash", "-c",
            "exec 3<>/dev/tcp/%s/%s" % (network.GATEWAY, port)]
    assert subprocess.run(call, capture_output=True).returncode == 0
    cloud.command("isolate", "host01")
    assert subprocess.run(call, capture_output=True).returncode != 0
    cloud.command("restore", "host01")
    assert subprocess.run(call, capture_output=True).returncode == 0


def test_the_power_button_is_real(cloud, guest):
    first = hostpower.chassis(Lab(NAME).state_dir("host01"))
    order("host01", ("power", "0"))
    assert look(cloud, guest) == ("off", "dead", False, False)
    order("host01", ("power", "1"))
    cloud.wait("the host is on", lambda: power("host01") == "on")
    second = hostpower.chassis(Lab(NAME).state_dir("host01"))
    order("host01", ("reset", "1"))
    assert len({first, second, hostpower.chassis(Lab(NAME).state_dir("host01"))}) == 3


def test_up_again_changes_nothing(cloud, guest):
    before = Lab(NAME).facts["services"]
    cloud.command("up")
    assert Lab(NAME).facts["services"] == before
    assert cloud.running_on(guest[0]) == ["host01"] and counts(*guest)


def alive(pattern, sought):
    """Which processes have that in a file or link of theirs."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/" + pattern):
        try:
            text = os.readlink(path) if path.is_symlink() else path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        found += [path] if sought in text else []
    return found


def test_down_leaves_nothing(cloud, guest):
    """No process, no network namespace and no mount; QEMU is told by the guest's id, for it has no environment."""
    lab = Lab(NAME)
    switch = os.readlink("/proc/%d/ns/net" % network.switch_pid(lab))
    assert alive("ns/net", switch) and alive("cmdline", guest[0])
    cloud.command("down")
    assert processes.of_lab(lab) == []
    assert not alive("ns/net", switch) and not alive("cmdline", guest[0]) and not alive("mountinfo", str(lab.root))
    cloud.command("up", limit_s=600)
    assert not cloud.running_on(guest[0])
