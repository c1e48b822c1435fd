# SPDX-License-Identifier: Apache-2.0
"""Imports nova-compute once and forks every host from that: half the memory and a quarter of the start of a lone one.

Runs inside the virtualenv. It listens on a unix socket, so that a host can also be switched on much later, by its BMC.
Nothing here may start a thread before a fork; nova 34 runs on native threads and starts none at import.
"""
import gc
import os
import pathlib
import signal
import socket
import sys

from lab import hostpower
from lab.chassis import Chassis, name_process
from lab.layout import HERE, Lab
from lab.qemu import namespaces
from lab.qemu.chassis import NamespacedChassis


def preload(lab):
    """Import whatever a nova-compute would import in its first seconds."""
    import nova.virt
    nova.virt.__path__.append(str(HERE / "plugins"))
    sys.argv = ["nova-compute"]
    import nova.cmd.compute  # first: it settles which threads nova uses
    import nova.compute.manager
    import nova.image.glance
    import nova.network.neutron
    import nova.scheduler.client.report
    import nova.volume.cinder
    import oslo_messaging._drivers.impl_rabbit  # noqa: F401
    if lab.virt == "qemu":
        import libvirt  # noqa: F401
        import nova.virt.libvirt.driver
    else:
        import nova.virt.lab_virt

    gc.collect()
    gc.freeze()
    return nova.cmd.compute.main


class Zygote:
    def __init__(self, lab, compute_main):
        self.lab, self.compute_main = lab, compute_main
        self.fork = namespaces.fork_as_init if lab.virt == "qemu" else os.fork
        os.chdir(lab.hosts_dir)
        pathlib.Path("zygote.sock").unlink(missing_ok=True)
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind("zygote.sock")
        self.door.listen(64)

    def run_compute(self, state_dir):
        """Become nova-compute; called in a process that the chassis has just forked."""
        host = state_dir.name
        name_process("ncomp-" + host)
        sys.argv = ["nova-compute", "--config-file", str(self.lab.etc / "hosts" / (host + ".conf"))]
        self.compute_main()

    def become_chassis(self, host, caller):
        os.setsid()
        self.door.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        state_dir = self.lab.state_dir(host)
        (state_dir / "lock").mkdir(parents=True, exist_ok=True)
        out = os.open(self.lab.log / (host + ".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        name_process("chassis-" + host)
        if self.lab.virt == "qemu":
            machine = NamespacedChassis(self.lab, state_dir, self.run_compute)
        else:
            machine = Chassis(state_dir, self.run_compute)
        machine.open()
        machine.record("chassis.pid", os.getpid())
        caller.sendall(b"ok\n")
        caller.close()
        machine.live()

    def switch_on(self, host, caller):
        if not (self.lab.etc / "hosts" / (host + ".conf")).exists():
            caller.sendall(b"no such host\n")
        elif hostpower.chassis(self.lab.state_dir(host)):
            caller.sendall(b"ok already on\n")
        elif self.fork() == 0:
            try:
                self.become_chassis(host, caller)
            finally:
                os._exit(1)

    def serve(self):
        while True:
            caller, _ = self.door.accept()
            with caller:
                caller.settimeout(2)
                try:
                    words = caller.makefile().readline().split()
                    if len(words) == 2 and words[0] == "on":
                        self.switch_on(words[1], caller)
                    else:
                        caller.sendall(b"ok\n" if words == ["ping"] else b"no such order\n")
                except OSError:
                    continue


def main():
    lab = Lab(sys.argv[1])
    compute_main = preload(lab)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # chassis are reaped by the kernel
    name_process("lab-zygote")
    Zygote(lab, compute_main).serve()


if __name__ == "__main__":
    main()
