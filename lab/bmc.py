# SPDX-License-Identifier: Apache-2.0
"""One OpenIPMI simulator per host: a real RMCP+ endpoint whose power button really ends the processes of that host.

The simulator knows cipher suites up to 3 (SHA1); a client must ask for suite 3. Reading the power is done in sh, in a
few milliseconds; switching it is left to `hostpower`, so that button and lab commands cannot differ.
"""
import shlex
import shutil
import sys
import time
import uuid

from lab import processes
from lab.layout import HERE, LabError, write_private

USER = "admin"

HOOK = """#!/bin/sh
# called by ipmi_sim: get power | set power 0|1 | set reset 1 | set shutdown 1 | get boot | ...
state={state}
powered() {{
  {{ read -r pid born < "$state/chassis.pid"; }} 2>/dev/null || return 1
  {{ read -r line < "/proc/$pid/stat"; }} 2>/dev/null || return 1
  set -- ${{line##*)}}
  [ "$1" != Z ] && [ "$1" != X ] && [ "${{20}}" = "$born" ]
}}
case "$1 $2" in
"get power") if [ ! -e "$state/bmc_lie" ] && powered; then echo power:1; else echo power:0; fi ;;
"get boot") echo boot:default ;;
set*) cd {root} && exec {python} -S -E -m lab.hostpower "$state" "$@" ;;
esac
exit 0
"""

# The smallest machine that has a chassis, an event log and one temperature sensor. A wrong line here is silent:
# the simulator then runs on without opening its port.
EMULATION = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""


def name(host):
    return "bmc-" + host


def guid(lab, host):
    """The same for the life of the host: a client may recognise the machine by it."""
    return uuid.uuid5(uuid.NAMESPACE_URL, "vmhad-lab/%s/%s" % (lab.root, host)).hex


def facts(lab, host):
    return {"host": "127.0.0.1", "port": lab.port(name(host)), "user": USER, "cipher_suite": 3,
            "password_file": str(lab.password_file(name(host))), "guid": guid(lab, host)}


def write_settings(lab, host):
    folder = lab.etc / "bmc" / host
    hook = folder / "chassis-control"
    write_private(hook, HOOK.format(state=shlex.quote(str(lab.state_dir(host))), root=shlex.quote(str(HERE.parent)),
                                    python=shlex.quote(sys.executable)), 0o700)
    levels = "\n".join("    allowed_auths_%s none md2 md5 straight" % level
                       for level in ("callback", "user", "operator", "admin"))
    write_private(folder / "lan.conf", f"""name "{name(host)}"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {lab.port(name(host))}
    priv_limit admin
{levels}
    guid {guid(lab, host)}
  endlan
  chassis_control "{hook}"
  user 1 false "" "" user 10 none md2 md5 straight
  user 2 true "{USER}" "{lab.password(name(host))}" admin 10 none md2 md5 straight
""")
    write_private(folder / "machine.emu", EMULATION)


def start(lab, host):
    """Start the host's BMC unless it lives; what an earlier one saved is thrown away, for it would outrank lan.conf."""
    pid_file = lab.pid / (name(host) + ".pid")
    if processes.living(pid_file):
        return
    write_settings(lab, host)
    memory = lab.var / "bmc" / host
    shutil.rmtree(memory, ignore_errors=True)
    memory.mkdir(parents=True)
    folder = lab.etc / "bmc" / host
    processes.spawn(["ipmi_sim", "-c", folder / "lan.conf", "-f", folder / "machine.emu", "-s", memory, "-n", "-p"],
                    processes.service_environment(lab), lab.log / (name(host) + ".log"), pid_file, cwd=memory)


def wait(lab, host, seconds=10.0):
    """The port is the only sign of life before a session."""
    wanted = "0100007F:%04X" % lab.port(name(host))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with open("/proc/net/udp") as table:
            if wanted in table.read():
                return
        time.sleep(0.03)
    raise LabError("The BMC of %s does not open its port %d; see %s." % (
        host, lab.port(name(host)), lab.log / (name(host) + ".log")))
