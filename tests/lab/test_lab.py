# SPDX-License-Identifier: Apache-2.0
"""The lab must do what it says, or no trial that stands on it proves anything: it is checked from outside.

Power is read with ipmitool, guests from the hosts' files, processes from /proc. The lab is named `labtest` and is
taken down and wiped at the end.
"""
import json
import pathlib
import socket
import subprocess
import time

import pytest

from lab import hostpower, processes, rest
from lab.layout import Lab
from lab.watcher import Watcher

pytestmark = pytest.mark.cloud

NAME = "labtest"
CLOUD = pathlib.Path(__file__).resolve().parents[2] / "lab" / "cloud"


def cloud(*words, ok=True):
    done = subprocess.run([str(CLOUD), *words, "--name", NAME], capture_output=True, text=True, timeout=400)
    if ok:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def ipmi(host, *words):
    """(return code, output) of one ipmitool call; the password is read from its file."""
    bmc = Lab(NAME).host(host)["bmc"]
    done = subprocess.run(["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-H", bmc["host"],
                           "-p", str(bmc["port"]), "-U", bmc["user"], "-f", bmc["password_file"], *words],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip()


def power(host):
    code, text = ipmi(host, "power", "status")
    return text.rsplit(" ", 1)[-1] if code == 0 else "unknown"


def guests(host):
    return {row["uuid"] for row in json.loads(cloud("guests", "--json").stdout)
            if row["host"] == host and row["can_run"] and row["state"] != "shutdown"}


def agent(host):
    return hostpower.compute(Lab(NAME).state_dir(host))[1]


def wait_for(condition, seconds, what):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "not within %g s: %s" % (seconds, what)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def lab():
    cloud("up", "--computes", "2")
    yield Lab(NAME)
    cloud("down", "--wipe")


@pytest.fixture(scope="module")
def api(lab):
    return rest.Api(lab)


@pytest.fixture
def guest(api):
    """One server that runs on host01, removed afterwards whatever became of it."""
    image = api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    flavor = next(row["id"] for row in api.get("compute", "/flavors")["flavors"] if row["name"] == "m1.nano")
    uuid = api.call("POST", "compute", "/servers", {"server": {
        "name": "guest", "imageRef": image, "flavorRef": flavor, "networks": "none", "host": "host01"}})["server"]["id"]
    wait_for(lambda: api.get("compute", "/servers/" + uuid)["server"]["status"] == "ACTIVE", 60, "the guest is active")
    assert guests("host01") == {uuid}
    yield uuid
    cloud("restore", "host01", "--enable")
    api.call("DELETE", "compute", "/servers/" + uuid)
    wait_for(lambda: not api.get("compute", "/servers")["servers"], 60, "the guest is deleted")


def test_facts_say_what_a_consumer_needs(lab):
    facts = json.loads(lab.facts_file.read_text())
    assert set(facts["auth"]) == {
        "auth_url", "username", "password", "project_name", "user_domain_id", "project_domain_id"}
    assert len(facts["etcd"]) == 1 and len(facts["hosts"]) == 2
    assert all(entry["pid"] for entry in facts["services"].values())
    for host in facts["hosts"]:
        assert pathlib.Path(host["bmc"]["password_file"]).stat().st_mode & 0o077 == 0
    assert lab.facts_file.stat().st_mode & 0o077 == 0


def test_up_again_changes_nothing(lab):
    before = json.loads(lab.facts_file.read_text())["services"]
    cloud("up")
    assert json.loads(lab.facts_file.read_text())["services"] == before


def test_each_bmc_has_a_guid_and_credentials_of_its_own(lab):
    one, two = (lab.host(name)["bmc"] for name in ("host01", "host02"))
    assert one["guid"] != two["guid"] and one["port"] != two["port"]
    for host in ("host01", "host02"):
        code, text = ipmi(host, "mc", "guid")
        assert code == 0, text
    assert ipmi("host01", "mc", "guid") != ipmi("host02", "mc", "guid")
    wrong = pathlib.Path(two["password_file"])
    refused = subprocess.run(["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1", "-H", one["host"], "-p",
                              str(one["port"]), "-U", one["user"], "-f", str(wrong), "power", "status"],
                             capture_output=True, timeout=60)
    assert refused.returncode != 0


def test_cut_takes_power_and_guests(guest):
    cloud("cut", "host01")
    assert (power("host01"), guests("host01"), agent("host01")) == ("off", set(), "dead")
    assert not (hostpower.compute(Lab(NAME).state_dir("host01"))[0])


def test_crash_leaves_power_only(guest):
    cloud("crash", "host01")
    assert (power("host01"), guests("host01"), agent("host01")) == ("on", set(), "dead")


def test_hang_leaves_guests_running(guest):
    cloud("hang", "host01")
    assert (power("host01"), guests("host01"), agent("host01")) == ("on", {guest}, "hung")
    cloud("restore", "host01")
    assert agent("host01") == "running"


def test_unplug_silences_the_bmc(guest):
    cloud("unplug", "host01")
    assert (power("host01"), guests("host01"), agent("host01")) == ("unknown", set(), "dead")
    cloud("restore", "host01")
    assert power("host01") == "on"


def test_stop_compute_leaves_guests_running(guest):
    cloud("stop-compute", "host01")
    assert (power("host01"), guests("host01"), agent("host01")) == ("on", {guest}, "dead")
    cloud("restore", "host01")
    assert guests("host01") == {guest}


def test_reboot_comes_back_by_itself_without_guests(guest):
    cloud("reboot", "host01", "--boot-s", "3")
    assert (power("host01"), guests("host01"), agent("host01")) == ("on", set(), "dead")
    wait_for(lambda: agent("host01") == "running", 6, "nova-compute is back")
    assert guests("host01") == set()


def test_the_power_button_is_real(guest):
    assert ipmi("host01", "power", "off")[0] == 0
    assert (power("host01"), guests("host01"), agent("host01")) == ("off", set(), "dead")
    assert ipmi("host01", "power", "on")[0] == 0
    wait_for(lambda: (power("host01"), agent("host01")) == ("on", "running"), 10, "the host runs again")
    assert guests("host01") == set()
    before = hostpower.chassis(Lab(NAME).state_dir("host01"))
    assert ipmi("host01", "power", "reset")[0] == 0
    wait_for(lambda: hostpower.chassis(Lab(NAME).state_dir("host01")) not in (None, before), 10, "another start")


def test_a_lying_bmc_says_off_while_the_guest_runs(lab, guest):
    lie = lab.state_dir("host01") / "bmc_lie"
    lie.touch()
    try:
        assert ipmi("host01", "power", "off")[0] == 0
        assert (power("host01"), guests("host01"), agent("host01")) == ("off", {guest}, "running")
    finally:
        lie.unlink()
    assert power("host01") == "on"


def test_evacuated_guest_is_seen_twice_only_without_a_fence(lab, api, guest):
    """The lab must be able to show a split brain, else its absence means nothing."""
    watcher = Watcher(lab.hosts_dir).start()
    cloud("stop-compute", "host01")
    service = api.computes()["host01"]["id"]
    api.call("PUT", "compute", "/os-services/%s" % service, {"forced_down": True})
    api.call("POST", "compute", "/servers/%s/action" % guest, {"evacuate": {"host": "host02"}})
    wait_for(lambda: guests("host02") == {guest}, 60, "the guest runs on host02")
    time.sleep(0.5)
    cloud("restore", "host01", "--enable")
    assert guests("host01") == set()
    found = watcher.stop()
    assert [(double["uuid"], double["hosts"]) for double in found["doubles"]] == [(guest, ["host01", "host02"])]


def test_switch_files_rule_the_hypervisor(lab, api, guest):
    """fail_spawn makes an evacuation end in ERROR with the guest nowhere."""
    switch = lab.state_dir("host02") / "fail_spawn"
    switch.touch()
    try:
        cloud("cut", "host01")
        service = api.computes()["host01"]["id"]
        api.call("PUT", "compute", "/os-services/%s" % service, {"forced_down": True})
        api.call("POST", "compute", "/servers/%s/action" % guest, {"evacuate": {"host": "host02"}})
        wait_for(lambda: api.get("compute", "/servers/" + guest)["server"]["status"] == "ERROR", 60, "the spawn failed")
        assert guests("host02") == set()
    finally:
        switch.unlink()


def test_one_service_is_stopped_and_started(lab):
    cloud("stop", "etcd-1", "--kill")
    with pytest.raises(rest.RestError):
        rest.request("GET", lab.facts["etcd"][0] + "/health")
    cloud("start", "etcd-1")
    assert rest.request("GET", lab.facts["etcd"][0] + "/health")[1]["health"] == "true"


def test_mistakes_end_in_one_sentence():
    unknown = cloud("cut", "host99", ok=False)
    assert unknown.returncode == 1 and "host01, host02" in unknown.stderr and "Traceback" not in unknown.stderr
    service = cloud("stop", "nonsense", ok=False)
    assert service.returncode == 1 and "keystone" in service.stderr


def test_down_leaves_nothing_and_up_brings_it_back(lab, guest):
    ports = [port for port in lab.reload().facts["ports"].values()]
    cloud("down")
    assert processes.of_lab(lab) == []
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
    refused = cloud("cut", "host01", ok=False)
    assert refused.returncode == 1 and "not up" in refused.stderr
    cloud("up")
    assert guests("host01") == {guest}
