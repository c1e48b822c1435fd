# SPDX-License-Identifier: Apache-2.0
"""The catalogue of what runs beside the hosts: how each service is started and how it shows that it is ready."""
import dataclasses
import glob
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable

from lab import bmc, cinder, processes, rest, settings_openstack
from lab.layout import HERE, VENV, LabError
from lab.qemu import ceph, network

READY_WITHIN = 120.0
WSGI = tuple(settings_openstack.WSGI)
NOVA = ("conductor", "scheduler")


@dataclasses.dataclass
class Service:
    name: str
    argv: list
    ready: Callable
    env: dict = dataclasses.field(default_factory=dict)
    port: str = ""
    prepare: Callable = lambda: None


def answers_tcp(port, say=b""):
    """Somebody listens, and if we say something first, something comes back."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as talk:
            talk.settimeout(5)
            if say:
                talk.sendall(say)
                return bool(talk.recv(8))
            return True
    except OSError:
        return False


def answers_http(url):
    try:
        rest.request("GET", url, timeout=30)
    except rest.RestError as error:
        return error.status != 0
    return True


def openstack_environment(lab):
    etc = lab.etc
    return {"OS_KEYSTONE_CONFIG_DIR": str(etc / "keystone"), "OS_KEYSTONE_CONFIG_FILES": "keystone.conf",
            "OS_PLACEMENT_CONFIG_DIR": str(etc / "placement"), "OS_GLANCE_CONFIG_DIR": str(etc / "glance"),
            "OS_NOVA_CONFIG_DIR": str(etc / "nova"), "OS_NEUTRON_CONFIG_DIR": str(etc / "neutron"),
            "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
            "PYTHONPATH": os.pathsep.join((str(HERE / "plugins"), str(etc / "plugins")))}


def install_database(lab):
    """Only the user who runs the lab is root in it, and only through the socket."""
    if (lab.var / "mariadb" / "mysql").exists():
        return
    (lab.var / "mariadb").mkdir(parents=True, exist_ok=True)
    with open(lab.log / "mariadb-install.log", "ab") as out:
        subprocess.run(["mariadb-install-db", "--defaults-file=%s" % (lab.etc / "mariadb" / "my.cnf"), "--skip-test-db",
                        "--auth-root-authentication-method=socket"],
                       stdout=out, stderr=out, check=True, env=processes.service_environment(lab))


def mariadb(lab):
    return Service("mariadb", [shutil.which("mariadbd") or "/usr/sbin/mariadbd",
                               "--defaults-file=%s" % (lab.etc / "mariadb" / "my.cnf")],
                   lambda: answers_tcp(lab.port("mariadb")), port="mariadb", prepare=lambda: install_database(lab))


def epmd(lab):
    """Erlang's port mapper in the foreground, on loopback only, and one per lab."""
    found = [path for path in ["/usr/bin/epmd", *glob.glob("/usr/lib/erlang/erts-*/bin/epmd")] if os.path.exists(path)]
    return Service("epmd", [found[0] if found else "epmd", "-address", "127.0.0.1", "-port", lab.port("epmd")],
                   lambda: answers_tcp(lab.port("epmd")), port="epmd")


def rabbitmq(lab):
    home = lab.var / "rabbitmq"
    env = {"HOME": str(home), "RABBITMQ_NODENAME": "lab@localhost", "ERL_EPMD_ADDRESS": "127.0.0.1",
           "ERL_EPMD_PORT": str(lab.port("epmd")), "RABBITMQ_CONFIG_FILE": str(lab.etc / "rabbitmq" / "rabbitmq"),
           "RABBITMQ_MNESIA_BASE": str(home / "mnesia"), "RABBITMQ_LOG_BASE": str(lab.log / "rabbitmq"),
           "RABBITMQ_DIST_PORT": str(lab.port("rabbitmq-dist")), "RABBITMQ_PID_FILE": str(lab.pid / "rabbitmq.beam"),
           "RABBITMQ_ENABLED_PLUGINS_FILE": str(lab.etc / "rabbitmq" / "enabled_plugins"),
           "RABBITMQ_SERVER_START_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
           "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"}
    return Service("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
                   lambda: answers_tcp(lab.port("rabbitmq"), b"AMQP\x00\x00\x09\x01"), env, "rabbitmq",
                   lambda: [folder.mkdir(parents=True, exist_ok=True) for folder in (home, lab.log / "rabbitmq")])


def memcached(lab):
    argv = ["memcached", "-l", "127.0.0.1", "-p", lab.port("memcached"), "-U", "0", "-m", "64"]
    return Service("memcached", argv + (["-u", "root"] if os.geteuid() == 0 else []),
                   lambda: answers_tcp(lab.port("memcached")), port="memcached")


def etcd(lab, name):
    return Service(name, ["etcd", "--config-file", lab.etc / "etcd" / (name + ".json")],
                   lambda: answers_http(lab.url(name, "/health")), port=name)


def wsgi(lab, name):
    """Placement and neutron read sys.argv when imported, so gunicorn gets its options through the environment."""
    env = {**openstack_environment(lab), "GUNICORN_CMD_ARGS": "-c '%s'" % (lab.etc / "gunicorn" / (name + ".py"))}
    return Service(name, [VENV / "bin" / "gunicorn"], lambda: answers_http(lab.url(name, "/")), env, name)


def nova(lab, name):
    """Ready when its log says so, counted from where the log ended before this start."""
    log = lab.log / (name + ".log")
    before = log.stat().st_size if log.exists() else 0

    def ready():
        if not log.exists():
            return False
        with open(log, "rb") as source:
            source.seek(before)
            return b"Starting %s node" % name.encode() in source.read()
    return Service(name, [VENV / "bin" / ("nova-" + name), "--config-file", lab.etc / "nova" / "nova.conf",
                          "--log-file", log], ready)


def cinder_part(lab, name):
    """Only the API tells at once when it is ready; of the others cinder.fill waits for what they bring."""
    ready = (lambda: answers_http(lab.url(name, "/"))) if name == cinder.API else lambda: True
    return Service(name, cinder.argv(lab, name), ready, cinder.ENVIRONMENT, name if name == cinder.API else "")


def zygote(lab):
    def ready():
        try:
            from lab import hostpower
            return bool(hostpower.ask(lab.hosts_dir, "zygote.sock", "ping"))
        except (OSError, LabError):
            return False
    return Service("zygote", [VENV / "bin" / "python", "-m", "lab.zygote", lab.name], ready,
                   {"PYTHONPATH": str(HERE.parent)})


def qemu_names(lab):
    """What a lab with real guests has besides, in the order in which it is started."""
    if lab.virt != "qemu":
        return []
    return [network.SWITCH, network.RELAY, *(ceph.NAMES if lab.storage == "rbd" else ())]


def names(lab):
    members = ["etcd-%d" % number for number in range(1, lab.facts["options"]["etcd"] + 1)]
    return ["memcached", "epmd", "rabbitmq", "mariadb", *members, *WSGI, *NOVA,
            *(cinder.NAMES if lab.cinder else ()), *qemu_names(lab), "zygote",
            *(bmc.name(host) for host in lab.host_names())]


def find(lab, name):
    plain = {"memcached": memcached, "epmd": epmd, "rabbitmq": rabbitmq, "mariadb": mariadb, "zygote": zygote}
    if name in plain:
        return plain[name](lab)
    if name in WSGI:
        return wsgi(lab, name)
    if name in NOVA:
        return nova(lab, name)
    if lab.cinder and name in cinder.NAMES:
        return cinder_part(lab, name)
    if name in qemu_names(lab):
        return Service(name, *(ceph if name in ceph.NAMES else network).service(lab, name))
    if name in names(lab):
        return etcd(lab, name)
    raise LabError("There is no service %r in lab %r; its services are: %s." % (name, lab.name, ", ".join(names(lab))))


def pid_file(lab, name):
    return lab.pid / (name + ".pid")


def start(lab, name):
    """Start one service unless it lives; returns what to wait for, or None when there is nothing to wait for."""
    if name.startswith("bmc-") and name in names(lab):
        host = name.removeprefix("bmc-")
        bmc.start(lab, host)
        return Service(name, [], lambda: bmc.wait(lab, host) is None, port=name)
    service = find(lab, name)
    if processes.living(pid_file(lab, name)):
        return None if name in NOVA else service
    service.prepare()
    processes.spawn(service.argv, processes.service_environment(lab, service.env), lab.log / (name + ".out"),
                    pid_file(lab, name))
    return service


def wait(lab, service):
    """Wait until it is ready; a service that ends at its start is reported by the end of its own log."""
    if service is None:
        return
    until = time.monotonic() + READY_WITHIN
    while not service.ready():
        if not processes.living(pid_file(lab, service.name)):
            raise LabError("%s ended at its start: %s (see `lab/cloud logs %s`)." % (
                service.name, last_line(lab, service.name), service.name))
        if time.monotonic() > until:
            raise LabError("%s is not ready after %d s; see `lab/cloud logs %s`." % (
                service.name, READY_WITHIN, service.name))
        time.sleep(0.05)


def bring(lab, *wanted):
    """Start several and wait for all of them."""
    for service in [start(lab, name) for name in wanted]:
        wait(lab, service)


def log_files(lab, name):
    """The logs of one service or host, the more telling one last."""
    found = [lab.log / (name + ".out"), lab.log / (name + ".log")]
    if name == "rabbitmq":
        found += sorted((lab.log / "rabbitmq").glob("*.log"))
    return [path for path in found if path.exists() and path.stat().st_size]


def last_line(lab, name):
    for path in reversed(log_files(lab, name)):
        lines = path.read_text(errors="replace").strip().splitlines()
        if lines:
            return lines[-1][:300]
    return "it wrote nothing"


def record(lab):
    """Note in cloud.json what runs now, for whoever reads it."""
    table = {}
    for name in names(lab):
        files = log_files(lab, name)
        table[name] = {"pid": processes.living(pid_file(lab, name)), "port": lab.facts["ports"].get(name),
                       "log": str(files[-1] if files else lab.log / (name + ".out"))}
    lab.facts["services"] = table
    lab.save()
