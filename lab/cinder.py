# SPDX-License-Identifier: Apache-2.0
"""Cinder beside the other services, for labs that ask for it: real, with two backends that keep nothing.

It has a virtualenv, a schema and a part of the catalogue of its own, so that a lab without it pays nothing for it.
"""
import shutil
import time

from lab import rest, schemas, seed
from lab.layout import HERE, VENV_CINDER, LabError, write_private
from lab.settings_openstack import database, ini, service_login, token_check

API, SCHEDULER, VOLUME = "cinder-api", "cinder-scheduler", "cinder-volume"
NAMES = (API, SCHEDULER, VOLUME)
BACKENDS = ("array-a", "array-b")
READY_WITHIN = 60.0


def conf_file(lab):
    return lab.etc / "cinder" / "cinder.conf"


def settings(lab):
    etc, var = lab.etc / "cinder", lab.var / "cinder"
    backends = {name: {"volume_driver": "lab_cinder.Nowhere", "volume_backend_name": name} for name in BACKENDS}
    return {
        "DEFAULT": {"transport_url": lab.transport_url, "host": "controller", "my_ip": "127.0.0.1", "state_path": var,
                    "auth_strategy": "keystone", "enabled_backends": ",".join(BACKENDS),
                    "osapi_volume_listen": "127.0.0.1", "osapi_volume_listen_port": lab.port(API),
                    "osapi_volume_workers": 1, "api_paste_config": etc / "api-paste.ini",
                    "resource_query_filters_file": etc / "resource_filters.json",
                    "glance_api_servers": lab.url("glance"), "periodic_fuzzy_delay": 0},
        "database": database(lab, "cinder"),
        "oslo_concurrency": {"lock_path": var / "lock"},
        "oslo_policy": {"policy_file": etc / "policy.yaml"},
        "coordination": {"backend_url": "file://%s" % (var / "coordination")},
        "nova": service_login(lab),
        "keystone_authtoken": token_check(lab), **backends}


def write_settings(lab):
    for folder in ("lock", "coordination"):
        (lab.var / "cinder" / folder).mkdir(parents=True, exist_ok=True)
    write_private(conf_file(lab), ini(settings(lab)))
    for name in ("api-paste.ini", "resource_filters.json"):
        shutil.copy(VENV_CINDER / "etc" / "cinder" / name, lab.etc / "cinder" / name)


def make(lab):
    """What it needs of the others before it starts, once in a lab: their snapshot knows nothing of it."""
    done = lab.var / "cinder" / "schema"
    if done.exists():
        return
    schemas.sql(lab, "CREATE DATABASE IF NOT EXISTS cinder CHARACTER SET utf8mb3;")
    schemas.migrate_one(lab, "cinder", [[VENV_CINDER / "bin" / "cinder-manage", "--config-file", conf_file(lab),
                                         "db", "sync"]])
    seed.seed_catalogue(lab, rest.Api(lab))
    done.touch()


def argv(lab, name):
    return [VENV_CINDER / "bin" / name, "--config-file", conf_file(lab), "--log-file", lab.log / (name + ".log")]


ENVIRONMENT = {"PYTHONPATH": str(HERE / "plugins")}


def pools(api):
    return {row["name"].partition("@")[2].partition("#")[0] for row in
            api.get("block-storage", "/scheduler-stats/get_pools")["pools"]}


def fill(lab):
    """Waits for both backends, makes a volume type for each, and lifts the quotas, which are kept in the database."""
    api = rest.Api(lab)
    until = time.monotonic() + READY_WITHIN
    while pools(api) != set(BACKENDS):
        if time.monotonic() > until:
            raise LabError("Cinder has no %s after %d s; see `lab/cloud logs %s`." % (
                " and ".join(BACKENDS), READY_WITHIN, VOLUME))
        time.sleep(0.1)
    api.call("PUT", "block-storage", "/os-quota-class-sets/default", {
        "quota_class_set": {"volumes": -1, "gigabytes": -1}})
    have = {row["name"] for row in api.get("block-storage", "/types")["volume_types"]}
    for name in set(BACKENDS) - have:
        api.call("POST", "block-storage", "/types", {"volume_type": {
            "name": name, "extra_specs": {"volume_backend_name": name}}})
