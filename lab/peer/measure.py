# SPDX-License-Identifier: Apache-2.0
"""One host loses its power, masakari is told in that very instant, and Nova is watched until the last VM runs again.

The instant is masakari's best case: its detection is left out, while vmhad is measured with its own. All times come
from Nova (migrations, servers), never from masakari's word.
"""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any

from lab import hosts, rest
from lab.layout import Lab, LabError
from lab.peer import service
from lab.peer.profiles import Profile

VICTIM = "host01"
LOOK_S = 0.5
BOOT_WITHIN_S = 300.0
RECOVERY_WITHIN_S = 900.0
ENDED = ("finished", "failed", "error", "ignored")

Row = dict[str, Any]


class Watched:
    """What has been seen of each VM since the instant of death, in seconds after it."""

    def __init__(self, died_at: float, servers: list[str]) -> None:
        self.died_at, self.servers = died_at, servers
        self.asked: dict[str, float] = {}
        self.active: dict[str, float] = {}

    def look(self, api: rest.Api) -> None:
        began = time.time() - self.died_at
        path = f"/os-migrations?source_compute={VICTIM}&migration_type=evacuation"
        rows = [row for row in api.get("compute", path)["migrations"] if row["instance_uuid"] in self.servers]
        landed = {row["instance_uuid"] for row in rows if row["status"] == "done"}
        for row in rows:
            self.asked.setdefault(row["instance_uuid"], began)
        for server in listed(api) if landed - set(self.active) else []:
            moved = server["id"] in landed and server["OS-EXT-SRV-ATTR:host"] != VICTIM
            if moved and server["status"] == "ACTIVE":
                self.active.setdefault(server["id"], began)


def listed(api: rest.Api) -> list[Row]:
    rows: list[Row] = api.get("compute", "/servers/detail?all_tenants=1")["servers"]
    return rows


def boot(api: rest.Api, vms: int) -> list[str]:
    """ids of VMs that run on the victim, in the way tests/bench boots its own: one port each."""
    image = api.get("image", "/v2/images?name=tiny")["images"][0]["id"]
    flavor = next(row["id"] for row in api.get("compute", "/flavors")["flavors"] if row["name"] == "m1.nano")
    network = api.get("network", "/v2.0/networks?name=net1")["networks"][0]["id"]

    def one(number: int) -> str:
        body = {"name": f"peer-{number:02d}", "imageRef": image, "flavorRef": flavor, "host": VICTIM,
                "networks": [{"uuid": network}]}  # fmt: skip
        made: str = api.call("POST", "compute", "/servers", {"server": body})["server"]["id"]
        return made

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(one, range(vms)))
    until = time.monotonic() + BOOT_WITHIN_S
    while True:
        here = [row for row in listed(api) if row["id"] in ids]
        if any(row["status"] == "ERROR" for row in here):
            raise LabError("A VM could not be booted; see `lab/cloud logs conductor`.")
        if len(here) == vms and all(row["status"] == "ACTIVE" and not row["OS-EXT-STS:task_state"] for row in here):
            return ids
        if time.monotonic() > until:
            raise LabError(f"{vms} VMs are not ACTIVE after {BOOT_WITHIN_S:.0f} s.")
        time.sleep(LOOK_S)


def clear(api: rest.Api) -> None:
    """Deletes what an earlier run left."""
    for row in listed(api):
        if row["name"].startswith("peer-"):
            api.call("DELETE", "compute", f"/servers/{row['id']}")
    until = time.monotonic() + BOOT_WITHIN_S
    while any(row["name"].startswith("peer-") for row in listed(api)):
        if time.monotonic() > until:
            raise LabError("The VMs of the run before are still there.")
        time.sleep(LOOK_S)


def call(api: rest.Api, url: str, method: str, path: str, body: Row | None = None) -> Row:
    headers = {"X-Auth-Token": api.headers["X-Auth-Token"], "Accept": "application/json"}
    answer: Row = rest.request(method, url + "/v1" + path, body, headers)[1]
    return answer


def make_segment(api: rest.Api, url: str, names: list[str]) -> None:
    body = {"segment": {"name": "lab", "recovery_method": "auto", "service_type": "COMPUTE"}}
    segment = call(api, url, "POST", "/segments", body)["segment"]["uuid"]
    for name in names:
        host = {"name": name, "type": "COMPUTE", "control_attributes": "none"}
        call(api, url, "POST", f"/segments/{segment}/hosts", {"host": host})


def notify(api: rest.Api, url: str) -> str:
    """What masakari's monitor would send; returns the notification's id."""
    generated = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    payload = {"event": "STOPPED", "cluster_status": "OFFLINE", "host_status": "NORMAL"}
    body = {"type": "COMPUTE_HOST", "hostname": VICTIM, "generated_time": generated, "payload": payload}
    sent: str = call(api, url, "POST", "/notifications", {"notification": body})["notification"]["notification_uuid"]
    return sent


def run(lab: Lab, profile: Profile, vms: int) -> Row:
    """One death of one host. Times in seconds after the power was cut; None for what was not seen."""
    api = rest.Api(lab)
    clear(api)
    url = service.up(lab, profile)
    make_segment(api, url, lab.host_names())
    ids = boot(api, vms)
    row = api.computes()[VICTIM]
    died_at = time.time()
    hosts.cut(lab, VICTIM)
    if profile.forced_down:
        api.call("PUT", "compute", f"/os-services/{row['id']}", {"forced_down": True})
    notification = notify(api, url)
    notified = time.time() - died_at
    watched, state, ended = Watched(died_at, ids), "", None
    while time.time() - died_at < RECOVERY_WITHIN_S:
        watched.look(api)
        state = call(api, url, "GET", f"/notifications/{notification}")["notification"]["status"]
        if state in ENDED and ended is None:
            ended = time.time() - died_at
        if len(watched.active) == vms or (ended is not None and time.time() - died_at > ended + 30):
            break
        time.sleep(LOOK_S)
    return {
        "profile": profile.name, "why": profile.why, "options": dict(profile.options),
        "forced_down_by_others": profile.forced_down, "vms": vms, "computes": len(lab.host_names()),
        "notified_s": rounded(notified), "first_evacuate_s": rounded(min(watched.asked.values(), default=None)),
        "first_active_s": rounded(min(watched.active.values(), default=None)),
        "last_active_s": rounded(max(watched.active.values(), default=None)), "active": len(watched.active),
        "masakari_says": state, "masakari_ended_s": rounded(ended),
    }  # fmt: skip


def rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
