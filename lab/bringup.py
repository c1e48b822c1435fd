# SPDX-License-Identifier: Apache-2.0
"""Brings a whole lab up from whatever state it is in, and down again without leaving a process."""
import calendar
import shutil
import time

from lab import bmc, cinder, hostpower, packages, ports, processes, rest, schemas, seed, services, settings
from lab import settings_openstack as openstack
from lab.layout import REGION, SHARED, LabError, locked, write_private
from lab.qemu import ceph, guest, install
from lab.qemu import settings as settings_qemu

HOSTS_WITHIN = 120.0
FOR_LIFE = {"virt": "fake", "storage": "dir", "own_disks": []}


def choose(had, wanted):
    """What the lab shall be, from what it was and what is wanted of it now (None: as it was)."""
    virt = wanted.get("virt") or had.get("virt", FOR_LIFE["virt"])
    options = {**FOR_LIFE, "cinder": False, "virt": virt, "computes": 2 if virt == "qemu" else 4, "etcd": 1,
               "affinity_workaround": True}
    chosen = {key: had.get(key, value) if wanted.get(key) is None else wanted[key] for key, value in options.items()}
    if had and any(had.get(key, value) != chosen[key] for key, value in FOR_LIFE.items()):
        raise LabError("A lab keeps its --virt, --storage and --own-disks for life; `lab/cloud down --wipe` ends it.")
    if chosen["storage"] == "rbd" and virt != "qemu":
        raise LabError("Pretend guests have no disks; --storage goes with --virt qemu.")
    if chosen["cinder"] and virt == "qemu":
        raise LabError("The volumes of --cinder keep nothing, so only pretend guests can have them.")
    return chosen


def plan(lab, wanted):
    """Decide what the lab consists of; a lab that is asked nothing stays as it was."""
    had = lab.facts.get("options", {})
    options = choose(had, wanted)
    if not 1 <= options["computes"] <= ports.MOST_HOSTS or not 1 <= options["etcd"] <= ports.MOST_ETCD:
        raise LabError("A lab has 1 to %d computes and 1 to %d etcd members." % (ports.MOST_HOSTS, ports.MOST_ETCD))
    if had and had["etcd"] != options["etcd"]:
        if any(processes.living(services.pid_file(lab, "etcd-%d" % n)) for n in range(1, had["etcd"] + 1)):
            raise LabError("The number of etcd members can only be changed while the lab is down.")
        for path in lab.var.glob("etcd-*"):
            shutil.rmtree(path)
    lab.make_folders()
    with locked(SHARED / "ports.lock"):
        base = lab.facts["port_block"] = ports.allot(lab)
        lab.save()
    hosts = ["host%02d" % number for number in range(1, options["computes"] + 1)]
    lab.facts.update({
        "name": lab.name, "region": REGION, "options": options,
        "ports": ports.table(base, options["etcd"], hosts)})
    for host in set(lab.host_names()) - set(hosts):
        processes.end([services.pid_file(lab, bmc.name(host))], at_once=True)
        hostpower.off(lab.state_dir(host))
    lab.facts["hosts"] = [{"name": host, "bmc": bmc.facts(lab, host), "state_dir": str(lab.state_dir(host))}
                          for host in hosts]
    lab.facts.update({
        "auth": settings.auth_facts(lab), "transport_url": lab.transport_url,
        "clouds_yaml": str(lab.root / "clouds.yaml"),
        "guest": {"image": guest.IMAGE, "flavor": guest.FLAVOR} if lab.virt == "qemu" else
                 {"image": "tiny", "flavor": "m1.nano"},
        "etcd": [lab.url("etcd-%d" % number) for number in range(1, options["etcd"] + 1)]})
    lab.facts.setdefault("services", {})
    lab.save()


def prepare_hosts(lab):
    """A new host has shared storage and no guests."""
    real = lab.virt == "qemu"
    for host in lab.host_names():
        folder = lab.state_dir(host)
        if not folder.exists():
            (folder / "lock").mkdir(parents=True)
            if not real:
                (folder / "shared_storage").touch()
                write_private(folder / "guests.json", "[]\n", 0o644)
        if lab.storage == "rbd":
            ceph.write_settings(lab)
        if real:
            settings_qemu.write_host(lab, host)
        bmc.write_settings(lab, host)


def prepare_database(lab, say):
    """True when the databases are new and still want their seed."""
    done = lab.var / "seeded"
    services.bring(lab, "mariadb")
    if done.exists():
        return False
    schemas.create_databases(lab)
    schemas.write_keys(lab)
    if schemas.seed_file().exists():
        schemas.restore_seed(lab, seed.endpoints(lab))
        say("databases restored from the seed snapshot")
        done.touch()
        return False
    schemas.migrate(lab)
    say("schemas made")
    return True


def start_controllers(lab, say, fresh):
    services.start(lab, "zygote")
    waiting = [services.start(lab, name) for name in services.WSGI]
    services.wait(lab, waiting[0])
    say("keystone answers")
    if fresh:
        seed.seed_identity(lab)
    services.bring(lab, "rabbitmq")
    nova = [services.start(lab, name) for name in services.NOVA]
    for service in waiting:
        services.wait(lab, service)
    say("all APIs answer")
    if fresh:
        seed.seed_resources(lab)
        schemas.save_seed(lab)
        (lab.var / "seeded").touch()
        say("accounts, flavors, image and network made, snapshot kept")
    for service in nova:
        services.wait(lab, service)
    say("conductor and scheduler run")


def switch_on(lab):
    """Power every host that has none; returns, for those that run, when they began: a heartbeat must be newer."""
    services.bring(lab, "zygote", *(bmc.name(host) for host in lab.host_names()))
    began = {}
    for host in lab.host_names():
        folder = lab.state_dir(host)
        if not hostpower.chassis(folder):
            began[host] = time.time()
            hostpower.on(folder)
        elif hostpower.compute(folder)[1] == "running":
            began[host] = hostpower.compute_born(folder)
    return began


def seen_since(row, moment):
    """Nova has heard from the host after this moment, and calls it up unless somebody has forced it down."""
    stamp = ((row or {}).get("updated_at") or "")[:19]
    if not stamp or (row["state"] != "up" and not row["forced_down"]):
        return False
    return calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S")) > int(moment)


def complain_if_dead(lab, hosts):
    """A nova-compute that has ended will never be called up: say so now, by its own last words."""
    for host in hosts:
        if hostpower.compute(lab.state_dir(host))[1] == "dead":
            raise LabError("nova-compute of %s does not run: %s (see `lab/cloud logs %s`)." % (
                host, services.last_line(lab, host), host))


def wait_hosts(lab, began, seconds=HOSTS_WITHIN):
    """Wait until Nova has heard from each host since it began; returns those that are forced down all the same."""
    api = rest.Api(lab)
    start = time.monotonic()
    while True:
        rows = api.computes()
        late = [host for host, moment in began.items() if not seen_since(rows.get(host), moment)]
        if not late:
            mapped = {row["hypervisor_hostname"] for row in api.get("compute", "/os-hypervisors")["hypervisors"]}
            late = [host for host in began if host not in mapped]
        if not late:
            return [host for host in began if rows[host]["forced_down"]]
        waited = time.monotonic() - start
        if waited > 2:
            complain_if_dead(lab, late)
        if waited > seconds:
            raise LabError("Nova does not call these hosts up after %d s: %s." % (seconds, ", ".join(late)))
        time.sleep(0.2)


def install_all(lab, say, wanted):
    options = choose(lab.facts.get("options", {}), wanted)
    if options["virt"] == "fake":
        packages.ensure(say, cinder=options["cinder"])
        return
    install.must_make_hosts()
    packages.ensure(say, ("lab", "qemu", options["storage"]))
    install.ensure(say, options["storage"])


def up(lab, say, **wanted):
    """Everything, in the order in which it is needed; what already runs is left alone. wanted: see `choose`."""
    install_all(lab, say, wanted)
    plan(lab, wanted)
    settings.write_all(lab, lab.facts["options"]["etcd"])
    openstack.write_all(lab, lab.facts["options"]["affinity_workaround"])
    if lab.cinder:
        cinder.write_settings(lab)
    prepare_hosts(lab)
    say("configured below %s, ports from %d" % (lab.root, lab.facts["port_block"]))
    members = ["etcd-%d" % number for number in range(1, lab.facts["options"]["etcd"] + 1)]
    services.bring(lab, "epmd")
    started = [services.start(lab, name) for name in ("rabbitmq", "memcached", *members)]
    fresh = prepare_database(lab, say)
    start_controllers(lab, say, fresh)
    for service in started:
        services.wait(lab, service)
    for name in services.qemu_names(lab):
        services.bring(lab, name)
    if lab.cinder:
        cinder.make(lab)
        services.bring(lab, *cinder.NAMES)
        cinder.fill(lab)
        say("cinder runs")
    if lab.storage == "rbd":
        ceph.make_pool(lab)
        say("ceph runs")
    began = switch_on(lab)
    services.record(lab)
    forced = wait_hosts(lab, began)
    for host in sorted(set(lab.host_names()) - set(began)):
        say("%s has power but no running nova-compute; `restore %s` brings it back" % (host, host))
    if forced:
        say("forced down in nova: %s" % ", ".join(forced))
    if lab.virt == "qemu" and guest.seed(lab):
        say("the guest's image and flavor made")
    services.record(lab)
    say("lab %r is up with %d hosts; facts in %s" % (lab.name, len(lab.host_names()), lab.facts_file))


def down(lab, say, wipe=False):
    """Hosts lose their power, services are asked to go, and what is left is killed. Guests are remembered."""
    if lab.facts:
        hosts = [lab.state_dir(host) for host in lab.host_names()]
        pretend = [folder / "chassis.pid" for folder in hosts]
        pretend += [services.pid_file(lab, bmc.name(host)) for host in lab.host_names()]
        processes.end([services.pid_file(lab, "zygote"), *pretend], at_once=True)
        openstack_services = (*services.WSGI, *services.NOVA, *cinder.NAMES)
        processes.end([services.pid_file(lab, name) for name in openstack_services], patience=3.0)
        say("hosts and OpenStack services stopped")
        members = ["etcd-%d" % number for number in range(1, lab.facts["options"]["etcd"] + 1)]
        processes.end([services.pid_file(lab, name) for name in ("rabbitmq", "mariadb", "memcached", *members)],
                      at_once=wipe)
        processes.end([services.pid_file(lab, name) for name in ("epmd", *services.qemu_names(lab))], at_once=True)
    left = processes.sweep(lab)
    if left:
        say("%d stray processes killed" % left)
    if wipe or not lab.facts:
        shutil.rmtree(lab.root, ignore_errors=True)
    else:
        services.record(lab)
    say("lab %r is down%s" % (lab.name, " and forgotten" if wipe else ""))
