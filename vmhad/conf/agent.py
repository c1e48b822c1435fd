# SPDX-License-Identifier: Apache-2.0
"""[agent]: what the agent of a compute host looks at."""

from __future__ import annotations

import socket

from oslo_config import cfg

GROUP = cfg.OptGroup("agent", title="The agent of a compute host")

OPTS = [
    cfg.StrOpt(
        "host",
        default=socket.gethostname(),
        sample_default="compute-01",
        help="This host, as «openstack compute service list» and the segments file call it.",
    ),
    cfg.StrOpt(
        "segments_file",
        default="/etc/vmhad/segments.yaml",
        help="Which hosts are this one's peers and where they are found. The engines' file, or a copy of it without "
        "its bmc entries.",
    ),
    cfg.FloatOpt(
        "beat_interval_s",
        default=1.0,
        min=0.2,
        max=1.0,
        help="Seconds between two beats. Engines take a host that was not heard for longer for one that paused.",
    ),
    cfg.IntOpt("peers_watched", default=4, min=0, max=32, help="How many peers of its segment a host looks at."),
    cfg.StrOpt(
        "watched_from_other",
        default="rack",
        help="The kind of domain whose failure is to be seen from outside: peers of another one are looked at first.",
    ),
    cfg.PortOpt(
        "probe_port",
        default=22,
        help="The TCP port of its peers that a look goes to. It need not be open: a refusal is an answer. A port that "
        "nothing listens on and no firewall drops is the quietest one.",
    ),
    cfg.PortOpt(
        "kdump_port",
        default=0,
        min=0,
        help="Listen on this UDP port (7410 is what fence_kdump_send uses by default) of the host's management address "
        "for the messages by which the crash kernel of a peer that panicked says that it writes a dump "
        "(fence_kdump_nodes in the kdump.conf of each host must name all hosts of its segment); [policy] kdump_wait_s "
        "says what that is worth. 0: nobody listens. "
        "That is the default since the crash kernel says so only where it was told to, since a fence_kdump of "
        "another cluster may want the port, and since nobody signs such a message: whoever can send under the "
        "address of a host whose agent has fallen silent can have that host taken for dead.",
    ),
    cfg.ListOpt(
        "witnesses",
        default=[],
        sample_default="management:192.0.2.1",
        help="PLANE:ADDRESS of what should answer on a plane besides the peers, a gateway for example. A plane on "
        "which nobody answers says nothing of the peers. Wanted where a host watches one peer only.",
    ),
    cfg.StrOpt(
        "libvirt_uri", default="qemu:///system", help="The libvirt of this host. Empty: its guests are not looked at."
    ),
    cfg.MultiStrOpt(
        "storages",
        default=[],
        sample_default=["instances dir:/var/lib/nova/instances 4f7c0d5e-instances"],
        help="NAME dir:PATH MARKER of a shared storage; once per storage. The file PATH/.vmhad-storage must hold the "
        "marker: a host that lacks the mount sees an empty directory, and must not beat there. NAME "
        "rados:POOL:CONF_FILE:USER MARKER of a pool of Ceph, where the object vmhad-storage holds the marker.",
    ),
    cfg.FloatOpt(
        "storage_down_after_s",
        default=5.0,
        min=1.0,
        max=60.0,
        help="A storage whose marker could not be read for so long is told as down.",
    ),
    cfg.MultiStrOpt(
        "registered_storages",
        default=[],
        sample_default=["lun-a", "lun-b naa.60014051234567890123456789abcdef"],
        help="NAME of a storage of segments_file whose driver is scsi_pr; once per storage. Every path of this host to "
        "its LUNs is registered with this host's key, once, and never while a cut of this host stands there. LUNs that "
        "this host reaches by Fibre Channel are named after it, as /sys/block/sdX/device/wwid has them. Empty: "
        "whatever attaches LUNs has to register this host.",
    ),
    cfg.StrOpt(
        "registrations_file",
        default="/run/vmhad/registrations.json",
        help="Where is kept, for this boot, which LUNs this host was registered on.",
    ),
    cfg.StrOpt(
        "nova_compute_unit",
        default="nova-compute.service",
        help="The systemd unit of nova-compute. Empty: it is not looked at.",
    ),
    cfg.StrOpt(
        "libvirt_unit",
        default="libvirtd.service",
        help="The systemd unit of libvirt's daemon. Empty: only libvirt's own answer counts.",
    ),
    cfg.BoolOpt(
        "takes_orders",
        default=True,
        help="Do what an engine orders by the bus: restart nova-compute or libvirt's daemon, and resume a guest that "
        "an I/O error paused. Orders are signed with keys that only the engines and this host have.",
    ),
    cfg.StrOpt(
        "bmc_credentials_file",
        default="",
        sample_default="/etc/vmhad/bmc-credentials.yaml",
        help="Ask the BMCs of this host's peers by an engine's order («via: agents» in the engines' segments file): a "
        "file of mode 0600 with their passwords, as [power] credentials_file has them. Their addresses and users stand "
        "in segments_file. Empty: this agent asks no BMC.",
    ),
    cfg.FloatOpt(
        "bmc_timeout_s",
        default=2.0,
        min=0.5,
        max=10.0,
        help="Time limit of one call to a peer's BMC. Less than half of the engines' [power] timeout_s, so that there "
        "is time to ask another peer.",
    ),
    cfg.ListOpt(
        "links",
        default=[],
        sample_default="eno1,eno2",
        help="The network interfaces of this host that must have a carrier; one without is a complaint.",
    ),
    cfg.StrOpt(
        "watchdog_device",
        default="",
        sample_default="/dev/watchdog0",
        help="Self-fencing: the watchdog that resets this host unless its record on a shared storage goes on moving. "
        "Nobody else may feed it. Empty: no self-fencing.",
    ),
    cfg.StrOpt(
        "watchdog_storage",
        default="",
        help="The storage whose record is the lease. Empty: the only one of storages.",
    ),
    cfg.FloatOpt(
        "watchdog_lease_s",
        default=20.0,
        min=4.0,
        max=600.0,
        help="The watchdog is fed until so long after the last write to the storage that landed.",
    ),
    cfg.FloatOpt(
        "watchdog_timeout_s",
        default=20.0,
        min=5.0,
        max=300.0,
        help="How long after the last feed the watchdog fires. A restart of the agent must be quicker.",
    ),
    cfg.BoolOpt(
        "storage_buffered",
        default=False,
        help="Accept storages without O_DIRECT. A page cache may then go on beating for a disk that is dead.",
    ),
]
