# SPDX-License-Identifier: Apache-2.0
"""The smallest real Ceph: one monitor, one manager, one OSD on a file, all of them where the switch is.

There is no authentication: only the hosts of this lab reach the switch. The manager is needed, for without it Ceph
names no pool and Nova's resource tracker fails.
"""
import json
import subprocess
import threading
import uuid

from lab import processes
from lab.layout import HERE, VENV, LabError, write_private
from lab.qemu import guest, network

MON, OSD, MGR = "ceph-mon", "ceph-osd", "ceph-mgr"
NAMES = (MON, OSD, MGR)
POOL = "rbd"
MON_PORT = 3300

SETTINGS = """[global]
fsid = {fsid}
mon_host = v2:{address}:{port}
public_network = {address}/24
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_crush_chooseleaf_type = 0
osd_objectstore = bluestore
bluestore_block_size = 2147483648
bluestore_block_wal_size = 0
bluestore_block_db_size = 0
osd_memory_target = 939524096
mon_data_avail_warn = 1
mon_data_avail_crit = 1
run_dir = {run}
admin_socket =
pid_file =
keyring = {var}/keyring
mon_data = {var}/mon
mgr_data = {var}/mgr
osd_data = {var}/osd
log_file = {log}/$type.ceph.log
[client]
rbd_cache = false
log_file =
"""


def settings_file(lab):
    return lab.etc / "ceph" / "ceph.conf"


def fsid(lab):
    return uuid.uuid5(uuid.NAMESPACE_URL, "vmhad-lab/%s/ceph" % lab.root)


def write_settings(lab):
    for name in ("mgr", "osd"):
        (lab.var / "ceph" / name).mkdir(parents=True, exist_ok=True)
    write_private(settings_file(lab), SETTINGS.format(
        fsid=fsid(lab), address=network.GATEWAY, port=MON_PORT, run=lab.pid, var=lab.var / "ceph", log=lab.log), 0o644)


def run(lab, *argv, limit_s=60.0):
    """One of Ceph's programs, where the switch is; its output."""
    command = network.inside(lab, argv[0], "-c", settings_file(lab), *argv[1:])
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise LabError("%s does not end within %d s." % (" ".join(argv), limit_s)) from None
    if done.returncode:
        raise LabError("%s failed: %s" % (" ".join(map(str, argv)), done.stderr.strip()[-300:]))
    return done.stdout


def make_mon(lab):
    data = lab.var / "ceph" / "mon"
    if not data.exists():
        monmap = lab.var / "ceph" / "monmap"
        address = "[v2:%s:%d]" % (network.GATEWAY, MON_PORT)
        subprocess.run(["monmaptool", "--clobber", "--create", "--addv", "a", address, "--fsid", str(fsid(lab)),
                        str(monmap)], stdout=subprocess.DEVNULL, check=True)
        run(lab, "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)


def make_osd(lab):
    """Its identity is told to the monitor first; an OSD whose making was cut short is made anew."""
    if not (lab.var / "ceph" / "osd" / "ready").exists():
        run(lab, "ceph", "osd", "new", str(fsid(lab)))
        run(lab, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", str(fsid(lab)))


def mon_listens(lab):
    return network.listens(lab, MON_PORT)


def no_more(lab):
    """A manager keeps nothing of its own."""


def osd_is_up(lab):
    return json.loads(run(lab, "ceph", "--format", "json", "osd", "stat"))["num_up_osds"] == 1


def mgr_is_active(lab):
    return json.loads(run(lab, "ceph", "--format", "json", "mgr", "stat"))["available"]


def service(lab, name):
    """(argv, ready, environment, port, prepare) of one of the three; see services.Service."""
    identity, ready, prepare = {
        MON: ("a", mon_listens, make_mon), OSD: ("0", osd_is_up, make_osd), MGR: ("x", mgr_is_active, no_more),
    }[name]
    argv = network.inside(lab, name, "-f", "-i", identity, "-c", settings_file(lab))
    return argv, lambda: ready(lab), {}, "", lambda: prepare(lab)


def make_pool(lab):
    """Where the guests' disks are; made when Ceph runs, unless it is there."""
    if POOL not in run(lab, "ceph", "osd", "pool", "ls").split():
        run(lab, "ceph", "osd", "pool", "create", POOL, "8", "8", "replicated")
        run(lab, "ceph", "osd", "pool", "application", "enable", POOL, "rbd")


class Disks:
    """The disks in the pool, read by a process where the switch is: this one has neither Ceph's libraries nor a way."""

    def __init__(self, lab):
        self.reader = subprocess.Popen(
            network.inside(lab, VENV / "bin" / "python", "-m", "lab.qemu.rbd_reader", settings_file(lab)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=processes.service_environment(lab, {"PYTHONPATH": str(HERE.parent)}))
        self.turn = threading.Lock()

    def _ask(self, line):
        """The first line of the answer. A pipe that broke is an error of the trial, not an empty disk."""
        self.reader.stdin.write(line.encode() + b"\n")
        self.reader.stdin.flush()
        answer = self.reader.stdout.readline()
        if not answer:
            raise RuntimeError("the reader of Ceph's disks has ended")
        return answer

    def names(self):
        with self.turn:
            return json.loads(self._ask("names"))

    def read(self, name, sector, count=1):
        with self.turn:
            length = int(self._ask("read %s %d %d" % (name, sector * guest.SECTOR, count * guest.SECTOR)))
            return self.reader.stdout.read(length)

    def close(self):
        self.reader.stdin.close()
        self.reader.wait()
