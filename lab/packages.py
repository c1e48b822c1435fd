# SPDX-License-Identifier: Apache-2.0
"""Brings Debian packages and virtualenvs to a machine that has neither; both are fetched at the same time."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import threading

from lab.layout import HERE, SHARED, VENV, VENV_CINDER, LabError, locked

POLICY = pathlib.Path("/usr/sbin/policy-rc.d")
REQUIREMENTS = ("keystone>=30,<31", "openstack-placement>=16,<17", "glance>=33,<34", "neutron>=29,<30", "nova>=34,<35",
                "pymysql", "gunicorn>=23", "python-memcached", "python-openstackclient", "osc-placement")
CINDER = ("cinder>=29,<30", "pymysql", "python-memcached")
UNITS = ("rabbitmq-server", "mariadb", "memcached", "etcd", "openipmi", "epmd.socket", "epmd.service",
         "libvirtd", "libvirtd.socket", "virtlogd.socket", "virtlockd.socket", "ceph-mon.target", "ceph-mgr.target",
         "ceph-osd.target", "tgt", "istgt")
# Of packages that a machine may have for purposes of its own: only where we brought them.
UNITS_OF_NEW = {"nfs-common": ("rpc-statd",), "nfs-ganesha": ("nfs-ganesha", "nfs-ganesha-lock"),
                "openssh-server": ("ssh",), "rpcbind": ("rpcbind.socket", "rpcbind")}


def release_id(requirements=REQUIREMENTS):
    """Names one set of pins: a virtualenv or seed made for other pins is not used."""
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]


def wanted_packages(profiles):
    """The Debian packages that bindep.txt lists for these profiles."""
    lines = (HERE.parent / "bindep.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#") and set(profiles) &
            set(line.partition("[")[2].partition("]")[0].replace("platform:dpkg", "").split())]


def missing_packages(profiles=("lab",)):
    asked = wanted_packages(profiles)
    answer = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *asked],
                            capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in asked if name not in there]


def as_root(argv):
    return argv if os.geteuid() == 0 else ["sudo", "-n", *argv]


def forbid_daemons():
    """Keep dpkg from starting the daemons on all addresses; True when the ban is ours to lift again."""
    if POLICY.exists():
        return False
    subprocess.run(as_root(["tee", str(POLICY)]), input=b"#!/bin/sh\nexit 101\n", stdout=subprocess.DEVNULL, check=True)
    subprocess.run(as_root(["chmod", "755", str(POLICY)]), check=True)
    return True


def install_debian(missing, log):
    """apt-get install what is missing and leave no daemon of Debian's behind, now or after a reboot."""
    ours = forbid_daemons()
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=600", "-y", "-q"]
    try:
        with open(log, "ab") as out:
            subprocess.run(as_root([*apt, "update"]), env=env, stdout=out, stderr=out, check=False)
            subprocess.run(as_root([*apt, "--no-install-recommends", "install", *missing]),
                           env=env, stdout=out, stderr=out, check=True)
            if pathlib.Path("/run/systemd/system").exists():
                new = [unit for package in missing for unit in UNITS_OF_NEW.get(package, ())]
                for unit in (*UNITS, *new):
                    subprocess.run(as_root(["systemctl", "disable", "--now", unit]),
                                   stdout=out, stderr=out, check=False)
    finally:
        if ours:
            subprocess.run(as_root(["rm", "-f", str(POLICY)]), check=True)


def install_python(log, venvs):
    """One virtualenv for all services but Cinder: the five projects agree on their requirements, and pages are shared.

    Cinder has its own, so that a lab without it pays nothing for it.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs with whatever python3 the machine has
        raise LabError("The lab needs python3 3.11 or newer; this is %d.%d." % sys.version_info[:2])
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env.update(UV_CACHE_DIR=str(SHARED / "uv-cache"), UV_LINK_MODE="hardlink")
    uv = SHARED / "uv" / "bin" / "uv"
    with open(log, "ab") as out:
        def run(*argv):
            subprocess.run([str(word) for word in argv], env=env, stdout=out, stderr=out, check=True)
        if not uv.exists():
            run(sys.executable, "-m", "venv", SHARED / "uv")
            run(SHARED / "uv" / "bin" / "pip", "install", "-q", "uv")
        for venv, requirements in venvs:
            shutil.rmtree(venv, ignore_errors=True)
            run(uv, "venv", "-q", "--python", sys.executable, venv)
            run(uv, "pip", "install", "-q", "--compile-bytecode", "--python", venv / "bin" / "python", *requirements)
            (venv / "pins").write_text(release_id(requirements))


def python_is_there(venv, requirements):
    try:
        return (venv / "pins").read_text() == release_id(requirements)
    except FileNotFoundError:
        return False


def ensure(say, profiles=("lab",), cinder=False):
    """Install what is missing; a machine that has it all pays a tenth of a second."""
    SHARED.mkdir(parents=True, exist_ok=True)
    failures = []

    def attempt(what, work, log):
        try:
            work()
            say("%s installed" % what)
        except (OSError, subprocess.CalledProcessError) as error:
            failures.append("%s could not be installed (%s); see %s." % (what, error, log))

    with locked(SHARED / "install.lock"):
        jobs = []
        missing = missing_packages(profiles)
        if missing:
            log = SHARED / "apt.log"
            jobs.append(("Debian packages (%s)" % ", ".join(missing),
                         lambda log=log: install_debian(missing, log), log))
        wanted = [(VENV, REQUIREMENTS), *([(VENV_CINDER, CINDER)] if cinder else [])]
        venvs = [one for one in wanted if not python_is_there(*one)]
        if venvs:
            log = SHARED / "uv.log"
            jobs.append((" and ".join(venv.name for venv, _ in venvs), lambda log=log: install_python(log, venvs), log))
        threads = [threading.Thread(target=attempt, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise LabError(" ".join(failures))
