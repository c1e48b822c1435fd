# SPDX-License-Identifier: Apache-2.0
"""[engine]: how this engine decides, and where its memory is."""

from __future__ import annotations

import socket

from oslo_config import cfg

GROUP = cfg.OptGroup("engine", title="The deciding loop, its journal and its peers")

OPTS = [
    cfg.StrOpt(
        "name",
        default=socket.gethostname(),
        sample_default="controller-1",
        help="The name of this engine. No two engines of one cloud may have the same one.",
    ),
    cfg.StrOpt(
        "segments_file",
        default="/etc/vmhad/segments.yaml",
        help="The file that says which hosts take over for each other and how their power is reached.",
    ),
    cfg.FloatOpt(
        "lease_s",
        default=15.0,
        min=3.0,
        max=300.0,
        help="Seconds without a renewal after which another engine may take over a segment. The owner itself stops "
        "acting at two thirds of it, so two thirds must exceed the longest call timeout.",
    ),
    cfg.FloatOpt("call_timeout_s", default=5.0, min=0.5, max=60.0, help="Time limit of one call to the journal."),
    cfg.IntOpt("workers", default=32, min=2, max=256, help="How many slow calls may be under way at the same time."),
    cfg.StrOpt(
        "journal",
        default="etcd",
        choices=[
            ("etcd", "several engines, one memory; what a cloud wants"),
            ("sqlite", "a file on this machine; needs standalone = true"),
        ],
        help="Where the engine remembers what it began.",
    ),
    cfg.StrOpt("sqlite_path", default="/var/lib/vmhad/journal.sqlite", help="The file of the sqlite journal."),
    cfg.ListOpt(
        "etcd_endpoints",
        default=[],
        sample_default="http://192.0.2.1:2379,http://192.0.2.2:2379,http://192.0.2.3:2379",
        help="The etcd members that hold the journal; the engine goes through them by itself.",
    ),
    cfg.StrOpt(
        "etcd_ca_file",
        default="",
        help="The CA that signed the certificates of the etcd members, where they are spoken to by https. Empty: those "
        "that the system trusts.",
    ),
    cfg.StrOpt("etcd_cert_file", default="", help="This engine's certificate, where etcd asks for one."),
    cfg.StrOpt("etcd_key_file", default="", help="The key of etcd_cert_file."),
    cfg.BoolOpt(
        "standalone",
        default=False,
        help="Says: there is no other engine in this cloud. Only then may the journal be a file of this machine.",
    ),
    cfg.StrOpt(
        "membership_url",
        default="",
        help="The tooz URL by which engines see each other; several hosts may be given, with commas. Empty: the "
        "journal's etcd, or for sqlite a directory beside its file.",
    ),
    cfg.StrOpt(
        "membership_group", default="vmhad", help="The tooz group of all engines that look after the same segments."
    ),
    cfg.FloatOpt(
        "keep_incidents_days",
        default=30.0,
        min=1.0,
        max=3650.0,
        help="How long the journal keeps incidents that are over, with their steps and certificates.",
    ),
    cfg.IntOpt(
        "keep_incidents_max",
        default=1000,
        min=10,
        max=100000,
        help="How many incidents that are over the journal keeps of each segment, beside the last one of each host. "
        "Without certificate_dir those that have certificates stay for keep_incidents_days all the same, however many "
        "they are, and are gone after that.",
    ),
    cfg.StrOpt(
        "certificate_dir",
        default="",
        help="A directory where the certificates of an incident are written before it leaves the journal; what cannot "
        "be written there stays in the journal. Each engine writes to its own machine, unless the directory is "
        "shared. Empty: nowhere.",
    ),
    cfg.StrOpt(
        "timeline_file",
        default="",
        help="A file to which every line of the timeline is appended, one JSON object a line. Empty: the log only.",
    ),
]
