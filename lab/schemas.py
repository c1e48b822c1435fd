# SPDX-License-Identifier: Apache-2.0
"""Makes the databases, and keeps a snapshot of them: five schema migrations are most of a first start and never differ.

The snapshot holds no secret that counts: another lab that starts from it gets its own passwords and ports written in.
"""
import base64
import concurrent.futures
import os
import shutil
import subprocess
import tarfile

from lab import packages, processes, services
from lab.layout import REGION, SHARED, VENV, LabError, locked, write_private

DATABASES = ("keystone", "placement", "glance", "neutron", "nova_api", "nova_cell0", "nova_cell1")
CELL = "{scheme}://{username}:{password}@{hostname}:{port}/"


def socket_options(lab):
    return ["--no-defaults", "--socket=%s" % (lab.pid / "mariadb.sock")]


def sql(lab, text):
    done = subprocess.run(["mariadb", *socket_options(lab)], input=text.encode(), capture_output=True, check=False)
    if done.returncode:
        raise LabError("MariaDB refused: %s" % done.stderr.decode(errors="replace").strip())


def create_databases(lab):
    made = "".join("CREATE DATABASE IF NOT EXISTS %s CHARACTER SET utf8mb3;\n" % name for name in DATABASES)
    sql(lab, made + "GRANT ALL ON *.* TO lab@127.0.0.1 IDENTIFIED BY '%s';\n" % lab.password("mariadb"))


def write_keys(lab):
    """Keystone's fernet repositories: what `fernet_setup` would write, without two seconds of imports."""
    for folder in ("fernet-keys", "credential-keys"):
        path = lab.var / folder
        if not path.exists():
            path.mkdir(mode=0o700)
            for number in ("0", "1"):
                write_private(path / number, base64.urlsafe_b64encode(os.urandom(32)).decode())


def steps(lab):
    """The migrations of each service, in their order; the services do not wait for each other."""
    etc, run = lab.etc, VENV / "bin"
    nova = [run / "nova-manage", "--config-file", etc / "nova" / "nova.conf"]
    keystone = [run / "keystone-manage", "--config-file", etc / "keystone" / "keystone.conf"]
    url = lab.url("keystone", "/v3")
    return {
        "nova": [
            [*nova, "api_db", "sync"],
            [*nova, "cell_v2", "map_cell0", "--database_connection", CELL + "nova_cell0?{query}"],
            [*nova, "db", "sync"],
            [*nova, "cell_v2", "create_cell", "--name", "cell1", "--transport-url", CELL,
             "--database_connection", CELL + "nova_cell1?{query}"]],
        "neutron": [[run / "neutron-db-manage", "--config-file", etc / "neutron" / "neutron.conf", "upgrade", "heads"]],
        "keystone": [
            [*keystone, "db_sync"],
            [*keystone, "bootstrap", "--bootstrap-region-id", REGION, "--bootstrap-admin-url", url,
             "--bootstrap-internal-url", url, "--bootstrap-public-url", url]],
        "glance": [[run / "glance-manage", "--config-file", etc / "glance" / "glance-api.conf", "db_sync"]],
        "placement": [[run / "placement-manage", "--config-file", etc / "placement" / "placement.conf", "db", "sync"]]}


def migrate_one(lab, name, commands):
    log = lab.log / ("migrate-%s.log" % name)
    env = processes.service_environment(lab, {**services.openstack_environment(lab),
                                              "OS_BOOTSTRAP_PASSWORD": lab.password("admin")})
    with open(log, "ab") as out:
        for argv in commands:
            if subprocess.run([str(word) for word in argv], env=env, cwd="/", stdout=out, stderr=out,
                              stdin=subprocess.DEVNULL, check=False).returncode:
                raise LabError("The schema of %s could not be made; see %s." % (name, log))


def migrate(lab):
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(migrate_one, lab, name, commands) for name, commands in steps(lab).items()]
        for job in jobs:
            job.result()


def seed_file():
    return SHARED / ("seed-%s.tar.gz" % packages.release_id())


def save_seed(lab):
    """Taken before any host registers: their identities live in files that a wiped lab does not have."""
    dump = lab.var / "seed.sql"
    with locked(SHARED / "seed.lock"):
        if seed_file().exists():
            return
        with open(dump, "wb") as out:
            subprocess.run(["mariadb-dump", *socket_options(lab), "--databases", *DATABASES], stdout=out, check=True)
        fresh = seed_file().with_suffix(".new")
        with tarfile.open(fresh, "w:gz") as archive:
            archive.add(dump, "seed.sql")
            archive.add(lab.var / "glance" / "images", "glance/images")
        fresh.chmod(0o600)
        fresh.replace(seed_file())
    dump.unlink()


def hashed(lab, who):
    """Keystone's own kind of hash, made by the library Keystone uses; the password goes through stdin."""
    code = "import bcrypt, sys; print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())"
    done = subprocess.run([VENV / "bin" / "python", "-c", code], input=lab.password(who).encode(),
                          capture_output=True, check=True)
    return done.stdout.decode().strip()


def restore_seed(lab, endpoints):
    """Load the snapshot and make it this lab's own; `endpoints` is service type -> URL."""
    with tarfile.open(seed_file()) as archive:
        archive.extractall(lab.var)
    (lab.var / "glance" / "images").mkdir(parents=True, exist_ok=True)
    text = ["SET foreign_key_checks=0; SET unique_checks=0;", (lab.var / "seed.sql").read_text(), "USE keystone;"]
    for who in ("admin", "svc"):
        text.append("UPDATE password p JOIN local_user u ON p.local_user_id = u.id SET p.password_hash = '%s' "
                    "WHERE u.name = '%s';" % (hashed(lab, who), who))
    for kind, url in endpoints.items():
        text.append("UPDATE endpoint e JOIN service s ON e.service_id = s.id SET e.url = '%s' WHERE s.type = '%s';"
                    % (url, kind))
    text.append("UPDATE glance.image_locations SET value = CONCAT('file://%s/', image_id);"
                % (lab.var / "glance" / "images"))
    sql(lab, "\n".join(text))
    (lab.var / "seed.sql").unlink()


def forget(lab):
    """Start the databases from nothing after a half-made attempt."""
    shutil.rmtree(lab.var / "mariadb", ignore_errors=True)
