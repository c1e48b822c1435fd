# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration of what OpenStack stands on, and the files by which a person or a client finds it."""
import getpass
import json

from lab.layout import REGION, write_private


def write_mariadb(lab):
    """Durability is switched off: the lab's data is worth less than the seconds an fsync costs."""
    as_root = "user=root\n" if getpass.getuser() == "root" else ""
    write_private(lab.etc / "mariadb" / "my.cnf", """[mysqld]
datadir={var}/mariadb
socket={run}/mariadb.sock
pid-file={run}/mariadb.mysqld
port={port}
bind-address=127.0.0.1
{as_root}skip-log-bin
skip-name-resolve
performance_schema=OFF
max_connections=800
innodb_buffer_pool_size=256M
innodb_log_file_size=64M
innodb_doublewrite=0
innodb_flush_log_at_trx_commit=0
innodb_flush_method=O_DIRECT_NO_FSYNC
character-set-server=utf8mb3
log-error={log}/mariadb.log
""".format(var=lab.var, run=lab.pid, log=lab.log, port=lab.port("mariadb"), as_root=as_root))


def write_rabbitmq(lab):
    write_private(lab.etc / "rabbitmq" / "rabbitmq.conf", """listeners.tcp.1 = 127.0.0.1:{port}
default_user = lab
default_pass = {password}
default_permissions.configure = .*
default_permissions.read = .*
default_permissions.write = .*
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 100MB
log.file.level = info
""".format(port=lab.port("rabbitmq"), password=lab.password("rabbitmq")))
    write_private(lab.etc / "rabbitmq" / "enabled_plugins", "[].\n")


def write_etcd(lab, members):
    cluster = ",".join("etcd-%d=%s" % (n, lab.url("etcd-%d-peer" % n)) for n in range(1, members + 1))
    for number in range(1, members + 1):
        name = "etcd-%d" % number
        write_private(lab.etc / "etcd" / (name + ".json"), json.dumps({
            # Without a configuration file etcd serves its JSON gateway; with one only where the file says so.
            "enable-grpc-gateway": True,
            # Old revisions are kept for ever unless it is told otherwise, until its quota freezes it.
            "auto-compaction-mode": "periodic", "auto-compaction-retention": "1h",
            "name": name, "data-dir": str(lab.var / name), "logger": "zap", "log-level": "warn",
            "listen-client-urls": lab.url(name), "advertise-client-urls": lab.url(name),
            "listen-peer-urls": lab.url(name + "-peer"), "initial-advertise-peer-urls": lab.url(name + "-peer"),
            "initial-cluster": cluster, "initial-cluster-token": "lab-%s-%d" % (lab.name, members),
            "initial-cluster-state": "new"}, indent=1))


def auth_facts(lab):
    return {"auth_url": lab.url("keystone", "/v3"), "username": "admin", "password": lab.password("admin"),
            "project_name": "admin", "user_domain_id": "default", "project_domain_id": "default"}


def openrc(lab):
    """Shell exports for the admin, as `lab/cloud env` prints them."""
    lines = ["export OS_%s=%s" % (key.upper(), value) for key, value in auth_facts(lab).items()]
    lines += ["export OS_REGION_NAME=%s" % REGION, "export OS_IDENTITY_API_VERSION=3",
              "export OS_COMPUTE_API_VERSION=2.104", "export OS_PLACEMENT_API_VERSION=1.39",
              "export OS_CLIENT_CONFIG_FILE=%s" % (lab.root / "clouds.yaml")]
    return "\n".join(lines) + "\n"


def write_client_files(lab):
    """clouds.yaml is written as JSON, which is YAML as well and needs no library here."""
    cloud = {"auth": auth_facts(lab), "region_name": REGION, "identity_api_version": 3,
             "compute_default_microversion": "2.104"}
    write_private(lab.root / "clouds.yaml", json.dumps({"clouds": {lab.name: cloud}}, indent=1) + "\n")
    write_private(lab.root / "openrc", openrc(lab))


def write_all(lab, etcd_members):
    write_mariadb(lab)
    write_rabbitmq(lab)
    write_etcd(lab, etcd_members)
    write_client_files(lab)
