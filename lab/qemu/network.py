# SPDX-License-Identifier: Apache-2.0
"""The management network of the hosts: a switch in a network namespace of its own, and a cable to each host.

The controllers stay on the machine's loopback. A relay listens on the switch's address and passes what comes on to
them, so that all that a host hears of its cloud runs through its cable, and a pulled cable cuts it off for real.
Every lab has its own namespace, so all of them use the same addresses.
"""
import contextlib
import os
import pathlib
import subprocess
import sys

from lab import processes
from lab.layout import HERE, LabError

SWITCH, RELAY = "switch", "relay"
GATEWAY = "10.79.0.1"
MACHINE = "10.79.0.2"
CARRIED = ("rabbitmq", "keystone", "placement", "glance", "neutron", "nova-api")

WIRING = """set -e
ip link set lo up
ip link add lan type bridge
ip addr add %s/24 dev lan
ip link set lan up
exec sleep infinity
""" % GATEWAY


def address(host):
    return "10.79.0.%d" % (10 + int(host.removeprefix("host")))


def switch_pid(lab):
    """The process that is the switch; its network namespace lives and dies with it."""
    pid = processes.living(lab.pid / (SWITCH + ".pid"))
    if not pid:
        raise LabError("The switch of lab %r is dead; `lab/cloud down` and `up` lay the cables anew." % lab.name)
    return pid


def inside(lab, *argv):
    """argv, to be run where the switch is."""
    return ["nsenter", "--net=/proc/%d/ns/net" % switch_pid(lab), *[str(word) for word in argv]]


def switch_is_on(lab):
    pid = processes.living(lab.pid / (SWITCH + ".pid"))
    return bool(pid) and pathlib.Path("/proc/%d/comm" % pid).read_text().strip() == "sleep"


def listens(lab, port):
    """Somebody listens at the switch's address."""
    return "01004F0A:%04X 00000000:0000 0A" % port in pathlib.Path("/proc/%d/net/tcp" % switch_pid(lab)).read_text()


def relay_listens(lab):
    """Its last port is open; it opens them in order."""
    return listens(lab, lab.port(CARRIED[-1]))


def service(lab, name):
    """(argv, ready, environment) of one of the two services."""
    if name == SWITCH:
        return ["unshare", "--net", "sh", "-c", WIRING], lambda: switch_is_on(lab), {}
    return ([sys.executable, "-m", "lab.qemu.relay", lab.name], lambda: relay_listens(lab),
            {"PYTHONPATH": str(HERE.parent)})


def plug_in(lab, host):
    """Lay the cable; called by the host itself, in its own network namespace.

    The kernel takes an old cable away some time after its host has died, so it is taken away here if it is still there.
    """
    switch = os.open("/proc/%d/ns/net" % switch_pid(lab), os.O_RDONLY)
    there = "/proc/self/fd/%d" % switch
    on_switch = ["nsenter", "--net=" + there, "ip", "link"]
    try:
        subprocess.run([*on_switch, "del", host], pass_fds=(switch,), stderr=subprocess.DEVNULL, check=False)
        for argv in (["ip", "link", "set", "lo", "up"],
                     ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", there],
                     [*on_switch, "set", host, "master", "lan", "up"],
                     ["ip", "addr", "add", address(host) + "/24", "dev", "eth0"],
                     ["ip", "link", "set", "eth0", "up"],
                     ["ip", "route", "add", "default", "via", GATEWAY]):
            subprocess.run(argv, pass_fds=(switch,), check=True)
    finally:
        os.close(switch)


@contextlib.contextmanager
def machine_plugged_in(lab):
    """A cable from this machine itself to the switch, for what runs here and has to reach a server there.

    All labs use the same addresses, so one of them at a time.
    """
    end = "vmhad-" + lab.name[:9]
    show = ["ip", "-4", "-o", "addr", "show", "to", MACHINE]
    taken = subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()
    if taken:
        raise LabError("This machine is on the switch of a lab already: %s." % taken[1])
    try:
        for argv in (["ip", "link", "add", end, "type", "veth", "peer", "name", "machine", "netns",
                      "/proc/%d/ns/net" % switch_pid(lab)],
                     ["ip", "addr", "add", MACHINE + "/24", "dev", end], ["ip", "link", "set", end, "up"],
                     inside(lab, "ip", "link", "set", "machine", "master", "lan", "up")):
            subprocess.run(argv, check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "del", end], stderr=subprocess.DEVNULL, check=False)


def cable(lab, host, *words):
    """What `ip link` says to something about the switch's end of the host's cable."""
    done = subprocess.run(inside(lab, "ip", "-o", "link", *words, "dev", host), capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise LabError("The cable of %s cannot be reached: %s" % (host, done.stderr.strip()))
    return done.stdout


def pull_out(lab, host):
    cable(lab, host, "set", "down")


def put_back(lab, host):
    """True when the cable was out."""
    was_out = "UP" not in cable(lab, host, "show").partition("<")[2].partition(">")[0].split(",")
    if was_out:
        cable(lab, host, "set", "up")
    return was_out
