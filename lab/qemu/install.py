# SPDX-License-Identifier: Apache-2.0
"""What real guests need beyond what every lab has: libvirt's Python binding, a guest kernel and a busybox.

Kernel and busybox are taken out of their Debian packages: installed they would change how this machine boots.
"""
import glob
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from lab.layout import SHARED, VENV, LabError, locked
from lab.qemu import settings

GUEST = SHARED / "guest"
KERNEL, BUSYBOX = "linux-image-cloud-amd64", "busybox-static"
# The kernel for clouds drives no watchdog that QEMU has; this one does. Only what is named is kept of it.
WATCHDOG_GUEST = SHARED / "watchdog-guest"
WATCHDOG_KERNEL = "linux-image-amd64"
WATCHDOG_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
                    "virtio_blk", "crc16", "mbcache", "jbd2", "crc32c_generic", "ext4", "watchdog", "i6300esb")
BINDING = "libvirt-python>=9,<13"
DEBIANS = "/usr/lib/python3/dist-packages/"
LOG = SHARED / "qemu.log"


def run(argv, **more):
    with open(LOG, "ab") as out:
        subprocess.run([str(word) for word in argv], stdout=out, stderr=out, check=True, **more)


def binding_is_there():
    return any(VENV.glob("lib/python3.*/site-packages/libvirt.py"))


def install_binding():
    """Built here, from its source, against Debian's libvirt; later ones come from uv's cache."""
    env = dict(os.environ, UV_CACHE_DIR=str(SHARED / "uv-cache"), UV_LINK_MODE="hardlink")
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    run([SHARED / "uv" / "bin" / "uv", "pip", "install", "-q", "--compile-bytecode", "--python",
         VENV / "bin" / "python", BINDING], env=env)


def kernel_package(name=KERNEL):
    """The package that the newest kernel really is in, by apt's lists of today: older ones name files that are gone."""
    with open(LOG, "ab") as out:
        subprocess.run(["apt-get", "-q", "update"], stdout=out, stderr=out, check=False)
    text = subprocess.run(["apt-cache", "depends", name], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Depends: (linux-image-\S+)", text)
    if not found:
        raise LabError("apt knows no %s; see %s." % (name, LOG))
    return found[1]


def fetch_guest():
    """vmlinuz, modules and busybox, below lab/run/shared/guest."""
    with tempfile.TemporaryDirectory(dir=SHARED) as folder:
        run(["apt-get", "-q", "download", kernel_package(), BUSYBOX], cwd=folder)
        for name in os.listdir(folder):
            if name.endswith(".deb"):
                run(["dpkg-deb", "--extract", name, "tree"], cwd=folder)
        shutil.rmtree(GUEST, ignore_errors=True)
        os.rename(os.path.join(folder, "tree"), GUEST)


def fetch_watchdog_guest():
    """vmlinuz and the modules, below lab/run/shared/watchdog-guest; once."""
    with locked(SHARED / "install.lock"), tempfile.TemporaryDirectory(dir=SHARED) as folder:
        if WATCHDOG_GUEST.exists():
            return
        tree = pathlib.Path(folder) / "tree"
        run(["apt-get", "-q", "download", kernel_package(WATCHDOG_KERNEL)], cwd=folder)
        run(["dpkg-deb", "--extract", next(pathlib.Path(folder).glob("*.deb")), tree])
        kept = pathlib.Path(folder) / "kept"
        kept.mkdir()
        shutil.copy(next(tree.glob("boot/vmlinuz-*")), kept / "vmlinuz")
        for name in WATCHDOG_MODULES:
            shutil.copy(next(tree.rglob(name + ".ko")), kept)
        os.rename(kept, WATCHDOG_GUEST)


def install_ceph_bindings():
    """Debian's own, which fit the Python that Debian's python3 is; nobody else builds them."""
    for path in [path for name in ("rados", "rbd") for path in glob.glob(DEBIANS + name + ".*.so")]:
        there = next(VENV.glob("lib/python3.*/site-packages")) / os.path.basename(path)
        there.unlink(missing_ok=True)
        there.symlink_to(path)
    run([VENV / "bin" / "python", "-c", "import rados, rbd"])


def may_make_hosts():
    """A container's root may often make neither namespaces nor mounts."""
    trial = ["unshare", "--pid", "--fork", "--net", "--uts", "--ipc", "--mount-proc", "true"]
    return os.geteuid() == 0 and subprocess.run(trial, capture_output=True, check=False).returncode == 0


def must_make_hosts():
    if not may_make_hosts():
        raise LabError("A lab with --virt qemu must be run by root, where root may make namespaces and mounts.")


def ensure(say, storage):
    settings.make_mount_points()
    with locked(SHARED / "install.lock"):
        wanted = [("libvirt's Python binding", binding_is_there(), install_binding),
                  ("the guest's kernel and busybox", GUEST.exists(), fetch_guest)]
        if storage == "rbd":
            wanted.append(("Ceph's Python bindings", any(VENV.glob("lib/python3.*/site-packages/rbd.*.so")),
                           install_ceph_bindings))
        for what, there, work in wanted:
            if not there:
                try:
                    work()
                except (OSError, subprocess.CalledProcessError) as error:
                    raise LabError("%s could not be installed (%s); see %s." % (what, error, LOG)) from None
                say("%s installed" % what)
