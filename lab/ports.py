# SPDX-License-Identifier: Apache-2.0
"""Gives each lab a block of ports of its own, below the ephemeral range, so that several labs stand side by side."""
import json
import socket

from lab.layout import RUN, LabError

FIRST, LAST, BLOCK = 20000, 32000, 200
SERVICES = ("keystone", "placement", "nova-api", "glance", "neutron", "mariadb", "rabbitmq", "rabbitmq-dist",
            "epmd", "memcached")
ETCD_CLIENT, ETCD_PEER, BMC, CINDER = 10, 15, 20, BLOCK - 1
MOST_ETCD, MOST_HOSTS = 5, BLOCK - BMC - 1


def table(base, etcd_members, hosts):
    """The port of every service of a lab whose block starts at `base`."""
    ports = {name: base + offset for offset, name in enumerate(SERVICES)}
    ports["cinder-api"] = base + CINDER
    for number in range(1, etcd_members + 1):
        ports["etcd-%d" % number] = base + ETCD_CLIENT + number - 1
        ports["etcd-%d-peer" % number] = base + ETCD_PEER + number - 1
    for number, host in enumerate(hosts):
        ports["bmc-" + host] = base + BMC + number
    return ports


def is_free(port, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def block_is_free(base):
    return (all(is_free(port) for port in (*range(base, base + BMC), base + CINDER))
            and all(is_free(port, socket.SOCK_DGRAM) for port in range(base + BMC, base + BLOCK)))


def blocks_of_others(lab):
    """Blocks that other labs remember, up or down: a stopped lab keeps its ports."""
    taken = set()
    for path in RUN.glob("*/cloud.json"):
        if path != lab.facts_file:
            try:
                taken.add(json.loads(path.read_text())["port_block"])
            except (KeyError, ValueError):
                continue
    return taken


def allot(lab):
    """The base of this lab's block: the remembered one, else the first free block from a place its name gives."""
    if "port_block" in lab.facts:
        return lab.facts["port_block"]
    blocks = range(FIRST, LAST, BLOCK)
    taken = blocks_of_others(lab)
    start = lab.first_block() % len(blocks)
    for step in range(len(blocks)):
        base = blocks[(start + step) % len(blocks)]
        if base not in taken and block_is_free(base):
            return base
    raise LabError("No block of %d free ports is left between %d and %d." % (BLOCK, FIRST, LAST))
