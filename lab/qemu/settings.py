# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration of what runs on a host that is a namespace: libvirtd, QEMU, and Nova's libvirt driver."""
import pathlib
import shlex
import uuid

from lab.layout import VENV, write_private
from lab.qemu import ceph, network

EMULATOR = "/usr/bin/qemu-system-x86_64"
# What each host has for itself, by the place where its programs look for it.
OWN = {"libvirt/etc": "/etc/libvirt", "libvirt/lib": "/var/lib/libvirt", "libvirt/cache": "/var/cache/libvirt",
       "libvirt/log": "/var/log/libvirt"}
# Where QEMU's Ceph client looks.
CEPH_SETTINGS = "/etc/ceph"
PRIVSEP = ("nova_sys_admin", "vif_plug_linux_bridge_privileged", "vif_plug_ovs_privileged", "privsep_osbrick",
           "os_brick_file")

LIBVIRTD = """listen_tls = 0
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "%s"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

# Root in a namespace is all the separation a lab needs; without virtlogd libvirt itself writes the consoles.
QEMU = """security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""

# QEMU locks its disks, where the storage knows locks. `no_image_locks` makes this host's storage one that does not,
# as NFS without its lock daemon; the guests started from then on are concerned. Nova 34 knows no panic device;
# `panic_device` gives these guests one all the same. (libvirt also starts QEMU to ask what it can; that has no uuid.)
EMULATOR_SCRIPT = """#!/bin/bash
words=("$@")
if [ -e {state}/no_image_locks ]; then
  for at in "${{!words[@]}}"; do
    words[at]="${{words[at]//'"driver":"file",'/'"driver":"file","locking":"off",'}}"
  done
fi
if [ -e {state}/panic_device ] && [[ " $* " == *" -uuid "* ]]; then
  words+=(-device pvpanic)
fi
# QEMU looks for its parts beside itself, and is not where it was.
export QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu
exec -a {emulator} {real} -L /usr/share/qemu -L /usr/share/seabios -L /usr/lib/ipxe/qemu "${{words[@]}}"
"""


def instances_dir(lab, host):
    """Consoles and, unless Ceph has them, disks: then it is the shared storage of the hosts."""
    return lab.var / "instances" if lab.storage_of(host) == "dir" else lab.state_dir(host) / "instances"


def nova(lab, host, conf):
    """The sections of a pretend host's nova.conf, made those of a real one."""
    conf["DEFAULT"].update({
        "my_ip": network.address(host), "compute_driver": "libvirt.LibvirtDriver", "use_cow_images": "False",
        "force_raw_images": "True", "reserved_host_memory_mb": 0, "instances_path": instances_dir(lab, host)})
    conf["libvirt"] = {"virt_type": "qemu", "cpu_mode": "none", "connection_uri": "qemu:///system", **{
        **dict.fromkeys(("dir", "own"), {"images_type": "raw", "disk_cachemodes": "file=none"}),
        "rbd": {"images_type": "rbd", "images_rbd_pool": ceph.POOL, "disk_cachemodes": "network=none",
                "images_rbd_ceph_conf": ceph.settings_file(lab)}}[lab.storage_of(host)]}
    for service in ("placement", "glance", "neutron"):
        conf[service] = {**conf[service], "endpoint_override": lab.url(service)}
    helper = "%s --config-file %s" % (VENV / "bin" / "privsep-helper", lab.etc / "hosts" / (host + ".conf"))
    conf.update({name: {"helper_command": helper} for name in PRIVSEP})
    return conf


def hosts_file(lab):
    """A name that cannot be resolved costs libvirt ten seconds each time it starts a guest."""
    rows = ["127.0.0.1 localhost", *("%s %s" % (network.address(host), host) for host in lab.host_names())]
    return "\n".join(rows) + "\n"


def accounts(path, row):
    """libvirtd does not start without the account it was built for; Debian makes it with a package not needed here."""
    text = pathlib.Path(path).read_text()
    return text if "\nlibvirt-qemu:" in text else text.rstrip("\n") + "\n" + row + "\n"


def files(lab):
    """The files of /etc that every host has for itself."""
    return {"hosts": hosts_file(lab), "resolv.conf": "",
            "passwd": accounts("/etc/passwd", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
            "group": accounts("/etc/group", "libvirt-qemu:x:64055:")}


def write_host(lab, host):
    state = lab.state_dir(host)
    for folder in OWN:
        (state / folder).mkdir(parents=True, exist_ok=True)
    instances_dir(lab, host).mkdir(exist_ok=True)
    identity = uuid.uuid5(uuid.NAMESPACE_URL, "vmhad-lab/%s/%s" % (lab.root, host))
    write_private(state / "libvirt" / "etc" / "libvirtd.conf", LIBVIRTD % identity)
    write_private(state / "libvirt" / "etc" / "qemu.conf", QEMU)
    (state / "etc").mkdir(exist_ok=True)
    for name, text in files(lab).items():
        # A file that is bound somewhere must stay the same file.
        (state / "etc" / name).write_text(text)
    real = state / "emulator" / "qemu-system-x86_64"
    real.parent.mkdir(exist_ok=True)
    real.touch()
    script = EMULATOR_SCRIPT.format(state=shlex.quote(str(state)), emulator=EMULATOR, real=shlex.quote(str(real)))
    write_private(state / "emulator" / "script", script, 0o755)


def mounts(lab, host):
    """(source, target) of what a host sees otherwise than the machine it runs on; in the order it must be done."""
    state = lab.state_dir(host)
    pairs = [(state / folder, target) for folder, target in OWN.items()]
    emulator = state / "emulator"
    pairs += [(state / "etc" / name, "/etc/" + name) for name in files(lab)]
    if lab.storage == "rbd":
        pairs.append((ceph.settings_file(lab).parent, CEPH_SETTINGS))
    return [*pairs, (EMULATOR, emulator / "qemu-system-x86_64"), (emulator / "script", EMULATOR)]


def make_mount_points():
    """Debian makes them with packages that are not needed otherwise."""
    for target in (*OWN.values(), CEPH_SETTINGS):
        pathlib.Path(target).mkdir(parents=True, exist_ok=True)
