# SPDX-License-Identifier: Apache-2.0
"""What Linux offers to make one machine look like several, by the system calls that Python 3.11 does not have."""
import ctypes
import os
import signal

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
LIBC = ctypes.CDLL(None, use_errno=True)


def _must(result, what):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(kinds):
    _must(LIBC.unshare(kinds), "unshare")


def enter(namespace, kind):
    """This thread goes into the namespace of an open /proc/PID/ns file; other threads stay where they are."""
    _must(LIBC.setns(namespace, kind), "setns")


def mount(source, target, kind=None, flags=0):
    _must(LIBC.mount(os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags), None),
          str(target))


def bind(source, target):
    mount(source, target, flags=MS_BIND)


def keep_mounts_here():
    """No mount made from now on is seen outside."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def unmount(target):
    _must(LIBC.umount2(os.fsencode(target), MNT_DETACH), str(target))


def fork_as_init():
    """os.fork(), but the child is process 1 of a new namespace: with it dies everything that was ever started in it."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    try:
        unshare(NEWPID)
        pid = os.fork()
        if pid:
            enter(own, NEWPID)
        else:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    finally:
        os.close(own)
    return pid
