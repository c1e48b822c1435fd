# SPDX-License-Identifier: Apache-2.0
"""A shared directory that can be full: for a while, a small file system of its own lies over it, on every host.

Only for the guests that are started meanwhile. Their disks are made sparse, as on any thin storage, for else a full
one would not be noticed.
"""
import errno
import os
import subprocess
from contextlib import contextmanager

from lab import hostpower
from lab.qemu import guest, hypervisor

# Room for a few guests beside the image that Nova keeps.
MEBIBYTES = 256
FILLER = "filler"
# The guest goes on writing while its disk is made sparse: so much of what lies before it is left alone.
AHEAD = 32 << 10


def run(*argv):
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def small_storage(lab, mebibytes=MEBIBYTES):
    """The directory, while the small file system lies over it. Hosts that get power meanwhile have it, too."""
    folder, image = lab.var / "instances", lab.var / "small-storage"
    with open(image, "wb") as file:
        file.truncate(mebibytes << 20)
    run("mkfs.ext4", "-q", "-m", "0", image)
    device = run("losetup", "--find", "--show", image)
    try:
        for entering in places(lab):
            run(*entering, "mount", device, folder)
        yield folder
    finally:
        for entering in places(lab):
            subprocess.run([*entering, "umount", "--lazy", str(folder)], check=False, capture_output=True)
        run("losetup", "--detach", device)
        image.unlink()


def places(lab):
    """How to get where it must be mounted: here, for what is forked later, and on each host that has power."""
    folders = [lab.state_dir(host) for host in lab.host_names()]
    return [[], *(hypervisor.inside(folder) for folder in folders if hostpower.chassis(folder))]


def make_sparse(disk, count):
    """Of a guest's disk only what it wrote up to that count takes room, and a little beyond."""
    used = count * guest.SECTOR + AHEAD
    run("fallocate", "--punch-hole", "--offset", used, "--length", guest.DISK_BYTES - used, disk)


def fill(folder):
    """Until not one more block is left."""
    file = os.open(folder / FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (16 << 20, 1 << 20, 4096):
            try:
                while True:
                    os.posix_fallocate(file, os.fstat(file).st_size, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    finally:
        os.close(file)


def make_room(folder):
    (folder / FILLER).unlink()
