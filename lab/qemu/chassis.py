# SPDX-License-Identifier: Apache-2.0
"""A machine with power that is process 1 of its own namespaces, with libvirtd, QEMU and nova-compute under it.

To take its power away is to kill process 1: the kernel then kills everything in the namespace, and process 1 counts
as gone only when nothing of it is left.
"""
import os
import pathlib
import shutil
import signal
import socket
import time
import uuid

from lab import processes
from lab.chassis import Chassis
from lab.qemu import namespaces, network, settings

LIBVIRT_SOCKET = pathlib.Path("/run/libvirt/libvirt-sock")
LIBVIRT_WITHIN = 30.0


class NamespacedChassis(Chassis):
    def __init__(self, lab, state_dir, run_compute):
        super().__init__(state_dir, self._compute)
        self.lab, self._run_compute = lab, run_compute
        self.libvirtd = None
        self.proc = os.open("/proc", os.O_PATH)

    def open(self):
        """Become a machine of its own: a name, a cable, an empty /run, and nobody else's processes in sight."""
        host = self.state_dir.name
        namespaces.unshare(namespaces.NEWNS | namespaces.NEWNET | namespaces.NEWUTS | namespaces.NEWIPC)
        namespaces.keep_mounts_here()
        socket.sethostname(host)
        network.plug_in(self.lab, host)
        namespaces.mount("proc", "/proc", "proc")
        namespaces.mount("sysfs", "/sys", "sysfs")
        self.draw_boot_id()
        namespaces.bind(self.state_dir / "boot_id", "/proc/sys/kernel/random/boot_id")
        for source, target in settings.mounts(self.lab, host):
            namespaces.bind(source, target)
        namespaces.mount("run", "/run", "tmpfs")
        super().open()

    def draw_boot_id(self):
        """The kernel's is that of the machine below, the same for all hosts and over all their deaths."""
        (self.state_dir / "boot_id").write_text("%s\n" % uuid.uuid4())

    def record(self, name, pid):
        """Pid files are for the rest of the machine, which knows this process by another number."""
        outside = "/proc/self/fd/%d" % self.proc
        own = os.readlink(outside + "/self")
        children = pathlib.Path("%s/%s/task/%s/children" % (outside, own, own)).read_text().split()
        for one in [own, *children]:
            status = pathlib.Path("%s/%s/status" % (outside, one)).read_text()
            if int(status.partition("NSpid:")[2].split("\n")[0].split()[-1]) == pid:
                (self.state_dir / name).write_text("%s %s\n" % (one, processes.birth(pid)[1]))
                return
        raise ProcessLookupError(pid)

    def start(self):
        if not self.libvirtd:
            program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
            self.libvirtd = os.posix_spawn(program, [program], os.environ, setsigdef=[signal.SIGPIPE])
        super().start()

    def _compute(self, state_dir):
        """nova-compute gives up on a libvirtd that is not there yet."""
        until = time.monotonic() + LIBVIRT_WITHIN
        while not LIBVIRT_SOCKET.exists() and time.monotonic() < until:
            time.sleep(0.02)
        self._run_compute(state_dir)

    def fall(self):
        """Whatever runs here is gone at once, and with it what /run knew of it."""
        self.boots_at = None
        os.kill(-1, signal.SIGKILL)
        while self._reap(0):
            pass
        self.draw_boot_id()
        namespaces.unmount("/run")
        namespaces.mount("run", "/run", "tmpfs")

    def _reap(self, options):
        """True when a child was gone. Process 1 is given the orphans of all others, so these may be anybody's."""
        try:
            pid = os.waitpid(-1, options)[0]
        except ChildProcessError:
            self.compute = self.libvirtd = None
            return False
        self.compute = None if pid == self.compute else self.compute
        self.libvirtd = None if pid == self.libvirtd else self.libvirtd
        return pid != 0

    def reap(self):
        self.bell.recv(4096)
        while self._reap(os.WNOHANG):
            pass
