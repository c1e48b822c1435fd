# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration of the OpenStack services; where a real cloud keeps a default, so does the lab."""
import shutil

from lab.layout import REGION, VENV, write_private
from lab.qemu import network
from lab.qemu import settings as settings_qemu

WSGI = {"keystone": "keystone.wsgi.api:application", "placement": "placement.wsgi.api:application",
        "nova-api": "nova.wsgi.osapi_compute:application", "glance": "glance.wsgi.api:application",
        "neutron": "neutron.wsgi.api:application"}
THREADS = {"nova-api": 16, "glance": 4}
TOPICS = "versioned_notifications,vmhad_notifications"


def ini(sections):
    parts = []
    for name, options in sections.items():
        parts.append("[%s]" % name)
        parts += ["%s = %s" % item for item in options.items()]
        parts.append("")
    return "\n".join(parts)


def gunicorn(lab, name):
    """One worker with threads each: memory is dearer here than throughput."""
    write_private(lab.etc / "gunicorn" / (name + ".py"), """bind = "127.0.0.1:%d"
wsgi_app = "%s"
workers = 1
worker_class = "gthread"
threads = %d
timeout = 180
graceful_timeout = 2
keepalive = 75
proc_name = "lab-%s"
control_socket_disable = True
# Nova asks Neutron for the ports of as many as 150 servers in one line.
limit_request_line = 0
""" % (lab.port(name), WSGI[name], THREADS.get(name, 8), name))


def service_login(lab):
    return {"auth_type": "password", "auth_url": lab.url("keystone", "/v3"), "username": "svc",
            "password": lab.password("svc"), "project_name": "service", "user_domain_id": "default",
            "project_domain_id": "default", "region_name": REGION}


def token_check(lab):
    return {"www_authenticate_uri": lab.url("keystone", "/v3"), "service_token_roles": "service",
            "memcached_servers": "127.0.0.1:%d" % lab.port("memcached"), "service_token_roles_required": "True",
            **service_login(lab)}


def database(lab, name):
    return {"connection": lab.database_url(name), "max_pool_size": 10, "max_overflow": 30}


def keystone(lab):
    return {
        "DEFAULT": {"log_file": lab.log / "keystone.log"},
        "database": database(lab, "keystone"),
        "token": {"provider": "fernet", "expiration": 86400},
        "fernet_tokens": {"key_repository": lab.var / "fernet-keys"},
        "fernet_receipts": {"key_repository": lab.var / "fernet-keys"},
        "credential": {"key_repository": lab.var / "credential-keys"},
        "cache": {"enabled": "true", "backend": "dogpile.cache.memcached",
                  "memcache_servers": "127.0.0.1:%d" % lab.port("memcached")},
        "identity": {"password_hash_rounds": 4}}


def placement(lab):
    return {"DEFAULT": {"log_file": lab.log / "placement.log"},
            "placement_database": database(lab, "placement"), "keystone_authtoken": token_check(lab)}


def glance(lab):
    return {
        "DEFAULT": {"log_file": lab.log / "glance.log", "enabled_backends": "files:file", "bind_host": "127.0.0.1"},
        "database": database(lab, "glance"),
        "glance_store": {"default_backend": "files"},
        "files": {"filesystem_store_datadir": lab.var / "glance" / "images"},
        "os_glance_staging_store": {"filesystem_store_datadir": lab.var / "glance" / "staging"},
        "os_glance_tasks_store": {"filesystem_store_datadir": lab.var / "glance" / "tasks"},
        "paste_deploy": {"flavor": "keystone", "config_file": VENV / "etc" / "glance" / "glance-api-paste.ini"},
        "keystone_authtoken": token_check(lab)}


def neutron(lab):
    return {
        "DEFAULT": {"log_file": lab.log / "neutron.log", "transport_url": lab.transport_url, "host": "controller",
                    "core_plugin": "ml2", "service_plugins": "", "state_path": lab.var / "neutron",
                    "api_paste_config": lab.etc / "neutron" / "api-paste.ini", "rpc_workers": 0, "api_workers": 1,
                    "notify_nova_on_port_status_changes": "False", "notify_nova_on_port_data_changes": "False"},
        "database": database(lab, "neutron"),
        "oslo_concurrency": {"lock_path": lab.var / "neutron" / "lock"},
        "quotas": {"quota_network": -1, "quota_subnet": -1, "quota_port": -1, "quota_security_group": -1,
                   "quota_security_group_rule": -1},
        "nova": service_login(lab), "placement": service_login(lab),
        "ml2": {"type_drivers": "local,flat,vlan,vxlan", "tenant_network_types": "local", "mechanism_drivers": "lab",
                "extension_drivers": "port_security"},
        "keystone_authtoken": token_check(lab)}


def nova_common(lab):
    """What the controllers and the hosts have alike; a host may not see the databases."""
    login = service_login(lab)
    return {
        "DEFAULT": {"transport_url": lab.transport_url, "my_ip": "127.0.0.1", "compute_driver": "lab_virt.LabDriver",
                    "vif_plugging_timeout": 0, "vif_plugging_is_fatal": "False",
                    "heal_instance_info_cache_interval": -1, "instance_usage_audit": "False"},
        "notifications": {"notification_format": "versioned", "versioned_notifications_topics": TOPICS},
        "oslo_messaging_notifications": {"driver": "messagingv2"},
        "placement": login, "glance": login, "neutron": login, "cinder": login,
        "service_user": {"send_service_user_token": "True", **login},
        "compute": {"live_migration_wait_for_vif_plug": "False"},
        "vnc": {"enabled": "False"},
        "keystone_authtoken": token_check(lab)}


def nova_controller(lab):
    """`host` is fixed, since the machine's own name may change; host discovery must not wait a random minute."""
    conf = nova_common(lab)
    conf["DEFAULT"].update({"host": "controller", "state_path": lab.var / "nova", "periodic_fuzzy_delay": 0})
    conf.update({
        "api_database": database(lab, "nova_api"), "database": database(lab, "nova_cell1"),
        "oslo_concurrency": {"lock_path": lab.var / "nova" / "lock"},
        "wsgi": {"api_paste_config": lab.etc / "nova" / "api-paste.ini"},
        "conductor": {"workers": 1}, "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 2},
        "quota": {"instances": -1, "cores": -1, "ram": -1, "server_groups": -1, "server_group_members": -1},
        "filter_scheduler": {"enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,"
                             "AggregateInstanceExtraSpecsFilter,ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter"}})
    return conf


def nova_host(lab, host, affinity_workaround):
    """A pretend host: own identity, own state, Nova's own intervals written out because everything is timed by them."""
    conf = nova_common(lab)
    state = lab.state_dir(host)
    conf["DEFAULT"].update({"host": host, "state_path": state, "log_file": lab.log / (host + ".log"),
                            "report_interval": 10, "service_down_time": 60, "periodic_fuzzy_delay": 20})
    conf["oslo_concurrency"] = {"lock_path": state / "lock"}
    if affinity_workaround:
        conf["workarounds"] = {"disable_group_policy_check_upcall": "True"}
    if lab.virt == "qemu":
        return ini(settings_qemu.nova(lab, host, conf)).replace("127.0.0.1", network.GATEWAY)
    return ini(conf)


def write_plugin_entry(lab):
    """Neutron finds mechanism drivers by entry point only, so the lab's folder is given the metadata of a package."""
    folder = lab.etc / "plugins" / "vmhad_lab-1.dist-info"
    write_private(folder / "METADATA", "Metadata-Version: 2.1\nName: vmhad-lab\nVersion: 1\n")
    write_private(folder / "entry_points.txt", "[neutron.ml2.mechanism_drivers]\nlab = lab_ml2:AlwaysBinds\n")


def write_all(lab, affinity_workaround):
    for service in WSGI:
        gunicorn(lab, service)
    for path, conf in (("keystone/keystone.conf", keystone), ("placement/placement.conf", placement),
                       ("glance/glance-api.conf", glance), ("neutron/neutron.conf", neutron),
                       ("nova/nova.conf", nova_controller)):
        write_private(lab.etc / path, ini(conf(lab)))
    for host in lab.host_names():
        write_private(lab.etc / "hosts" / (host + ".conf"), nova_host(lab, host, affinity_workaround))
    for service in ("nova", "neutron"):
        shutil.copy(VENV / "etc" / service / "api-paste.ini", lab.etc / service / "api-paste.ini")
    for folder in ("nova/lock", "neutron/lock", "glance/images", "glance/staging", "glance/tasks"):
        (lab.var / folder).mkdir(parents=True, exist_ok=True)
    write_plugin_entry(lab)
