# SPDX-License-Identifier: Apache-2.0
"""The power of a pretend host: it is on exactly while its chassis process lives.

Used by the lab's commands and, as a program, by the hook of the host's BMC; both must mean the same by "off".
"""
import json
import os
import pathlib
import signal
import socket
import sys
import time

from lab import processes
from lab.layout import LabError, write_private

# In the state folder of a host that is frozen: who outside waits for a process of it.
FROZEN = "frozen"


def ask(folder, name, line, timeout=15.0):
    """Say one line to a unix socket and return the answer; the way through /proc keeps long paths within its limit."""
    fd = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(timeout)
            talk.connect("/proc/self/fd/%d/%s" % (fd, name))
            talk.sendall(line.encode() + b"\n")
            answer = talk.makefile().readline().strip()
    finally:
        os.close(fd)
    if not answer.startswith("ok"):
        raise LabError("%s of %s answered: %s" % (name, folder, answer or "nothing"))
    return answer


def chassis(state_dir):
    """The pid of the host's chassis, which is also its process group; None while it has no power."""
    return processes.living(state_dir / "chassis.pid")


def compute(state_dir):
    """(pid, 'running' or 'hung') of the host's nova-compute, or (None, 'dead')."""
    pid = processes.living(state_dir / "compute.pid") if chassis(state_dir) else None
    if not pid:
        return None, "dead"
    return pid, "hung" if (processes.birth(pid) or "?")[0] in "Tt" else "running"


def compute_born(state_dir):
    """When the present nova-compute was forked (seconds since the epoch)."""
    return (state_dir / "compute.pid").stat().st_mtime


def shut_guests(state_dir):
    """No guest runs any more; each is still defined, as a libvirt domain is after its host went down.

    Real guests are processes, and have no such file.
    """
    try:
        guests = json.loads((state_dir / "guests.json").read_text())
    except (OSError, ValueError):
        return
    rows = [{**guest, "state": "shutdown"} for guest in guests]
    write_private(state_dir / "guests.json", json.dumps(rows) + "\n", 0o644)


def wake_those_outside(state_dir):
    """Whoever entered a host that is frozen waits outside and was stopped with what it waits for. The host is not gone
    before they took notice of it."""
    file = state_dir / FROZEN
    if file.exists():
        for pid in file.read_text().split():
            processes.signal_one(int(pid), signal.SIGCONT)
        file.unlink()


def off(state_dir):
    """Take the power away: the whole group at once, and its guests with it."""
    pid = chassis(state_dir)
    if pid:
        processes.signal_group(pid, signal.SIGKILL)
        wake_those_outside(state_dir)
        processes.wait_gone([state_dir / "chassis.pid", state_dir / "compute.pid"], 5.0)
    shut_guests(state_dir)


def on(state_dir):
    """Give power: the zygote of the lab forks the chassis, and the chassis starts nova-compute."""
    try:
        ask(state_dir.parent, "zygote.sock", "on %s" % state_dir.name)
    except OSError as error:
        raise LabError("%s cannot be switched on: the lab's zygote does not answer (%s)." % (
            state_dir.name, error)) from None


def order(state_dir, word):
    """Tell a powered host's chassis to start, stop, crash or reboot what runs on it."""
    try:
        ask(state_dir, "chassis.sock", word)
    except OSError as error:
        raise LabError("The chassis of %s does not answer (%s)." % (state_dir.name, error)) from None


def main(argv):
    """What the BMC was asked to do; a lying BMC takes the order and does nothing."""
    state_dir, verb, what = pathlib.Path(argv[1]), argv[2], argv[3]
    if verb != "set" or (state_dir / "bmc_lie").exists():
        return 0
    value = argv[4] if len(argv) > 4 else ""
    if what == "power" and value == "1":
        if not chassis(state_dir):
            on(state_dir)
    elif what in ("power", "shutdown"):
        off(state_dir)
    elif what == "reset" and chassis(state_dir):
        off(state_dir)
        time.sleep(0.1)
        on(state_dir)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except LabError as problem:
        sys.exit(str(problem))
