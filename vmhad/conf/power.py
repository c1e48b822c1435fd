# SPDX-License-Identifier: Apache-2.0
"""[power]: how the power of hosts is read and switched."""

from __future__ import annotations

from oslo_config import cfg

GROUP = cfg.OptGroup("power", title="The power of hosts, through their BMCs")

OPTS = [
    cfg.StrOpt(
        "driver",
        default="ipmi",
        choices=[("ipmi", "IPMI 2.0 over LAN (RMCP+)"), ("redfish", "Redfish, always by TLS")],
        help="What BMCs speak, where a host's entry in the segments file does not say it. Agents go by it, too.",
    ),
    cfg.StrOpt(
        "ca_file",
        default="",
        help="PEM file that the certificates of Redfish BMCs are held against, where a host's entry names none of its "
        "own; empty: what this machine trusts. A certificate must be good for the BMC's IP address.",
    ),
    cfg.StrOpt(
        "credentials_file",
        default="/etc/vmhad/bmc-credentials.yaml",
        help="A YAML file of mode 0600 with one line a host, «name: password», or «default: password» for the rest; "
        "for second power paths «name/second_power» and «default/second_power», or for outlets «name/outlets» and "
        "«default/outlets», each of them with «/ADDRESS» for those behind that address alone.",
    ),
    cfg.FloatOpt("timeout_s", default=5.0, min=0.5, max=60.0, help="Time limit of one fencing call to a BMC."),
    cfg.FloatOpt("poll_interval_s", default=2.0, min=0.2, max=60.0, help="Seconds between two readings of one host."),
    cfg.FloatOpt("poll_timeout_s", default=2.0, min=0.5, max=30.0, help="Time limit of one reading while polling."),
    cfg.IntOpt("poll_workers", default=16, min=1, max=128, help="How many hosts are read at the same time."),
    cfg.FloatOpt(
        "reads_per_s_max",
        default=500.0,
        min=1.0,
        max=10000.0,
        help="Readings a second over all hosts; with more hosts than that allows, the interval is stretched.",
    ),
    cfg.BoolOpt(
        "asf_ping",
        default=False,
        help="Ask for the RMCP presence pong before a session. Many BMCs and firewalls drop it.",
    ),
]
