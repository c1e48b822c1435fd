# SPDX-License-Identifier: Apache-2.0
"""The guest: Debian's cloud kernel and a busybox that counts into its disk, under an id that every boot draws anew.

Sector 0 of /dev/vda holds "VMHAD <boot id> <count>", the latest. Each count is written before to the sector of its
own number (count % LEDGER + 1). Who finds the disk used goes on counting from there. Every write is flushed before the
next begins, so at most one of them is ever lost, and none of the ledger.
"""
import gzip
import pathlib

from lab import rest
from lab.qemu import install

MARK = "VMHAD"
SECTOR, LEDGER = 512, 30000
DISK_BYTES = 16 << 20
MEMORY_MB = 160
# After so many counts of a boot its guest agent hangs up.
AGENT_TALKS = 100
IMAGE = FLAVOR = "counter"
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk",
           "virtio_console", "pvpanic", "pvpanic-mmio")
APPLETS = ("sh", "mount", "insmod", "usleep", "cut", "blockdev", "dd", "tr", "printf", "echo", "poweroff")

INIT = """#!/bin/busybox sh
export PATH=/bin
for pair in proc:/proc sysfs:/sys devtmpfs:/dev; do mount -t ${pair%%:*} none ${pair#*:}; done
for module in %(modules)s; do insmod /modules/$module.ko; done
disk=/dev/vda
tries=0
while [ ! -b $disk ] && [ $tries -lt 100 ]; do usleep 50000; tries=$((tries + 1)); done
if [ ! -b $disk ]; then echo NO-DISK; poweroff -f; fi
boot=$(cut -c1-8 /proc/sys/kernel/random/uuid)
head_of() { blockdev --flushbufs $disk; dd if=$disk bs=%(sector)d count=1 2>/dev/null | tr -d '\\0'; }
put() { printf '%%-511s\\n' "$1" | dd of=$disk bs=%(sector)d count=1 seek=$2 conv=notrunc,fsync 2>/dev/null; }
set -- $(head_of)
count=0
last=none
if [ "$1" = %(mark)s ]; then count=$3; last="$2 $3"; fi
echo "UP boot=$boot found=[$last]"
# A guest agent that answers nothing and hangs up after a while; only where Nova gave it a port.
port=none
for one in /dev/vport*; do if [ -c $one ]; then port=$one; exec 3<>$one; fi; done
left=%(talks)d
while :; do
  if [ $port != none ] && [ $left = 0 ]; then exec 3>&-; fi
  left=$((left - 1))
  set -- $(head_of)
  if [ "$1" = %(mark)s ] && [ "$2 $3" != "$last" ]; then echo "FOREIGN-WRITER expected=[$last] found=[$2 $3]"; fi
  count=$((count + 1))
  row="%(mark)s $boot $count"
  if put "$row" $((count %% %(ledger)d + 1)) && put "$row" 0; then last="$boot $count"; else echo WRITE-ERROR; fi
  usleep 50000
done
""" % {"modules": " ".join(MODULES), "sector": SECTOR, "ledger": LEDGER, "mark": MARK,
       "talks": AGENT_TALKS}


def entry(name, mode, data=b"", number=0, device=(0, 0)):
    """One file in cpio's "newc" format."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def packed(init, applets, modules, more=None, folders=(), level=6):
    """An initramfs of init, of busybox under the names of its applets, and of kernel modules (name -> content); more:
    path -> content of other files. Made here, because it is a few lines and needs no root and no tool."""
    files = {"init": init.encode(), "bin/busybox": (install.GUEST / "bin" / "busybox").read_bytes(), **(more or {})}
    files.update(("modules/%s.ko" % name, content) for name, content in modules.items())
    parents = {str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."}
    parts = [entry(name, 0o040755) for name in sorted({*parents, "proc", "sys", "dev", *folders})]
    parts.append(entry("dev/console", 0o020600, device=(5, 1)))
    parts += [entry("bin/" + name, 0o120777, b"busybox") for name in applets]
    parts += [entry(name, 0o100755, data, number) for number, (name, data) in enumerate(files.items(), 1)]
    return gzip.compress(b"".join(parts) + entry("TRAILER!!!", 0), level, mtime=0)


def initramfs():
    """What the guest boots into."""
    tree = next((install.GUEST / "lib" / "modules").iterdir())
    return packed(INIT, APPLETS, {name: next(tree.rglob(name + ".ko")).read_bytes() for name in MODULES})


def kernel():
    return next(pathlib.Path(install.GUEST / "boot").glob("vmlinuz-*")).read_bytes()


def upload(api, name, kind, data, **properties):
    container = kind if kind != "raw" else "bare"
    image = api.call("POST", "image", "/v2/images", {
        "name": name, "disk_format": kind, "container_format": container, "visibility": "public", **properties})
    api.call("PUT", "image", "/v2/images/%s/file" % image["id"], data)
    return image["id"]


def seed(lab):
    """The image and the flavor of the guest, unless they are there. Glance takes a kernel only under its own format."""
    api = rest.Api(lab)
    flavors = {row["name"] for row in api.get("compute", "/flavors")["flavors"]}
    if FLAVOR not in flavors:
        api.call("POST", "compute", "/flavors", {"flavor": {"name": FLAVOR, "ram": MEMORY_MB, "vcpus": 1, "disk": 0}})
    if any(row["status"] == "active" for row in api.get("image", "/v2/images?name=" + IMAGE)["images"]):
        return False
    # The guest hears no power button; Nova would wait for it for a minute. A panic is ordered by an NMI.
    upload(api, IMAGE, "raw", bytes(DISK_BYTES), os_command_line="console=ttyS0 panic=1 unknown_nmi_panic quiet",
           os_shutdown_timeout="2",
           kernel_id=upload(api, IMAGE + "-kernel", "aki", kernel()),
           ramdisk_id=upload(api, IMAGE + "-ramdisk", "ari", initramfs()))
    return True
