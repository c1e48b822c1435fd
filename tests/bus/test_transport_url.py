# SPDX-License-Identifier: Apache-2.0
"""Transport URLs mean here what they mean to oslo.messaging, and no password is in what is said of them."""

from __future__ import annotations

import pytest
from oslo_config import cfg

import vmhad.cmd  # noqa: F401  before oslo.messaging: it chooses threads

# ruff: noqa: E402, I001
import oslo_messaging
from oslo_messaging import transport

from vmhad.bus.transport_url import GUEST, PORT, Broker, Place, read_url

URLS = [
    "rabbit://u:p@h:1/",
    "rabbit://u:p@h/cells",
    "rabbit://u:p%40x%2F@h:1,u2:p2@[2001:db8::1]:5673/%2Fcells?ssl=1",
    "rabbit://u:p@h:1//",
    "rabbit://u@h/",
    "rabbit://h:5672",
    "rabbit://h",
    "rabbit://u:p@h?ssl=1",
    "rabbit://u:p@[2001:db8::1]:1,u:p@[2001:db8::2]:2/",
    "kombu://us%25er:p@h.example.org:5672/v",
]


@pytest.mark.parametrize("url", URLS)
def test_as_oslo_messaging_reads_it(url: str) -> None:
    conf = cfg.ConfigOpts()
    conf([], project="test", default_config_files=[], default_config_dirs=[])
    conf.register_opts(transport._transport_opts)
    theirs = oslo_messaging.TransportURL.parse(conf, url)
    places = [
        Place(host.hostname, host.port or PORT, host.username or GUEST, host.password or GUEST) for host in theirs.hosts
    ]
    assert read_url(url) == Broker(tuple(places), theirs.virtual_host or "/")


@pytest.mark.parametrize("url, says", [
    ("host", "is not a URL of rabbit://"),
    ("kafka://u:SECRET@h/", "is not a URL of rabbit://"),
    ("rabbit:///v", "names no host"),
    ("rabbit://u:SECRET@:5672/", "has a host without a name"),
    ("rabbit://u:SECRET@h:port/", "or a port that is none"),
    ("rabbit://u:SECRET@h:70000/", "or a port that is none"),
    ("rabbit://u:SECRET@[::1/", "brackets"),
    ("rabbit://u:SECRET\u2100@h:x/", "or a port that is none"),
])  # fmt: skip
def test_what_is_none(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_url(url)
    assert "SECRET" not in str(caught.value)


def test_a_connection_never_waits_for_ever_and_holds_the_name_against_the_certificate() -> None:
    bus = read_url("rabbit://u:SECRET@[2001:db8::1]/", "/ca.pem")
    told = bus.arguments(bus.places[0])
    assert told["host"] == "[2001:db8::1]:5672"
    assert told["ssl"]["ca_certs"] == "/ca.pem" and told["ssl"]["server_hostname"] == "2001:db8::1"
    assert all(told[name] > 0 for name in ("connect_timeout", "read_timeout", "write_timeout", "heartbeat"))
    assert "SECRET" not in repr(bus)
