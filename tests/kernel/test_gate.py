# SPDX-License-Identifier: Apache-2.0
"""What an operator may write for a gate, what it comes to, and what is refused."""

from __future__ import annotations

import pytest

from vmhad.kernel.gate import PATH_MAX, Gate, Kind, read_gate


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("port", Gate(Kind.PORT)),
        ("agent", Gate(Kind.AGENT)),
        ("tcp:5432", Gate(Kind.TCP, port=5432)),
        ("http:8080/healthz", Gate(Kind.HTTP, port=8080, path="/healthz")),
        ("http:8080/a/b?c=d&e=%20", Gate(Kind.HTTP, port=8080, path="/a/b?c=d&e=%20")),
        ("tcp:198.51.100.7:5432", Gate(Kind.TCP, "198.51.100.7", 5432)),
        ("http:[2001:db8::7]:8080/x", Gate(Kind.HTTP, "2001:db8::7", 8080, "/x")),
        ("tcp:127.0.0.1:1", Gate(Kind.TCP, "127.0.0.1", 1)),
    ],
)
def test_it_is_read_and_written(text: str, gate: Gate) -> None:
    assert read_gate(text) == gate
    assert str(gate) == text


def test_it_is_written_in_one_way() -> None:
    assert str(read_gate("http:8080")) == "http:8080/"
    assert str(read_gate("tcp:[2001:DB8:0:0::7]:80")) == "tcp:[2001:db8::7]:80"
    assert str(read_gate("tcp:0080")) == "tcp:80"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be one of port, agent, tcp:PORT"),
        ("ports", "must be one of"),
        ("tcp", "must be one of"),
        ("tcp:", "must be one of"),
        ("tcp:http", "must be one of"),
        ("udp:53", "must be one of"),
        ("https:443/", "must be one of"),
        ("tcp:db.example.org:5432", "must be one of"),
        ("tcp:2001:db8::7:80", "must be one of"),
        ("http:8080healthz", "must be one of"),
        ("http:8080/a b", "must be one of"),
        ("http:8080/a\r\nHost: x", "must be one of"),
        ("http:8080/\n", "must be one of"),
        ("http:8080/ä", "must be one of"),
        ("tcp:٣", "must be one of"),
        ("tcp:0", "names port 0; ports go from 1 to 65535"),
        ("tcp:65536", "names port 65536"),
        ("tcp:80/x", "has a path, which only http asks for"),
        ("http:80/" + "x" * PATH_MAX, "has a path of more than 255 characters"),
        ("tcp:300.1.1.1:80", "names '300.1.1.1', which is no IP address"),
        ("tcp:[fe80::1%eth0]:80", "the address of no one machine"),
        ("tcp:0.0.0.0:80", "the address of no one machine"),
        ("tcp:224.0.0.1:80", "the address of no one machine"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="^") as refused:
        read_gate(text)
    assert words in str(refused.value)
