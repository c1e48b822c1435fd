# SPDX-License-Identifier: Apache-2.0
"""A real guest whose disk is full: QEMU under a libvirt inside of this process, on a file system of 4 MiB.

Process 1 of a mount and a pid namespace of its own (test_resume.py), so that nothing of it outlives its end. It prints
what happened as one JSON object. The guest is a boot sector that writes its disk from one end to the other and again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vmhad.agent.guests import binding, serve_events
from vmhad.agent.resume import ResumeGuest
from vmhad.ports import Refused

SERVER = "6a1b3c00-0000-4000-8000-000000000001"
DISK_BYTES, SECTORS = 2 << 20, 3000
PAUSED, RUNNING, BY_IO_ERROR = 3, 1, 5
LIMIT_S = 120.0
ACCOUNT = "libvirt-qemu:x:64055:"
QEMU_CONF = """user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
dynamic_ownership = 0
remember_owner = 0
"""
DOMAIN = """<domain type='qemu'><name>guest</name><uuid>{server}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os><devices><memballoon model='none'/>
<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""


def boot_sector() -> bytes:
    """BIOS's extended write (43h) of one sector after the other; the packet that names it stands at 7c40h."""
    packet = 0x7C40
    number = (packet + 8).to_bytes(2, "little")
    again = bytes.fromhex("be") + packet.to_bytes(2, "little") + bytes.fromhex("b443b000cd13")
    again += b"\xff\x06" + number + b"\x81\x3e" + number + SECTORS.to_bytes(2, "little")
    again += b"\x72" + (-len(again) - 2 & 0xFF).to_bytes(1, "little") + b"\xc7\x06" + number + b"\x01\x00"
    again += b"\xeb" + (-len(again) - 2 & 0xFF).to_bytes(1, "little")
    # Segments and stack at zero and below this.
    code = bytes.fromhex("31c08ed88ec08ed0bc007c") + again
    code = code.ljust(0x40, b"\x90") + bytes.fromhex("10000100007c0000") + (1).to_bytes(8, "little")
    return code.ljust(510, b"\0") + b"\x55\xaa"


def prepare(where: Path) -> Path:
    """libvirt's account, its configuration, and a file system with no room left; the disk of the guest."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name, row in (("passwd", ACCOUNT + "64055::/nonexistent:/usr/sbin/nologin"), ("group", ACCOUNT)):
        (where / name).write_text((Path("/etc") / name).read_text() + row + "\n")
        subprocess.run(["mount", "--bind", str(where / name), f"/etc/{name}"], check=True)
    (where / "libvirt" / "etc").mkdir(parents=True)
    (where / "libvirt" / "etc" / "qemu.conf").write_text(QEMU_CONF)
    small, image = where / "small", where / "image"
    small.mkdir()
    with image.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(small)], check=True)
    with (small / "disk").open("wb") as file:
        file.write(boot_sector())
        file.truncate(DISK_BYTES)
    with (small / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return small / "disk"


def refusal(act: ResumeGuest, server: str) -> str:
    try:
        act({"server": server})
    except Refused as error:
        return str(error)
    return ""


def wait(domain: Any, state: int) -> list[int]:
    until = time.monotonic() + LIMIT_S
    while (seen := domain.state())[0] != state and time.monotonic() < until:
        time.sleep(0.1)
    return list(seen)


def main(where: Path) -> None:
    disk = prepare(where)
    libvirt = binding()
    serve_events(libvirt)
    uri = f"qemu:///embed?root={where}/libvirt"
    link = libvirt.open(uri)
    domain = link.createXML(DOMAIN.format(server=SERVER, disk=disk), 0)
    act = ResumeGuest(uri)
    told: dict[str, object] = {"full": wait(domain, PAUSED)}
    act({"server": SERVER})
    told["still full"] = wait(domain, PAUSED)
    (disk.parent / "filler").unlink()
    told["said"] = act({"server": SERVER})[1]
    told["room"] = wait(domain, RUNNING)
    told["while it runs"] = refusal(act, SERVER)
    domain.suspend()
    told["of its user"] = refusal(act, SERVER)
    told["after that"] = domain.state()[0]
    told["of no guest"] = refusal(act, SERVER.replace("1", "2"))
    print(json.dumps(told), flush=True)
    # What QEMU and libvirt still have goes with this namespace.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
