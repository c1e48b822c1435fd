# SPDX-License-Identifier: Apache-2.0
"""A machine with power: leads a host's process group and starts, kills and reboots the nova-compute under it."""
import os
import pathlib
import select
import signal
import socket
import time

from lab import hostpower, processes


def name_process(name):
    """What `ps` shows; fifteen characters are all the kernel keeps."""
    try:
        pathlib.Path("/proc/self/comm").write_text(name)
    except OSError:
        pass


class Chassis:
    """One powered host. It has no thread, so that it may fork nova-compute out of the pages it was forked with."""

    def __init__(self, state_dir, run_compute):
        self.state_dir, self.run_compute = state_dir, run_compute
        self.compute = None
        self.boots_at = None
        self.bell, self.clapper = socket.socketpair()
        self.door = socket.socket(socket.AF_UNIX)

    def open(self):
        """Orders come through a socket in the state folder, bound by its short name."""
        os.chdir(self.state_dir)
        pathlib.Path("chassis.sock").unlink(missing_ok=True)
        self.door.bind("chassis.sock")
        self.door.listen(8)
        self.clapper.setblocking(False)
        signal.set_wakeup_fd(self.clapper.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def record(self, name, pid):
        processes.record(self.state_dir / name, pid)

    def start(self):
        self.boots_at = None
        if self.compute:
            return
        pid = os.fork()
        if pid:
            self.compute = pid
            self.record("compute.pid", pid)
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self.bell, self.clapper, self.door):
            end.close()
        self.run_compute(self.state_dir)
        os._exit(0)

    def kill(self):
        self.boots_at = None
        if self.compute:
            os.kill(self.compute, signal.SIGKILL)
            os.waitpid(self.compute, 0)
            self.compute = None

    def fall(self):
        """nova-compute and the guests are gone; the power stays on."""
        self.kill()
        hostpower.shut_guests(self.state_dir)

    def obey(self, words):
        """start | stop | crash | reboot SECONDS"""
        if words[0] == "start":
            self.start()
        elif words[0] == "stop":
            self.kill()
        elif words[0] in ("crash", "reboot"):
            self.fall()
            if words[0] == "reboot":
                self.boots_at = time.monotonic() + float(words[1])
        else:
            return "no such order: %s" % " ".join(words)
        return "ok"

    def answer(self):
        caller, _ = self.door.accept()
        with caller:
            caller.settimeout(2)
            try:
                words = caller.makefile().readline().split()
                caller.sendall((self.obey(words) if words else "no order").encode() + b"\n")
            except (OSError, ValueError, IndexError):
                pass

    def reap(self):
        self.bell.recv(4096)
        if self.compute and os.waitpid(self.compute, os.WNOHANG)[0]:
            self.compute = None

    def live(self):
        """Serve until the power goes."""
        self.start()
        while True:
            wait = None if self.boots_at is None else max(0.0, self.boots_at - time.monotonic())
            ready = select.select([self.bell, self.door], [], [], wait)[0]
            if self.bell in ready:
                self.reap()
            if self.door in ready:
                self.answer()
            if self.boots_at is not None and time.monotonic() >= self.boots_at:
                self.start()
