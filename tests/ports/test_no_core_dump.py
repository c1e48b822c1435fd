# SPDX-License-Identifier: Apache-2.0
"""What reads passwords leaves no core dump: the real commands, ended by SIGABRT in the middle of a call.

The same commands without what keeps their memory private do leave one, and the passwords are in it. It is asked of the
kernel (WCOREDUMP), which also tells of a dump that went into a pipe, as with systemd-coredump.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redfish_sim
import yaml
from ipmi_sim import free_udp_port

ROOT = Path(__file__).parents[2]
Process = subprocess.Popen[bytes]
LIMIT_S = 60.0
# The kernel writes a dump of some 100 MiB before it tells of the end.
DUMP_LIMIT_S = 120.0
IPMI, NOVA = "planted-for-ipmi", "planted-for-nova"
UNGUARDED = "import sys, vmhad.cmd.{0} as one; one.keep_memory_private = lambda: None; sys.exit(one.main())"


class Site:
    """One configuration for every command. A BMC and a Nova that take what is sent and never answer, and a Redfish
    service that does as much after TLS."""

    def __init__(self, where: Path, redfish: redfish_sim.RedfishSim) -> None:
        self.where, self._redfish = where, redfish
        self._bmc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._nova = socket.create_server(("127.0.0.1", 0))
        for one in (self._bmc, self._nova):
            one.settimeout(LIMIT_S)
        self._bmc.bind(("127.0.0.1", 0))
        ipmi = {"address": "127.0.0.1", "port": self._bmc.getsockname()[1], "user": "admin"}
        access = redfish.bmc()
        other = {"driver": "redfish", "address": "127.0.0.1", "port": access.port, "user": access.user}
        other |= {"system": access.system, "ca_file": access.ca_file}
        nobody = ipmi | {"port": free_udp_port()}
        bmcs = {"h1": nobody, "h2": ipmi, "h3": other}
        hosts = [{"name": name, "bmc": bmc} for name, bmc in bmcs.items()]
        planes = [host | {"planes": {"management": f"127.0.0.{n}"}} for n, host in enumerate(hosts, 1)]
        self._write("segments.yaml", yaml.safe_dump({"segments": [{"name": "s", "hosts": planes}]}))
        self._write("bmc.yaml", yaml.safe_dump({"default": IPMI, "h3": redfish_sim.PASSWORD}))
        self._write("vmhad.conf", self._options())

    def _options(self) -> str:
        files = f"segments_file = {self.where}/segments.yaml\n"
        engine = f"name = e\njournal = sqlite\nsqlite_path = {self.where}/journal.sqlite\nstandalone = true\n{files}"
        agent = f"host = h1\nlibvirt_uri =\n{files}"
        nova = f"auth_url = http://127.0.0.1:{self._nova.getsockname()[1]}/v3\npassword = {NOVA}\n"
        return (
            f"[engine]\n{engine}[agent]\n{agent}bmc_credentials_file = {self.where}/bmc.yaml\n"
            f"[nova]\n{nova}[power]\ncredentials_file = {self.where}/bmc.yaml\n"
        )

    def _write(self, name: str, text: str) -> None:
        (self.where / name).touch(0o600)
        (self.where / name).write_text(text)

    def close(self) -> None:
        self._bmc.close()
        self._nova.close()

    def bmcs_are_asked(self, process: Process) -> None:
        assert self._bmc.recv(1)
        until = time.monotonic() + LIMIT_S
        while not self._redfish.requests():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)

    def nova_is_asked(self, process: Process) -> None:
        self._call, _ = self._nova.accept()
        self._call.settimeout(LIMIT_S)
        assert self._call.recv(1)

    def it_beats(self, process: Process) -> None:
        _speaks(process)


# Words, what is waited for, which passwords it has by then. An agent asks a BMC by order only; it has read them all.
COMMANDS: dict[str, tuple[tuple[str, ...], Callable[[Site, Process], None], tuple[str, ...]]] = {
    "engine": ((), Site.bmcs_are_asked, (IPMI, redfish_sim.PASSWORD, NOVA)),
    "agent": (("--show", "1000"), Site.it_beats, (IPMI, redfish_sim.PASSWORD)),
    "manage": (("topology", "export"), Site.nova_is_asked, (NOVA,)),
}


@pytest.fixture
def site(tmp_path: Path, redfish_service: redfish_sim.RedfishSim) -> Iterator[Site]:
    if not _dumps([sys.executable, "-c", "print(flush=True); input()"], tmp_path, _speaks):
        pytest.skip("this machine makes no core dump of anything: its core_pattern or its limits forbid it")
    for dump in tmp_path.glob("core*"):
        dump.unlink()
    redfish_service.reset()
    redfish_service.mood("silent")
    made = Site(tmp_path, redfish_service)
    yield made
    made.close()
    for dump in tmp_path.glob("core*"):
        dump.unlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_it_leaves_no_dump(site: Site, command: str) -> None:
    """Neither where its limit forbids it, nor where the limit is not asked, as with a core_pattern that is a pipe."""

    def lift_limit(process: Process) -> None:
        limit, most = resource.prlimit(process.pid, resource.RLIMIT_CORE)
        assert limit == 0 and most == resource.RLIM_INFINITY
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (most, most))

    argv = [str(Path(sys.executable).with_name(f"vmhad-{command}"))]
    assert not _dumps_in_mid_call(site, command, argv, lift_limit)
    assert not list(site.where.glob("core*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_guard_its_passwords_are_in_the_dump(site: Site, command: str) -> None:
    assert _dumps_in_mid_call(site, command, [sys.executable, "-c", UNGUARDED.format(command)])
    # Where dumps go elsewhere, that one was made is all that is seen.
    for dump in site.where.glob("core*"):
        held = dump.read_bytes()
        assert not [one for one in COMMANDS[command][2] if one.encode() not in held]


def _dumps_in_mid_call(
    site: Site, command: str, argv: list[str], and_then: Callable[[Process], None] = lambda process: None
) -> bool:
    def until(process: Process) -> None:
        mid(site, process)
        and_then(process)

    words, mid, _ = COMMANDS[command]
    config = ["--config-file", str(site.where / "vmhad.conf")]
    return _dumps([*argv, *config, *words], site.where, until)


def _speaks(process: Process) -> None:
    assert process.stdout is not None and process.stdout.readline()


def _dumps(argv: list[str], where: Path, until: Callable[[Process], None]) -> bool:
    """Whether the kernel made a core dump of it: it is told to abort when until returns, and may dump all it has."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    with (where / "said").open("ab") as said:
        process = subprocess.Popen(
            ["prlimit", "--core=unlimited", *argv],
            cwd=where, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        )  # fmt: skip
        try:
            until(process)
            os.kill(process.pid, signal.SIGABRT)
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None and (ended.si_code == os.CLD_EXITED or ended.si_status == signal.SIGABRT)
            return ended.si_code == os.CLD_DUMPED
        finally:
            process.kill()
            process.communicate(timeout=DUMP_LIMIT_S)
