# SPDX-License-Identifier: Apache-2.0
"""The misfortunes a host can meet, and the way back; each is one verb of `lab/cloud`, and none of them asks Nova."""
import json
import os
import pathlib
import signal
import subprocess
import time

from lab import bmc, bringup, hostpower, processes, rest, services
from lab.layout import LabError, write_private
from lab.qemu import hypervisor, network, settings

# The empty directory that lies over a shared storage that is lost.
NO_STORAGE = "no-storage"


def cut(lab, host):
    hostpower.off(lab.state_dir(host))
    return "has no power; its guests are gone and its BMC says off"


def crash(lab, host):
    hostpower.order(powered(lab, host), "crash")
    return "has crashed: nova-compute and guests are gone, the power is on"


def hang(lab, host):
    pid, state = hostpower.compute(powered(lab, host))
    if state == "dead":
        raise LabError("nova-compute of %s does not run, so it cannot hang." % host)
    os.kill(pid, signal.SIGSTOP)
    return "hangs: nova-compute is stopped, its guests run on"


def unplug(lab, host):
    processes.end([services.pid_file(lab, bmc.name(host))], at_once=True)
    hostpower.off(lab.state_dir(host))
    return "is unplugged: no power, and its BMC does not answer"


def stop_compute(lab, host):
    hostpower.order(powered(lab, host), "stop")
    return "has lost nova-compute; its guests run on"


def reboot(lab, host, boot_s):
    hostpower.order(powered(lab, host), "reboot %g" % boot_s)
    return "reboots: guests gone, nova-compute back in %g s, power stays on" % boot_s


def lose_guest(lab, host, server):
    """As a kill -9 of its emulator does."""
    folder = powered(lab, host)
    if lab.virt == "qemu":
        pids = [pid for pid, words in hypervisor.emulators(folder) if server in words]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        lost = bool(pids)
    else:
        rows = json.loads((folder / "guests.json").read_text())
        lost = any((row["uuid"], row["state"]) == (server, "running") for row in rows)
        write_private(folder / "lose_guest", server, 0o644)
    if not lost:
        raise LabError("%s runs no guest of server %s." % (host, server))
    return "has lost the guest of server %s; nova finds out after a while" % server


def panic(lab, host, server):
    """An NMI, which the guest's kernel was told to panic of. Without a panic device nobody hears of it."""
    folder = real(lab, host)
    done = subprocess.run(hypervisor.inside(folder, "virsh", "inject-nmi", server), capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise LabError("The guest of server %s on %s was not reached: %s" % (server, host, done.stderr.strip()))
    return "has a guest whose kernel panics: that of server %s" % server


def isolate(lab, host):
    real(lab, host)
    network.pull_out(lab, host)
    return "is isolated: its cable is out, everything on it runs on"


def freeze(lab, host):
    """As a kernel that hangs: nothing runs, nothing answers, and only the power is on."""
    folder = real(lab, host)
    network.pull_out(lab, host)
    stopped = everything_but_its_chassis(folder)
    outside = {hypervisor.parent(pid) for pid in stopped} - {*stopped, hostpower.chassis(folder), 0}
    write_private(folder / hostpower.FROZEN, " ".join(map(str, sorted(outside))), 0o644)
    for pid in stopped:
        processes.signal_one(pid, signal.SIGSTOP)
    return "is frozen: its cable is out and %d processes are stopped, its guests among them" % len(stopped)


def everything_but_its_chassis(folder):
    leader = hostpower.chassis(folder)
    return [pid for pid, _ in hypervisor.processes_of(folder) if pid != leader]


def stop_libvirtd(lab, host):
    pid = hypervisor.libvirtd(real(lab, host))
    if not pid:
        raise LabError("%s has no libvirtd that could be killed." % host)
    os.kill(pid, signal.SIGKILL)
    return "has lost libvirtd; its guests run on"


def lose_storage(lab, host):
    """As a mount that is gone: what is open stays open, and nothing else of it is found."""
    folder = real(lab, host)
    if lab.storage != "dir":
        raise LabError("Only a shared directory can be lost (--storage dir); Ceph blocks a client by itself.")
    empty = folder / NO_STORAGE
    empty.mkdir(exist_ok=True)
    subprocess.run(hypervisor.inside(folder, "mount", "--bind", empty, storage_of(lab, host)), check=True)
    return "has lost the shared storage; its guests go on with the files that they have open"


def storage_of(lab, host):
    return settings.instances_dir(lab, host)


def real(lab, host):
    if lab.virt != "qemu":
        raise LabError("Only a host of a lab with --virt qemu can suffer that.")
    return powered(lab, host)


def mend(lab, host, say):
    """What a real host suffers beside the death of its nova-compute. True when it was cut off."""
    folder = lab.state_dir(host)
    if not hostpower.chassis(folder):
        return False
    for pid in everything_but_its_chassis(folder):
        processes.signal_one(pid, signal.SIGCONT)
    hostpower.wake_those_outside(folder)
    if NO_STORAGE in pathlib.Path("/proc/%d/mountinfo" % hostpower.chassis(folder)).read_text():
        subprocess.run(hypervisor.inside(folder, "umount", storage_of(lab, host)), check=True)
        say("%s has its shared storage again" % host)
    if not hypervisor.libvirtd(folder):
        hostpower.order(folder, "start")
        say("libvirtd of %s started" % host)
    replugged = network.put_back(lab, host)
    if replugged:
        say("the cable of %s is in again" % host)
    return replugged


def powered(lab, host):
    folder = lab.state_dir(host)
    if not hostpower.chassis(folder):
        raise LabError("%s has no power; `restore %s` switches it on." % (host, host))
    return folder


def restore(lab, host, say, enable=False):
    """Its power and its processes are as they were; Nova's flags stay as they are unless `enable` is asked for, and so
    do the ways that a file beside it gives the host (bmc_lie, spawn_delay and their like)."""
    folder = lab.state_dir(host)
    services.bring(lab, "zygote", bmc.name(host))
    began = time.time()
    pid, state = hostpower.compute(folder)
    replugged = lab.virt == "qemu" and mend(lab, host, say)
    if not hostpower.chassis(folder):
        hostpower.on(folder)
        say("%s has power again" % host)
    elif state == "hung":
        os.kill(pid, signal.SIGCONT)
        say("%s goes on" % host)
    elif state == "dead":
        hostpower.order(folder, "start")
        say("nova-compute of %s started" % host)
    elif not replugged:
        began = hostpower.compute_born(folder)
    services.record(lab)
    forced = bringup.wait_hosts(lab, {host: began})
    say("%s reports to nova%s" % (host, ", but is forced down there" if forced else " and is up"))
    if enable:
        let_in(lab, host, say)
        enable_service(lab, host)
        say("%s may be given guests again" % host)


def let_in(lab, host, say, seconds=120.0):
    """Lift forced_down as soon as nova lets us: not before the host has cleaned up what was evacuated from it."""
    api = rest.Api(lab)
    until = time.monotonic() + seconds
    while True:
        row = api.computes().get(host)
        if row and not row["forced_down"]:
            return
        rows = api.get("compute", "/os-migrations?source_compute=%s&migration_type=evacuation" % host)["migrations"]
        if row and all(item["status"] != "done" for item in rows if item["source_compute"] == host):
            try:
                api.call("PUT", "compute", "/os-services/%s" % row["id"], {"forced_down": False})
                say("forced_down of %s lifted" % host)
                return
            except rest.RestError as error:
                if error.status != 400:
                    raise
        if time.monotonic() > until:
            raise LabError("%s has not cleaned up its evacuated guests after %d s." % (host, seconds))
        time.sleep(0.3)


def enable_service(lab, host):
    """Only after the service is up: enabled earlier, placement would keep it barred for up to a minute."""
    api = rest.Api(lab)
    row = api.computes()[host]
    if row["status"] != "enabled":
        api.call("PUT", "compute", "/os-services/%s" % row["id"], {"status": "enabled"})
