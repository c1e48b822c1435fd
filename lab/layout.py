# SPDX-License-Identifier: Apache-2.0
"""Where everything of one lab lies: all other modules ask here, so that two labs can never share a file by accident."""
import fcntl
import json
import os
import pathlib
import re
import secrets
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
RUN = HERE / "run"
SHARED = RUN / "shared"
VENV = SHARED / "venv"
VENV_CINDER = SHARED / "venv-cinder"
REGION = "RegionOne"
MARKER = "VMHAD_LAB"


class LabError(Exception):
    """Something the person at the keyboard can act upon; its text is the whole message."""


class Progress:
    """Prints one short line per thing done, with the seconds since the command began."""

    def __init__(self):
        self.born = time.monotonic()

    def __call__(self, text):
        print("%6.1f s  %s" % (time.monotonic() - self.born, text), flush=True)


def write_private(path, text, mode=0o600):
    """Write a whole file at once, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w") as out:
        os.fchmod(fd, mode)
        out.write(text)
    os.replace(fresh, path)


class Lab:
    """One named cloud: its folders, its ports, its passwords and what it has remembered about itself."""

    def __init__(self, name):
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name) or name == "shared":
            raise LabError(
                "A lab's name is 1 to 20 small letters, digits or dashes, but not 'shared'; %r will not do." % name)
        self.name = name
        self.root = RUN / name
        self.etc, self.var, self.log, self.pid = (self.root / part for part in ("etc", "var", "log", "pid"))
        self.hosts_dir = self.var / "hosts"
        self.facts_file = self.root / "cloud.json"
        self.facts = {}
        self.reload()

    def reload(self):
        try:
            self.facts = json.loads(self.facts_file.read_text())
        except FileNotFoundError:
            self.facts = {}
        return self

    def save(self):
        write_private(self.facts_file, json.dumps(self.facts, indent=1, sort_keys=True) + "\n")

    def make_folders(self):
        for folder in (SHARED, self.etc, self.var, self.log, self.pid, self.hosts_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def port(self, service):
        return self.facts["ports"][service]

    def url(self, service, path=""):
        return "http://127.0.0.1:%d%s" % (self.port(service), path)

    def password(self, who):
        """The password of one account of this lab, made up when it is first asked for."""
        path = self.etc / "secrets" / who
        try:
            return path.read_text()
        except FileNotFoundError:
            write_private(path, secrets.token_hex(8))
            return path.read_text()

    def password_file(self, who):
        self.password(who)
        return self.etc / "secrets" / who

    @property
    def transport_url(self):
        return "rabbit://lab:%s@127.0.0.1:%d/" % (self.password("rabbitmq"), self.port("rabbitmq"))

    def database_url(self, database):
        return "mysql+pymysql://lab:%s@127.0.0.1:%d/%s?charset=utf8" % (
            self.password("mariadb"), self.port("mariadb"), database)

    def host_names(self):
        return [host["name"] for host in self.facts.get("hosts", [])]

    def host(self, name):
        """What is known of one host, or a sentence that names those there are."""
        for host in self.facts.get("hosts", []):
            if host["name"] == name:
                return host
        raise LabError("There is no host %r in lab %r; its hosts are: %s." % (
            name, self.name, ", ".join(self.host_names())))

    @property
    def virt(self):
        """What the hosts are: "fake" or "qemu"."""
        return self.facts.get("options", {}).get("virt", "fake")

    @property
    def storage(self):
        """Where real guests have their disks: "dir" or "rbd"."""
        return self.facts.get("options", {}).get("storage", "dir")

    def storage_of(self, host):
        """The same, or "own" for a host that keeps its guests' disks to itself."""
        return "own" if host in self.facts.get("options", {}).get("own_disks", []) else self.storage

    @property
    def cinder(self):
        """Whether Cinder is part of it."""
        return self.facts.get("options", {}).get("cinder", False)

    def state_dir(self, host):
        return self.hosts_dir / host

    def first_block(self):
        """Where the search for free ports begins: the same name starts at the same place on every machine."""
        return zlib.crc32(self.name.encode())

    def lock(self):
        """Held by the commands that start or stop things, so that two of them do not meet half way."""
        return locked(self.root / "lock", "Another command is at work on lab %r; wait for it to end." % self.name)


class locked:
    """An advisory file lock; with a sentence it refuses to wait, without one it waits."""

    def __init__(self, path, refusal=None):
        self.path, self.refusal = path, refusal

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "w")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | (fcntl.LOCK_NB if self.refusal else 0))
        except BlockingIOError:
            raise LabError(self.refusal) from None
        return self

    def __exit__(self, *_):
        self.file.close()
