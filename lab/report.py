# SPDX-License-Identifier: Apache-2.0
"""What a lab looks like at this moment, read from its processes and files and not from what Nova believes."""
import json
import signal
import threading

from lab import bmc, hostpower, processes, services, settings
from lab.layout import LabError, write_private
from lab.qemu import ceph, checker, hypervisor
from lab.watcher import Watcher


def is_up(lab):
    return bool(lab.facts) and any(processes.living(services.pid_file(lab, name)) for name in ("keystone", "mariadb"))


def must_be_up(lab):
    if not is_up(lab):
        raise LabError("Lab %r is not up; `lab/cloud up --name %s` starts it." % (lab.name, lab.name))


def read_guests(lab, host):
    if lab.virt == "qemu":
        return hypervisor.guests(lab.state_dir(host))
    try:
        return json.loads((lab.state_dir(host) / "guests.json").read_text())
    except (OSError, ValueError):
        return []


def status(lab):
    must_be_up(lab)
    table, total = processes.sessions(), 0.0
    print("%-16s %8s %7s %8s" % ("SERVICE", "PID", "PORT", "MiB"))
    for name in services.names(lab):
        if name.startswith("bmc-"):
            continue
        pid = processes.living(services.pid_file(lab, name))
        mib = sum(processes.memory(one) for one in table.get(pid, [])) if pid else 0.0
        total += mib
        print("%-16s %8s %7s %8.0f" % (name, pid or "dead", lab.facts["ports"].get(name, "-"), mib))
    print("%-16s %8s %7s %8s  %-8s %-6s %s" % ("HOST", "COMPUTE", "BMC", "MiB", "AGENT", "POWER", "GUESTS"))
    for host in lab.host_names():
        folder = lab.state_dir(host)
        leader, (pid, state) = hostpower.chassis(folder), hostpower.compute(folder)
        own = table.get(leader, []) if leader else []
        mib = sum(processes.memory(one) for one in [*own, *(pid for pid, _ in hypervisor.emulators(folder))])
        total += mib
        there = processes.living(services.pid_file(lab, bmc.name(host)))
        total += processes.memory(there) if there else 0.0
        print("%-16s %8s %7s %8.0f  %-8s %-6s %d" % (
            host, pid or "-", lab.port(bmc.name(host)) if there else "dead", mib, state, "on" if leader else "off",
            len(read_guests(lab, host))))
    print("memory of all together: %.0f MiB (proportional share)" % total)


def guests(lab, as_json):
    """Which host runs which guest; `can_run` is false for what a dead host still remembers."""
    rows = []
    for host in lab.host_names():
        alive = hostpower.chassis(lab.state_dir(host)) is not None
        rows += [{"host": host, "can_run": alive, **guest} for guest in read_guests(lab, host)]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print("%-10s %s  %-20s %s%s" % (row["host"], row["uuid"], row["name"], row["state"],
                                        "" if row["can_run"] else " (host has no power)"))
    print("%d guests on %d hosts" % (len(rows), len(lab.host_names())))


def logs(lab, name):
    """The end of one service's or host's logs, or where all of them are."""
    if not lab.log.exists():
        raise LabError("Lab %r has no logs; it was never up." % lab.name)
    if not name:
        for path in sorted(lab.log.rglob("*.*")):
            print("%10d  %s" % (path.stat().st_size, path))
        return
    found = services.log_files(lab, name)
    if not found:
        raise LabError("There is no log of %r; `lab/cloud logs` lists them." % name)
    for path in found:
        print("==> %s" % path)
        print("\n".join(path.read_text(errors="replace").splitlines()[-40:]))


def env(lab):
    if not lab.facts:
        raise LabError("Lab %r was never up." % lab.name)
    print(settings.openrc(lab), end="")


def qemu_disks(lab):
    return ceph.Disks(lab) if lab.storage == "rbd" else checker.Directory(lab.var / "instances")


def watcher_of(lab):
    """Real guests are watched at their disks: two QEMUs may share one for a moment while a guest migrates."""
    if lab.virt == "qemu":
        return checker.DiskWatcher(qemu_disks(lab))
    return Watcher(lab.hosts_dir)


def watch(lab, path):
    """Watch until told to stop, then say what was seen; the file holds the latest state all the while."""
    must_be_up(lab)
    enough = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: enough.set())
    watcher = watcher_of(lab).start()
    enough.wait()
    result = watcher.stop()
    text = json.dumps(result, indent=1) + "\n"
    if path:
        write_private(path.absolute(), text, 0o644)
    print(text, end="")
    return 1 if result["doubles"] else 0
