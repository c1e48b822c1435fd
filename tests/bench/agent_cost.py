# SPDX-License-Identifier: Apache-2.0
"""What an agent costs its host: CPU and memory with 50 guests, 4 peers on 3 planes and a storage. One JSON line.

The guests are 50 QEMU processes under a real libvirtd of its own, in namespaces that end with this program. They are
started paused, so that they cost no CPU that would be taken for the agent's; the peers are addresses of the loopback.
Needs root, and libvirt and QEMU as lab/cloud installs them. Beats are made and thrown away: the bus is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lab.agent import BINDINGS, link_bindings  # noqa: E402
from lab.qemu import settings  # noqa: E402

OWN = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt", "log": "/var/log/libvirt"}
LIMIT_S = 60.0
PLANES = ("management", "storage", "tenant")
GUEST = """<domain type='qemu'><name>idle-%(number)d</name><uuid>%(uuid)s</uuid><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
# Process 1 must reap what libvirtd leaves behind.
BOOT = """set -e
mount --make-rprivate /
%s
mount -t tmpfs run /run
ip link set lo up
/usr/sbin/libvirtd &
while :; do wait; sleep 0.05; done
"""


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--guests", type=int, default=50)
    reader.add_argument("--seconds", type=float, default=60.0)
    args = reader.parse_args()
    link_bindings()
    settings.make_mount_points()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        machine = boot(Path(folder))
        try:
            inside = entering(machine)
            start_guests(inside, args.guests)
            print(json.dumps({"guests": args.guests, **measured(inside, Path(folder), args.seconds)}))
        finally:
            machine.kill()
            machine.wait()
    return 0


def boot(folder: Path) -> subprocess.Popen[bytes]:
    binds = []
    for name, target in OWN.items():
        (folder / name).mkdir()
        binds.append(f"mount --bind {folder / name} {target}")
    accounts = {
        "passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin",
        "group": "libvirt-qemu:x:64055:",
    }
    for name, text in accounts.items():
        (folder / name).write_text(settings.accounts(f"/etc/{name}", text))
        binds.append(f"mount --bind {folder / name} /etc/{name}")
    (folder / "etc" / "libvirtd.conf").write_text(settings.LIBVIRTD % uuid.uuid4())
    (folder / "etc" / "qemu.conf").write_text(settings.QEMU)
    kinds = ["--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "--net", "--ipc"]
    return subprocess.Popen(["unshare", *kinds, "sh", "-c", BOOT % "\n".join(binds)])


def entering(machine: subprocess.Popen[bytes]) -> list[str]:
    """The beginning of a command that runs in the machine."""
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children")
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        pids = children.read_text().split()
        inside = ["nsenter", f"--target={pids[0]}", "--mount", "--net", "--ipc", "--pid", "--"] if pids else []
        if pids and subprocess.run([*inside, "virsh", "list"], capture_output=True).returncode == 0:
            return inside
        time.sleep(0.05)
    raise SystemExit("libvirtd has not come up")


def start_guests(inside: list[str], count: int) -> None:
    program = (
        "import libvirt, sys\n"
        "link = libvirt.open(sys.argv[1])\n"
        "for text in sys.stdin.read().split('\\0'):\n"
        "    link.defineXML(text).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)\n"
    )
    texts = "\0".join(GUEST % {"number": number, "uuid": uuid.uuid4()} for number in range(count))
    run([*inside, sys.executable, "-c", program, "qemu:///system"], texts)


def run(argv: list[str], text: str) -> None:
    subprocess.run(argv, input=text, text=True, check=True, env=os.environ | {"PYTHONPATH": str(BINDINGS)})


def measured(inside: list[str], folder: Path, seconds: float) -> dict[str, float]:
    """Once it has seen everything: the share of a core over so many seconds, and the memory at the end."""
    shared = folder / "shared"
    shared.mkdir()
    (shared / ".vmhad-storage").write_text("bench")
    hosts = [
        {"name": f"h{number}", "planes": {plane: f"127.0.{place}.{number}" for place, plane in enumerate(PLANES, 1)}}
        for number in range(1, 6)
    ]
    (folder / "segments.yaml").write_text(yaml.safe_dump({"segments": [{"name": "bench", "hosts": hosts}]}))
    (folder / "vmhad.conf").write_text(
        f"[DEFAULT]\nuse_stderr = true\n[agent]\nhost = h1\nsegments_file = {folder}/segments.yaml\n"
        f"storages = s dir:{shared} bench\n"
    )
    program = [
        sys.executable,
        str(ROOT / "tests" / "cloud" / "agent_aloud.py"),
        "--config-file",
        f"{folder}/vmhad.conf",
    ]
    environ = os.environ | {"PYTHONPATH": f"{ROOT}:{BINDINGS}"}
    with (folder / "beats").open("wb") as said, (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen([*inside, *program], stdout=said, stderr=log, env=environ)
        try:
            await_guests(folder / "beats")
            pid = int(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()[0])
            began, used = time.monotonic(), used_s(pid)
            time.sleep(seconds)
            share = (used_s(pid) - used) / (time.monotonic() - began)
            return {"cpu_percent": round(100 * share, 2), "rss_mib": round(rss_mib(pid), 1), "seconds": seconds}
        finally:
            agent.kill()
            agent.wait()


def await_guests(beats: Path) -> None:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        lines = beats.read_text().rpartition("\n")[0].splitlines()
        if len(lines) > 10 and json.loads(lines[-1])["domains"]:
            return
        time.sleep(0.2)
    raise SystemExit("the agent has seen no guests")


def used_s(pid: int) -> float:
    """By the scheduler's own count: the looks are shorter than the ticks that the process times are told by."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
