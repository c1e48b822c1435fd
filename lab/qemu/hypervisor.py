# SPDX-License-Identifier: Apache-2.0
"""What a host really runs, read from /proc and not from libvirt or Nova: a guest runs while its QEMU process exists."""
import pathlib
import re

from lab import hostpower

DOMAIN = re.compile(r"<name>([^<]*)</name>\s*<uuid>([^<]*)</uuid>")


def namespace(pid):
    try:
        return pathlib.Path("/proc/%d/ns/pid" % pid).readlink()
    except OSError:
        return None


def processes_of(state_dir):
    """(pid, name) of each process of the host, its chassis among them."""
    leader = hostpower.chassis(state_dir)
    home = leader and namespace(leader)
    for entry in pathlib.Path("/proc").iterdir():
        if home and entry.name.isdigit() and namespace(int(entry.name)) == home:
            try:
                yield int(entry.name), (entry / "comm").read_text().strip()
            except OSError:
                continue


def parent(pid):
    """0 for one that is gone."""
    try:
        return int(pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def emulators(state_dir):
    """(pid, words of its command line) of each QEMU of the host."""
    for pid, name in processes_of(state_dir):
        if name.startswith("qemu-system"):
            try:
                yield pid, pathlib.Path("/proc/%d/cmdline" % pid).read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue


def libvirtd(state_dir):
    """The pid of the host's libvirtd, or None."""
    return next((pid for pid, name in processes_of(state_dir) if name == "libvirtd"), None)


def inside(state_dir, *argv):
    """argv, to be run in every namespace of the host."""
    entering = ["nsenter", "--target=%d" % hostpower.chassis(state_dir), "--mount", "--net", "--uts", "--ipc", "--pid"]
    return [*entering, *[str(word) for word in argv]]


def guests(state_dir):
    """Like guests.json of a pretend host: what is defined on the host, and whether it runs."""
    running = {words[words.index("-uuid") + 1] for _, words in emulators(state_dir) if "-uuid" in words}
    rows = []
    for path in sorted((state_dir / "libvirt" / "etc" / "qemu").glob("*.xml")):
        found = DOMAIN.search(path.read_text())
        if found:
            state = "running" if found[2] in running else "shutdown"
            rows.append({"uuid": found[2], "name": found[1], "state": state})
    known = {row["uuid"] for row in rows}
    return rows + [{"uuid": uuid, "name": "", "state": "running"} for uuid in sorted(running - known)]
