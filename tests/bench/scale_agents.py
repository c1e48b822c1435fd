# SPDX-License-Identifier: Apache-2.0
"""The other side of the benchmark of beats, a process of its own: so many agents, and a Nova with a burst of work.

Each beat is made and signed when it is its turn, so that it is as old as it says. The agents take turns on a few
connections: what the engine gets is the same, and this machine need not hold a thousand sockets of a simulation.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import amqp  # noqa: E402

from tests.bus.beats import busy_beat  # noqa: E402
from vmhad.bus.codec import encode  # noqa: E402
from vmhad.bus.names import EXCHANGE, EXCHANGE_AS_DECLARED, EXPIRES_S, topic  # noqa: E402
from vmhad.bus.signature import derive, sign  # noqa: E402
from vmhad.bus.transport_url import read_url  # noqa: E402
from vmhad.kernel.beat import Beat, PeerView, Plane, StorageBeat  # noqa: E402
from vmhad.kernel.signal import Reading  # noqa: E402

MASTER = bytes(range(32))
HOSTS_OF_SEGMENT = 20
RECORDED = ROOT / "tests" / "ports" / "notifications" / "instance.power_off.end.json"
NOVA_EXCHANGE, NOVA_TOPIC = "nova", "vmhad_notifications"


def host_name(number: int) -> str:
    return f"compute-{number:04}"


def segment_name(number: int) -> str:
    return f"segment-{number // HOSTS_OF_SEGMENT:02}"


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def connected(url: str) -> amqp.Connection:
    bus = read_url(url)
    connection = amqp.Connection(**bus.arguments(bus.places[0]) | {"heartbeat": 0})
    connection.connect()
    return connection


def watched(number: int, hosts: int) -> list[int]:
    """The four hosts after it in its segment, as on a ring."""
    first = number - number % HOSTS_OF_SEGMENT
    size = min(HOSTS_OF_SEGMENT, hosts - first)
    return [first + (number - first + step) % size for step in range(1, 5)]


def seen(peer: Beat, died_at: float) -> PeerView:
    """What its peers say of it: all planes up and a record that moves, or since it died neither."""
    died_s = max(0.0, boot_s() - died_at)
    reading = Reading.DOWN if died_s > 2.0 else Reading.UP
    record = StorageBeat(peer.boot, peer.count, 0.4 + died_s)
    return PeerView(dict.fromkeys(Plane, reading), {"nfs": record, "ceph": record})


def beats(
    url: str, hosts: int, guests: int, connections: int, until: float, deaths: list[tuple[int, float]]
) -> dict[str, object]:
    """Every host once a second, evenly spread over it, until it dies; returns how many were sent, how long the last one
    was, and when the last one of each that died was made. deaths: host's number, when."""
    channels = [connected(url).channel() for _ in range(connections)]
    channels[0].exchange_declare(**EXCHANGE_AS_DECLARED)
    newest = [busy_beat(host_name(number), 0, guests) for number in range(hosts)]
    keys = [derive("k1", MASTER, beat.host) for beat in newest]
    topics = [topic(segment_name(number)) for number in range(hosts)]
    peers = [watched(number, hosts) for number in range(hosts)]
    died = dict(deaths)
    expires, began, turns, sent, size = str(int(EXPIRES_S * 1000)), boot_s(), 0, 0, 0
    while boot_s() < until:
        due = int((boot_s() - began) * hosts)
        for turn in range(turns, due):
            number = turn % hosts
            if boot_s() >= died.get(number, math.inf):
                continue
            beat = newest[number] = replace(
                newest[number],
                count=newest[number].count + 1,
                uptime_s=boot_s(),
                sent_at=time.time(),
                peers={host_name(peer): seen(newest[peer], died.get(peer, math.inf)) for peer in peers[number]},
            )
            signed = sign(keys[number], encode(beat))
            message = amqp.Message(signed, delivery_mode=1, expiration=expires)
            channels[number % connections].basic_publish(message, EXCHANGE, topics[number])
            sent, size = sent + 1, len(signed)
        turns = max(turns, due)
        time.sleep(0.005)
    return {"sent": sent, "bytes": size, "last_beats": {host_name(one): newest[one].uptime_s for one in died}}


def notifications(
    url: str,
    hosts: int,
    usual_per_s: float,
    times: float,
    begins: float,
    burst_from: float,
    burst_until: float,
    until: float,
) -> dict[str, int]:
    """Each of a server of its own, whose id is the time it was sent: so its way is measured, and a lost one seen."""
    channel = connected(url).channel()
    told = json.loads(RECORDED.read_text())
    time.sleep(max(0.0, begins - boot_s()))
    sent, owed, last = 0, 0.0, boot_s()
    while (now := boot_s()) < until:
        owed += (now - last) * usual_per_s * (times if burst_from <= now < burst_until else 1.0)
        last = now
        while owed >= 1.0:
            owed -= 1.0
            sent += 1
            told["payload"]["nova_object.data"]["uuid"] = server_id(sent, boot_s())
            told["payload"]["nova_object.data"]["host"] = host_name(sent % hosts)
            told["_unique_id"] = told["message_id"] = f"notification-{sent}"
            body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(told)})
            message = amqp.Message(body, content_type="application/json", content_encoding="utf-8", delivery_mode=2)
            channel.basic_publish(message, NOVA_EXCHANGE, f"{NOVA_TOPIC}.info")
        time.sleep(0.005)
    return {"sent": sent}


def server_id(number: int, at: float) -> str:
    text = f"{number:016x}{int(at * 1e6):016x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def sent_at(server: str) -> float:
    return int(server.replace("-", "")[16:], 16) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("beats", "notifications"))
    parser.add_argument("told", help="the arguments of the function, as JSON")
    told = parser.parse_args()
    sent = {"beats": beats, "notifications": notifications}[told.what](**json.loads(told.told))
    print(json.dumps({**sent, "cpu_s": time.process_time()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
